import type { JSX } from "solid-js";
import { EmptyState } from "../../components/states";

export function RunScreen(_props: { readonly copyOf?: string | undefined }): JSX.Element {
  return <EmptyState title="Run" />;
}
