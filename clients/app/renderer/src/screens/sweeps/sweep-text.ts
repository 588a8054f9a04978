/** Sweeps as text. Pure. */

import type { SweepStatus } from "@backtestr/client/page";
import { metricText } from "../result/metric-text";
import { numberText } from "./axes";
import { METRICS } from "./sweep-request";

/** Returns `sma_cross on BTCPERP 1h`. */
export function titleOf({ algorithmId, symbols, timeframe }: SweepStatus): string {
  const [first, ...others] = symbols;
  return `${algorithmId.split("@")[0]} on ${first}${others.length > 0 ? ` + ${others.length}` : ""} ${timeframe}`;
}

/** Returns `fast 12, slow 45`. */
export function parametersText(parameters: { readonly [name: string]: unknown }): string {
  return Object.entries(parameters)
    .map(([name, value]) => `${name} ${typeof value === "number" ? numberText(value) : value}`)
    .join(", ");
}

/** Returns the text of a metric by its name in Python. */
export function figureText(metric: string, value: number): string {
  const definition = METRICS.get(metric);
  if (Number.isNaN(value)) return "—";
  return definition === undefined ? numberText(value) : metricText(definition, value);
}
