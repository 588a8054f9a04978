import type { JSX } from "solid-js";
import { EmptyState } from "../../components/states";

export function StateScreen(_props: { readonly key?: string | undefined }): JSX.Element {
  return <EmptyState title="Shared state" />;
}
