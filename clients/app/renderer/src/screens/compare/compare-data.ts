/** Compares several results. Pure. */

import type { RemoteResults } from "@backtestr/client/page";
import { Pyramid } from "../../charts/pyramid";
import type { Range } from "../../charts/range";
import { flattened } from "../result/configuration-paths";
import { configOf, numbers, type RunConfig } from "../result/result-data";

/** The curve of a backtest: its return since the start at each time. */
export interface ReturnCurve {
  /** Ascending milliseconds. */
  readonly times: Float64Array;
  /** Fractions of the initial capital. */
  readonly returns: Pyramid;
}

/** Returns the curve of a result that has its equity table. */
export function returnCurve(results: RemoteResults): ReturnCurve {
  const table = results.tables.equity;
  if (table === undefined) throw new RangeError("the broker has sent no equity of this result");
  const { initialCapital } = configOf(results.config);
  const returns = numbers(table, "equity").map((one) => one / initialCapital - 1);
  // A copy, so that the rest of the table can go.
  return { times: numbers(table, "timestamp").slice(), returns: new Pyramid(returns) };
}

/** Returns the times from the first to the last of all curves; undefined if none has one. */
export function extentOf(curves: readonly ReturnCurve[]): Range | undefined {
  let [from, to] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const { times } of curves) {
    if (times.length === 0) continue;
    from = Math.min(from, times[0] as number);
    to = Math.max(to, times.at(-1) as number);
  }
  return to > from ? { from, to } : undefined;
}

/** A value of the configuration, in each of the results. */
export interface ConfigRow {
  readonly path: string;
  /** Undefined where a result has no such value. */
  readonly values: readonly (string | undefined)[];
  readonly differs: boolean;
}

/** Returns every value of the configurations, in the order of the first that has it; the id is left out. */
export function configRows(configs: readonly Readonly<Record<string, unknown>>[]): readonly ConfigRow[] {
  const maps = configs.map((one) => new Map(flattened(one)));
  const paths = [...new Set(maps.flatMap((one) => [...one.keys()]))].filter((path) => path !== "backtestId");
  return paths.map((path) => {
    const values = maps.map((one) => one.get(path));
    return { path, values, differs: new Set(values).size > 1 };
  });
}

/** Returns a short name for each backtest: its algorithm and market, and the parameters by which they differ. */
export function namesOf(configs: readonly RunConfig[]): readonly string[] {
  const keys = [...new Set(configs.flatMap(({ parameters }) => Object.keys(parameters)))];
  const telling = keys.filter(
    (key) => new Set(configs.map(({ parameters }) => JSON.stringify(parameters[key]))).size > 1,
  );
  return configs.map(({ algorithm, symbols, timeframe, parameters }, index) => {
    const market = symbols.length > 1 ? `${symbols[0]} +${symbols.length - 1}` : symbols[0];
    const own = telling.filter((key) => key in parameters).map((key) => `${key} ${String(parameters[key])}`);
    return [`${index + 1}. ${algorithm} ${market} ${timeframe}`, ...own].join(", ");
  });
}
