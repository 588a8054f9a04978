/** The options of a client's methods: which there are, and the fields of requests that they become. */

import { asIso, asMs, asSeconds, asSymbols, checkOptions, withTimesAsText } from "./arguments.js";
import { isMap, shown } from "./core/codec.js";
import { SerializationError } from "./core/errors.js";
import type { BacktestConfig, GetTrials, PruneResults, PublishPrices } from "./generated/contracts.js";
import type {
  BacktestOptions,
  ClientOptions,
  MarketDataOptions,
  Price,
  PruneOptions,
  Tested,
  TrialsOptions,
} from "./options.js";
import type { Table } from "./tables/index.js";

/** The options that say what is tested. */
export const TESTED = ["algorithm", "symbol", "timeframe", "start", "end", "price", "parameters", "warmup"];
/** The options that say what is tested, and how. */
const CONFIGURED = [...TESTED, "capital", "commission", "slippage", "options"];
/** The options of `backtest`. */
export const BACKTESTING = [...CONFIGURED, "backtestId", "watch"];
/** The options of `sweep`. */
export const SWEEPING = [
  ...CONFIGURED,
  "space",
  "where",
  "objective",
  "direction",
  "method",
  "trials",
  "seed",
  "batchSize",
  "metrics",
  "sweepId",
  "blockSize",
  "scheduler",
  "timeoutMs",
];
/** The options of `trials`. */
const COUNTING = ["algorithm", "symbol", "timeframe", "group", "limit"];
/** The options of `pruneResults`. */
export const PRUNING = ["dryRun", "maxAgeDays", "maxCount", "maxBytes", "keepNewest", "timeoutMs"];
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

/** Returns the configuration of a backtest, without its id, as the wire has it. */
export function configFields(options: Omit<BacktestOptions, "backtestId" | "watch">): BacktestConfig {
  return {
    ...testedFields(options),
    initialCapital: options.capital ?? 100_000,
    commission: options.commission ?? 0,
    slippage: options.slippage ?? 0,
    options: withTimesAsText(options.options ?? {}, "options") as { readonly [name: string]: unknown },
  };
}

/** Returns live prices as the wire has them. Raises a `TypeError` for what is no price or no time. */
export function timedPrices(prices: readonly Price[]): PublishPrices["prices"] {
  if (!Array.isArray(prices)) throw new TypeError(`prices: expected a list; ${shown(prices)} came`);
  return prices.map((price: Price, index) => {
    if (!isMap(price)) throw new TypeError(`prices[${index}]: expected a price; ${shown(price)} came`);
    return { ...price, timestamp: asMs(price.timestamp, `prices[${index}].timestamp`) };
  });
}

/** Raises a `TypeError` for a prefix of the shared state that is none, and for a resolver that is no function. */
export function checkShared(prefix: unknown, options: { readonly resolvers?: object }): void {
  checkOptions(options, ["resolvers"], "sharedState");
  if (typeof prefix !== "string" || (prefix !== "" && !prefix.endsWith("."))) {
    throw new TypeError(`prefix: expected a text that ends with a dot, or is empty; ${shown(prefix)} came`);
  }
  for (const [name, resolver] of Object.entries(options.resolvers ?? {})) {
    if (typeof resolver !== "function") {
      throw new TypeError(`resolvers.${name}: expected a function; ${shown(resolver)} came`);
    }
  }
}

/** Returns which trials to count, as the wire has it. */
export function trialFields(options: TrialsOptions): GetTrials {
  checkOptions(options, COUNTING, "trials");
  const { algorithm, ...others } = options;
  return { ...others, algorithmId: algorithm };
}

/** Returns what results to delete, as the wire has it. */
export function pruneFields({ dryRun, maxAgeDays, maxCount, maxBytes, keepNewest }: PruneOptions): PruneResults {
  const maxAgeMs = maxAgeDays === undefined ? undefined : Math.max(1, Math.round(maxAgeDays * DAY_MS));
  return { dryRun, maxAgeMs, maxCount, maxBytes, keepNewest };
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

const DAY_MS = 86_400_000;
const DECLARED = /^@(?:\w+\.)*(?:algorithm|portfolio)\(\s*(["'])(.+?)\1/gm;

/** Returns the name of the only algorithm that a source declares. Raises a `TypeError` for none and for several. */
export function declaredName(source: string): string {
  const names = [...source.matchAll(DECLARED)].map(([, , name]) => name as string);
  const [only, second] = names;
  if (only !== undefined && second === undefined) return only;
  const found = only === undefined ? "it declares none that can be told" : `it declares ${names.join(", ")}`;
  throw new TypeError(`say which algorithm of the source is meant, name: ...: ${found}`);
}
