import type { JSX } from "solid-js";
import { EmptyState } from "../../components/states";

export function DataScreen(_props: {
  readonly symbol?: string | undefined;
  readonly timeframe?: string | undefined;
}): JSX.Element {
  return <EmptyState title="Data" />;
}
