import type { JSX } from "solid-js";
import { EmptyState } from "../../components/states";

export function TopicsScreen(_props: { readonly topic?: string | undefined }): JSX.Element {
  return <EmptyState title="Topics" />;
}
