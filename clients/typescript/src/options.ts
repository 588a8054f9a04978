/** Options and arguments of the methods of a client. */

import type { Instant } from "./arguments.js";
import type { Clock } from "./clock.js";
import type { Decompress } from "./core/batches.js";
import type { Recovery } from "./core/recovery.js";
import type { Filters } from "./core/update-filter.js";
import type { IndicatorConfig, StartSweep } from "./generated/contracts.js";
import type { Stream } from "./run.js";

/** The time that a request may take, in milliseconds; every attempt of it together. */
export interface Timed {
  readonly timeoutMs?: number | undefined;
}

/** Options of a client. */
export interface ClientOptions {
  /** A stable name for this program; by default a random one. */
  readonly clientId?: string | undefined;
  /** A name for people; by default `@backtestr/client`. */
  readonly clientName?: string | undefined;
  /** Milliseconds in which a broker must be there and answer; 5,000 by default. */
  readonly timeoutMs?: number | undefined;
  /**
   * With false the client is given at once, `connecting`, and keeps trying however long there is no broker. Requests wait
   * for it, and raise `NetworkError` when their time is up. By default connecting fails after `timeoutMs`.
   */
  readonly waitForBroker?: boolean | undefined;
  /** Milliseconds that ordinary requests may take; 30,000 by default. Those about whole files have 600,000. */
  readonly requestTimeoutMs?: number | undefined;
  /** The policy of retries, if not the defaults. */
  readonly recovery?: Partial<Recovery> | undefined;
  /** Decompresses batches; without it compressed batches are refused. `connect` brings one. */
  readonly decompress?: Decompress | undefined;
  /** Time and chance, for tests. */
  readonly clock?: Clock | undefined;
}

/** The price of ticks that bars are made of. */
export type TickPrice = "ask" | "bid" | "last" | "mid";

/** An algorithm with its parameters, and the bars on which it is evaluated or tested. */
export interface Tested {
  /** An algorithm's id, or its name for the newest version. */
  readonly algorithm: string;
  /** One symbol, or several that share the account. */
  readonly symbol: string | readonly string[];
  /** Such as `1m`, `4h` or `1d`. */
  readonly timeframe: string;
  /** The first bar; without it that of the stored bars. */
  readonly start?: Instant | undefined;
  /** The end, exclusive; without it that of the stored bars. */
  readonly end?: Instant | undefined;
  /** That of ticks to make the bars of. */
  readonly price?: TickPrice | undefined;
  /** The algorithm's parameters by name; those that are left out have their defaults. */
  readonly parameters?: { readonly [name: string]: unknown } | undefined;
  /** Stored bars before `start` that warm up the indicators; without it as many as the algorithm declares. */
  readonly warmup?: number | undefined;
}

/** A backtest to run. */
export interface BacktestOptions extends Tested {
  /** Money at the beginning; 100,000 by default. */
  readonly capital?: number | undefined;
  /** A fraction of traded value; 0 by default. */
  readonly commission?: number | undefined;
  /** A fraction of the price; 0 by default. */
  readonly slippage?: number | undefined;
  /** The engine's conventions by name, such as `fillAt`, and `streams`, `preset` and `pace`. */
  readonly options?: { readonly [name: string]: unknown } | undefined;
  /** An id of one's own; by default a new one. */
  readonly backtestId?: string | undefined;
  /** The streams to receive from their first message; all by default. */
  readonly watch?: readonly Stream[] | undefined;
}

/** A value of a parameter. */
export type ParameterValue = number | string | boolean;

/**
 * The values of a swept parameter: one, several, those from `low` up to `high` by `step`, both ends included, or many
 * between them, evenly (`uniform`) or evenly in their logarithm.
 */
export type SweptValues =
  | ParameterValue
  | Iterable<ParameterValue>
  | { readonly low: number; readonly high: number; readonly step: number }
  | { readonly low: number; readonly high: number; readonly distribution: "uniform" | "log_uniform" };

/**
 * A sweep to run: a backtest for each combination of the values in `space`. All else is as for a backtest; `parameters` are
 * those that are not swept.
 */
