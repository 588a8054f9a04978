import type { JSX } from "solid-js";
import { EmptyState } from "../../components/states";

export function CompareScreen(_props: { readonly ids: readonly string[] }): JSX.Element {
  return <EmptyState title="Compare" />;
}
