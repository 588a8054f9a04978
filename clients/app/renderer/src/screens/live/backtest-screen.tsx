import type { JSX } from "solid-js";
import { EmptyState } from "../../components/states";

export function BacktestScreen(_props: { readonly id: string; readonly view?: string | undefined }): JSX.Element {
  return <EmptyState title="Backtest" />;
}
