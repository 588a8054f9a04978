/** Metrics as text. Pure. */

import { METRIC_DEFINITIONS, type MetricDefinition, type Metrics } from "@backtestr/client/page";
import { count, fixed, percent } from "../../format/numbers";
import { duration } from "../../format/times";

/** Metrics of one group, in the order in which they are shown. */
export interface MetricGroup {
  readonly name: string;
  readonly metrics: readonly MetricDefinition[];
}

/** All metrics by group. */
export const METRIC_GROUPS: readonly MetricGroup[] = [...new Set(METRIC_DEFINITIONS.map(({ group }) => group))].map(
  (name) => ({ name, metrics: METRIC_DEFINITIONS.filter(({ group }) => group === name) }),
);

/** Returns the definition of a metric by its name on the wire. */
export function definitionOf(name: string): MetricDefinition {
  const found = METRIC_DEFINITIONS.find((one) => one.name === name);
  if (found === undefined) throw new RangeError(`there is no metric ${name}`);
  return found;
}

/** Returns the value of a metric; null where it is undefined, undefined where it was not computed. */
export function metricValue(metrics: Metrics, name: string): number | null | undefined {
  return (metrics as unknown as Readonly<Record<string, number | null | undefined>>)[name];
}

/** Returns a metric's value as text, in its unit; a dash where it has none. */
export function metricText(definition: MetricDefinition, value: number | null | undefined): string {
  if (value === null || value === undefined) return "—";
  switch (definition.unit) {
    case "money":
      return fixed(value, 2);
    case "fraction":
      return percent(value, 2);
    case "ratio":
      return fixed(value, 3);
    case "ms":
      return duration(value);
    case "count":
      return count(value);
  }
}

/** Returns the reason why a metric has no value, as a sentence; undefined where it has one. */
export function whyUndefined(metrics: Metrics, name: string): string | undefined {
  const value = metricValue(metrics, name);
  if (value !== null && value !== undefined) return undefined;
  const reason = metrics.undefined?.[name];
  if (reason !== undefined) return `Undefined: ${reason}.`;
  return value === null ? "Undefined: no reason was stated." : "This metric was not computed for this backtest.";
}

/** Metrics of which more or less is better; of all others neither is. */
const BETTER: Readonly<Record<string, "higher" | "lower">> = {
  finalEquity: "higher",
  peakEquity: "higher",
  totalReturn: "higher",
  annualReturn: "higher",
  cagr: "higher",
  alpha: "higher",
  volatility: "lower",
  sharpeRatio: "higher",
  sortinoRatio: "higher",
  calmarRatio: "higher",
  omegaRatio: "higher",
  skew: "higher",
  valueAtRisk95: "higher",
  conditionalValueAtRisk95: "higher",
  tailRatio: "higher",
  maxDrawdown: "lower",
  averageDrawdown: "lower",
  maxDrawdownDurationMs: "lower",
  averageDrawdownDurationMs: "lower",
  recoveryFactor: "higher",
  ulcerIndex: "lower",
  totalFees: "lower",
  totalSlippage: "lower",
  winRate: "higher",
  bestTrade: "higher",
  worstTrade: "higher",
  averageTrade: "higher",
  profitFactor: "higher",
  payoffRatio: "higher",
  expectancy: "higher",
  sqn: "higher",
  averageMae: "lower",
  averageMfe: "higher",
};

/** Returns which values of a metric are the best: none where fewer than two differ, or where neither way is better. */
export function bestOf(name: string, values: readonly (number | null | undefined)[]): readonly boolean[] {
  const way = BETTER[name];
  const finite = values.filter((one): one is number => typeof one === "number" && Number.isFinite(one));
  const isSame = new Set(finite).size < 2;
  if (way === undefined || isSame) return values.map(() => false);
  const best = way === "higher" ? Math.max(...finite) : Math.min(...finite);
  return values.map((one) => one === best);
}
