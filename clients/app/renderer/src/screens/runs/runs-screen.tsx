import type { JSX } from "solid-js";
import { EmptyState } from "../../components/states";

export function RunsScreen(): JSX.Element {
  return <EmptyState title="Results" />;
}
