/** The options of a client's methods: which there are, and the fields of requests that they become. */

import { asIso, asMs, asSeconds, asSymbols, checkOptions, withTimesAsText } from "./arguments.js";
import { shown } from "./core/codec.js";
import { SerializationError } from "./core/errors.js";
import type { BacktestConfig } from "./generated/contracts.js";
import type { ClientOptions, MarketDataOptions, Tested } from "./options.js";
import type { Table } from "./tables/index.js";

/** The options that say what is tested. */
export const TESTED = ["algorithm", "symbol", "timeframe", "start", "end", "price", "parameters", "warmup"];
/** The options of `backtest`. */
export const BACKTESTING = [...TESTED, "capital", "commission", "slippage", "options", "backtestId", "watch"];
/** The options of `replay`. */
export const REPLAYING = ["start", "end", "price", "barsPerSecond", "speed", "asFastAsRead", "timeoutMs"];
/** The options of `importMarketData`. */
export const IMPORTING = [
  "symbol",
  "timeframe",
  "format",
  "timeZone",
  "price",
  "repair",
  "timeUnit",
  "dateOrder",
  "decimal",
  "symbolColumn",
  "timeoutMs",
];
/** The options of a client. */
export const OF_CLIENTS = [
  "clientId",
  "clientName",
  "timeoutMs",
  "waitForBroker",
  "requestTimeoutMs",
  "recovery",
  "decompress",
  "clock",
];

/** Raises a `TypeError` for options of a client that are unknown or of a wrong type. */
export function checkClientOptions(options: ClientOptions): void {
  checkOptions(options, OF_CLIENTS, "client");
  for (const name of ["clientId", "clientName"] as const) {
    const value = options[name];
    if (value !== undefined && (typeof value !== "string" || value === "")) {
      throw new TypeError(`${name}: expected a text; ${shown(value)} came`);
    }
  }
  if (options.timeoutMs !== undefined) asSeconds(options.timeoutMs, "timeoutMs");
  const { waitForBroker } = options;
  if (waitForBroker !== undefined && typeof waitForBroker !== "boolean") {
    throw new TypeError(`waitForBroker: expected true or false; ${shown(waitForBroker)} came`);
  }
}

/** Returns what is tested, and on which bars, as the wire has it. */
export function testedFields(
  tested: Tested,
): Omit<BacktestConfig, "backtestId" | "initialCapital" | "commission" | "slippage" | "options"> {
  const symbols = asSymbols(tested.symbol);
  return {
    algorithmId: tested.algorithm,
    symbol: symbols[0],
    symbols: symbols.length > 1 ? symbols : undefined,
    timeframe: tested.timeframe,
    startDate: tested.start === undefined ? undefined : asIso(tested.start, "start"),
    endDate: tested.end === undefined ? undefined : asIso(tested.end, "end"),
    price: tested.price,
    parameters: withTimesAsText(tested.parameters ?? {}, "parameters") as { readonly [name: string]: unknown },
    warmup: tested.warmup,
  };
}

/** Returns the bounds of a range as the wire has them. */
export function range(options: { readonly start?: unknown; readonly end?: unknown }): {
  readonly startTime: number | undefined;
  readonly endTime: number | undefined;
} {
  const { start, end } = options as MarketDataOptions;
  return {
    startTime: start === undefined ? undefined : asMs(start, "start"),
    endTime: end === undefined ? undefined : asMs(end, "end"),
  };
}

/** Returns the table of this name. Raises a `SerializationError` where there is none. */
export function tableOf(tables: { readonly [name: string]: Table }, name: string): Table {
  const table = tables[name];
  if (table !== undefined) return table;
  throw new SerializationError(`the answer has no table ${name}; it has ${Object.keys(tables).join(", ") || "none"}`);
}

const DECLARED = /^@(?:\w+\.)*(?:algorithm|portfolio)\(\s*(["'])(.+?)\1/gm;

/** Returns the name of the only algorithm that a source declares. Raises a `TypeError` for none and for several. */
export function declaredName(source: string): string {
  const names = [...source.matchAll(DECLARED)].map(([, , name]) => name as string);
  const [only, second] = names;
  if (only !== undefined && second === undefined) return only;
  const found = only === undefined ? "it declares none that can be told" : `it declares ${names.join(", ")}`;
  throw new TypeError(`say which algorithm of the source is meant, name: ...: ${found}`);
}