export interface SweepOptions extends Omit<BacktestOptions, "backtestId" | "watch">, Timed {
  /** The values of each swept parameter; the last one varies first. */
  readonly space: { readonly [parameter: string]: SweptValues };
  /** A constraint on parameters, such as `fast < slow`. */
  readonly where?: string | undefined;
  /** The metric by which a row is the best; `sharpe_ratio` by default. */
  readonly objective?: string | undefined;
  readonly direction?: "maximize" | "minimize" | undefined;
  /** Every combination (`grid`, the default), or so many `trials`, which `tpe` and `cmaes` choose by the rows so far. */
  readonly method?: StartSweep["method"];
  /** The combinations that all methods but `grid` run, each once. */
  readonly trials?: number | undefined;
  /** It selects the combinations: the same ones for the same number. */
  readonly seed?: number | undefined;
  /** The trials that `tpe` and `cmaes` choose at a time. */
  readonly batchSize?: number | undefined;
  /** The figures of each row: the usual ones by default, every one for `["all"]`. */
  readonly metrics?: readonly string[] | undefined;
  /** An id of one's own; by default a new one. The same id with the same options gives the same sweep. */
  readonly sweepId?: string | undefined;
  /** The combinations that a worker takes at a time; by default as many as it does in about 250 ms. */
  readonly blockSize?: number | undefined;
  /** The address of a Dask scheduler (`tcp://10.0.0.5:8786`), or an empty text for the broker's own workers. */
  readonly scheduler?: string | undefined;
}

/** The rows of a sweep that are wanted. */
export interface RowsOptions extends Timed {
  /** An expression on columns, such as `sharpe_ratio > 1 and total_trades >= 20`. */
  readonly where?: string | undefined;
  /** The column that they are sorted by; by default they are in the order of their cells. */
  readonly sort?: string | undefined;
  readonly descending?: boolean | undefined;
  /** The most rows; all by default. */
  readonly limit?: number | undefined;
  /** The columns beside `cell`; all by default. */
  readonly columns?: readonly string[] | undefined;
}

/** The trials that are counted: those to which every field that is given applies. */
export interface TrialsOptions {
  /** An algorithm's name, or an id, of which the name counts. */
  readonly algorithm?: string | undefined;
  /** A symbol that is among those of the trials. */
  readonly symbol?: string | undefined;
  readonly timeframe?: string | undefined;
  /** The id of one group, as results and sweeps name it. */
  readonly group?: string | undefined;
  readonly limit?: number | undefined;
}

/** The results that are deleted because they are too old, too many or too large. */
export interface PruneOptions extends Timed {
  /** Name them, and delete none. */
  readonly dryRun?: boolean | undefined;
  readonly maxAgeDays?: number | undefined;
  readonly maxCount?: number | undefined;
  readonly maxBytes?: number | undefined;
  readonly keepNewest?: number | undefined;
}

/** The bars or ticks that are wanted. */
export interface MarketDataOptions extends Timed {
  readonly start?: Instant | undefined;
  /** The end, exclusive. */
  readonly end?: Instant | undefined;
  /** So many bars of the range: the last ones, or the first ones as `keep` says. */
  readonly limit?: number | undefined;
  readonly keep?: "first" | "last" | undefined;
  readonly price?: TickPrice | undefined;
  /** TA-Lib's names, or names with parameters; each output is a column. */
  readonly indicators?: readonly (string | IndicatorConfig)[] | undefined;
}

/** Options of an import; what is left out is told from the file. */
export interface ImportOptions extends Timed {
  readonly symbol?: string | undefined;
  readonly timeframe?: string | undefined;
  readonly format?: string | undefined;
  readonly timeZone?: string | undefined;
  readonly price?: TickPrice | undefined;
  readonly repair?: "drop" | undefined;
  readonly timeUnit?: "s" | "ms" | "us" | "ns" | undefined;
  readonly dateOrder?: "dmy" | "mdy" | undefined;
  readonly decimal?: "." | "," | undefined;
  readonly symbolColumn?: string | undefined;
}

/** Options of a price replay: its bars or ticks, and exactly one of the three rates. */
export interface ReplayOptions extends Timed {
  readonly start?: Instant | undefined;
  /** The end, exclusive. */
  readonly end?: Instant | undefined;
  readonly price?: TickPrice | undefined;
  /** Bars or ticks a second. */
  readonly barsPerSecond?: number | undefined;
  /** A multiple of real time. */
  readonly speed?: number | undefined;
  /** As fast as this client reads. */
  readonly asFastAsRead?: true | undefined;
}

/** A live price; its time may be any instant. */
export interface Price {
  readonly symbol: string;
  readonly timestamp: Instant;
  readonly bid: number;
  readonly ask: number;
  readonly last: number;
  readonly volume: number;
  /** A timeframe, or `tick`. */
  readonly timeframe: string;
}

/** Options of reading a topic. */
export interface SubscribeOptions {
  /** Begin with the oldest message that the broker retains, and miss none after that. */
  readonly history?: boolean | undefined;
  /** The messages that are wanted. */
  readonly filters?: Filters | undefined;
}
