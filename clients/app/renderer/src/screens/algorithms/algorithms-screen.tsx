import type { JSX } from "solid-js";
import { EmptyState } from "../../components/states";

export function AlgorithmsScreen(_props: { readonly algorithm?: string | undefined }): JSX.Element {
  return <EmptyState title="Algorithms" />;
}
