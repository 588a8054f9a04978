import type { BacktestStatus } from "@backtestr/client/page";
import type { JSX } from "solid-js";

export function LiveScreen(_props: {
  id: string;
  config: Readonly<Record<string, unknown>>;
  status: BacktestStatus | undefined;
}): JSX.Element {
  return <p>live</p>;
}
