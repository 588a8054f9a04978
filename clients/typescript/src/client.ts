/** A client is a connection to a broker with a method for each request. */

import { asSeconds, checkOptions } from "./arguments.js";
import { type Clock, systemClock } from "./clock.js";
import { BULK_SECONDS, Context, type RequestType } from "./context.js";
import type { Decompress } from "./core/batches.js";
import { shown } from "./core/codec.js";
import type { ConnectionState } from "./core/connection-state.js";
import type { Statistics } from "./core/counters.js";
import type { Gap } from "./core/effects.js";
import { ErrorLog } from "./core/error-log.js";
import { BacktestrError, ClosedError, SerializationError, SystemFault } from "./core/errors.js";
import type { HeartbeatChange, Pulse } from "./core/heartbeat.js";
import { recovery } from "./core/recovery.js";
import type { Resolver } from "./core/resolvers.js";
import { Session } from "./core/session.js";
import { checkedPrefix, type TopicData } from "./core/topics.js";
import type { Transport } from "./core/transport.js";
import { updateFilter } from "./core/update-filter.js";
import type { Update } from "./core/updates.js";
import { Driver } from "./driver.js";
import { Emitter } from "./emitter.js";
import { type ClientEvents, type Errors, EVENTS, OF_HEARTBEATS } from "./events.js";
import type {
  AlgorithmInfo,
  AlgorithmProblem,
  AlgorithmStatus,
  BacktestStatus,
  Imported,
  ListSweeps,
  Metrics,
  PriceReplayStatus,
  PrunedResults,
  Requests,
  ResultList,
  SeriesFacts,
  SeriesInfo,
  StoredSeries,
  SweepAccepted,
  SweepStatus,
  SystemStatus,
  TrialGroup,
  Welcome,
} from "./generated/contracts.js";
import { Heartbeats } from "./heartbeats.js";
import { fetchMarketData, tickPages } from "./market-data.js";
import type {
  BacktestOptions,
  ClientOptions,
  ImportOptions,
  MarketDataOptions,
  Price,
  PruneOptions,
  ReplayOptions,
  SubscribeOptions,
  SweepOptions,
  Tested,
  TickPrice,
  Timed,
  TrialsOptions,
} from "./options.js";
import { type PriceReplay, type ReplayState, startReplay } from "./replay.js";
import {
  BACKTESTING,
  checkClientOptions,
  checkShared,
  configFields,
  declaredName,
  IMPORTING,
  PRUNING,
  pruneFields,
  REPLAYING,
  range,
  SWEEPING,
  TESTED,
  tableOf,
  testedFields,
  timedPrices,
  trialFields,
} from "./request-fields.js";
import { ALL_TABLES, fetchResults, fetchTables, type Results, type Table, type TableName } from "./results.js";
import { type BacktestState, Run, STREAMS, startRun } from "./run.js";
import { SharedState } from "./state.js";
import { fetchMissed, Subscription } from "./subscription.js";
import { Sweep, startSweep } from "./sweep.js";
import { sweepFields } from "./sweep-fields.js";
import { Turns } from "./turns.js";
import { welcomed } from "./welcomed.js";

/**
 * A connection to a broker; `close` it, or use `await using`.
 *
 * Every method raises the broker's error as an error of its code, `TimedOut` when there is no answer in time,
 * `NetworkError` when the connection was lost for as long, and `ClosedError` after `close`. An argument of a wrong type is
 * a `TypeError`. When the broker is restarted the client connects again by itself, and resends pending requests with the
 * same id: nothing is done twice.
 */
export class Client {
  /** The latest errors. */
  readonly errors: Errors;
  /** All keys of the shared state; it begins to follow the broker with its first use. */
  readonly state: SharedState;
  readonly #driver: Driver;
  readonly #context: Context;
  readonly #emitter: Emitter<ClientEvents>;
  readonly #errorLog: ErrorLog;
  readonly #heartbeats: Heartbeats;
  readonly #clock: Clock;

  /** Begins to connect; use `connect` or `createClient`, which wait for the broker. */
  constructor(transport: Transport, options: ClientOptions = {}) {
    checkClientOptions(options);
    const policy = recovery(options.recovery);
    const clock = options.clock ?? systemClock;
    const nonce = clock.newId();
    const session = new Session(options.clientId ?? `node-${nonce}`, nonce, policy, options.clientName);
    this.#clock = clock;
    this.#errorLog = new ErrorLog(policy.automatic);
    this.#emitter = new Emitter<ClientEvents>(EVENTS, (error) => this.#report(error, "callback"));
    this.#driver = new Driver(transport, session, clock, policy, options.decompress ?? refuseCompressed, {
      state: (state, previous) => this.#emit("status", { state, previous }),
      report: (error, about) => this.#report(error, about),
      gap: (topic, fromSeq, toSeq) => this.#emit("gap", { topic, fromSeq, toSeq }),
      repaired: (topic) => this.#emit("repaired", { topic }),
      lost: (topic, fromSeq, toSeq) => this.#emit("lost", { topic, fromSeq, toSeq }),
      slow: (topic) => this.#emit("slowConsumer", { topic }),
    });
    const requestSeconds = asSeconds(options.requestTimeoutMs ?? 30_000, "requestTimeoutMs");
    this.#context = new Context(this.#driver, clock, new Turns(clock), requestSeconds, (error, about) =>
      this.#report(error, about),
    );
    this.#heartbeats = new Heartbeats(this.#context, (change) => this.#beat(change));
    this.state = new SharedState(this.#context, "", {});
    const log = this.#errorLog;
    this.errors = {
      get count() {
        return log.count;
      },
      latest: (severity) => log.latest(severity),
      on: (callback, severity) => log.addCallback(callback, severity),
    };
    this.#driver.start();
  }

  // --- the connection ------------------------------------------------------------------------------------------------

  /** The state of the connection: `connecting`, `ready`, `reconnecting`, `authFailed` or `closed`. */
  get status(): ConnectionState {
    return this.#driver.state;
  }

  /** The broker's latest answer to this client's `Hello`: version, limits and topics; null before the first. */
  get welcome(): Welcome | null {
    return this.#driver.welcome;
  }

  /** The counters so far: requests, and the messages that streams lost and that were repaired. */
  get statistics(): Statistics {
    return this.#driver.statistics(this.#errorLog.count);
  }

  /**
   * Whether heartbeats come (`alive`, or `silent` for 30 seconds), and what the broker last said of itself. They are
   * watched from the first callback of `heartbeat`, `health` or `silence` on, or from the first look at this.
   */
  get heartbeat(): { readonly pulse: Pulse; readonly status: SystemStatus | null } {
    if (this.status !== "closed") this.#heartbeats.begin();
    return { pulse: this.#heartbeats.pulse, status: this.#heartbeats.status };
  }

  /** Calls `callback` for every further event of this name; returns what ends that. */
  on<Name extends keyof ClientEvents>(name: Name, callback: (event: ClientEvents[Name]) => void): () => void {
    const off = this.#emitter.on(name, callback);
    if (OF_HEARTBEATS.includes(name) && this.status !== "closed") this.#heartbeats.begin();
    return off;
  }

  /**
   * Waits for the broker. Raises `NetworkError` if it is not there or does not answer within `timeoutMs`, and
   * `AuthenticationError` if it does not take this client's key.
   */
  async opened(options: Timed = {}): Promise<Welcome> {
    const seconds = asSeconds(options.timeoutMs ?? 5_000, "timeoutMs");
    return welcomed(this.#driver, this.#clock, seconds);
  }

  /** Ends the session. Backtests continue; what still waits raises a `ClosedError`. Nothing keeps the process alive. */
  async close(): Promise<void> {
    this.#context.close();
    this.state.close();
    await this.#driver.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // --- requests ------------------------------------------------------------------------------------------------------

  /** Sends any request of the protocol, and returns its answer. */
  async request<Type extends RequestType>(
    requestType: Type,
    ...[data, options]: { readonly [name: string]: never } extends Requests[Type]["data"]
      ? [data?: Requests[Type]["data"], options?: Timed]
      : [data: Requests[Type]["data"], options?: Timed]
  ): Promise<Requests[Type]["answer"]> {
    return this.#context.answer(requestType, data ?? {}, this.#seconds(options));
  }

  /** Sends any request of the protocol, and returns its answer with the attachments. */
  async requestWithAttachments<Type extends RequestType>(
    requestType: Type,
    data: Requests[Type]["data"],
    options: Timed = {},
  ): Promise<{ readonly answer: Requests[Type]["answer"]; readonly attachments: readonly Uint8Array[] }> {
    const [answer, attachments] = await this.#context.ask(requestType, data, this.#seconds(options));
    return { answer, attachments };
  }

  /** Returns the broker's clock, in milliseconds since the Unix epoch. */
  async ping(): Promise<number> {
    const pong = await this.#context.answer("Ping", {});
    return pong.timestamp;
  }

  /** Returns the status of the broker, its workers and its machine. */
  systemStatus(): Promise<SystemStatus> {
    return this.#context.answer("GetSystemStatus", {});
  }

  /** Stops the broker for all its clients; backtests run again when it is started again. */
  async stopBroker(): Promise<void> {
    await this.#context.answer("StopBroker", {});
  }

  // --- algorithms ----------------------------------------------------------------------------------------------------

  /** Lists the algorithms that can be run, with the parameters of each. */
  async listAlgorithms(): Promise<readonly AlgorithmInfo[]> {
    const list = await this.#context.answer("ListAlgorithms", {});
    return list.algorithms;
  }

  /** Lists the files of algorithms that the broker's workers have not loaded, each with the reason. */
  async algorithmProblems(): Promise<readonly AlgorithmProblem[]> {
    const list = await this.#context.answer("ListAlgorithms", {});
    return list.problems ?? [];
  }

  /**
   * Has the broker keep an algorithm of yours: the text of a Python file. `name` says which of its algorithms, where it
   * declares several. The answer has the id of this version, which the name means from now on, and `lookAhead`, the
   * verdict of the look-ahead check.
   */
  async registerAlgorithm(source: string, options: Timed & { readonly name?: string } = {}): Promise<AlgorithmInfo> {
    checkOptions(options, ["name", "timeoutMs"], "registerAlgorithm");
    if (typeof source !== "string") throw new TypeError(`source: expected the text of a file; ${shown(source)} came`);
    const name = options.name ?? declaredName(source);
    return this.#context.answer("RegisterAlgorithm", { name, source }, this.#bulkSeconds(options));
  }

  /** Returns one version of an algorithm by its id, or the newest by its name, with what runs it and its last error. */
  async algorithmStatus(algorithm: string): Promise<AlgorithmStatus> {
    return this.#context.answer("GetAlgorithmStatus", { algorithmId: algorithm });
  }

  /**
   * Returns the signals of an algorithm with the bars, and the series that it shows, without a backtest: the table has
   * `timestamp open high low close volume`, then the signals, then what it shows.
   */
  async evaluate(tested: Tested & Timed): Promise<Table> {
    checkOptions(tested, [...TESTED, "timeoutMs"], "evaluate");
    const [, tables] = await fetchTables(
      this.#context,
      "EvaluateAlgorithm",
      testedFields(tested),
      this.#bulkSeconds(tested),
    );
    return tableOf(tables, "signals");
  }

  // --- market data ---------------------------------------------------------------------------------------------------

  /** Lists the stored series. */
  async listMarketData(): Promise<readonly SeriesInfo[]> {
    const list = await this.#context.answer("ListMarketData", {});
    return list.series;
  }

  /**
   * Returns bars as a table `timestamp open high low close volume`, with a column for each output of each indicator.
   * Longer timeframes are resampled where they are not stored, and made of ticks where no bars are. The timeframe `tick`
   * gives the ticks themselves, `timestamp bid ask last volume`.
   */
  async marketData(symbol: string, timeframe: string, options: MarketDataOptions = {}): Promise<Table> {
    checkOptions(options, ["start", "end", "limit", "keep", "price", "indicators", "timeoutMs"], "marketData");
    return fetchMarketData(this.#context, symbol, timeframe, options, this.#bulkSeconds(options));
  }

  /** Gives the ticks of a range as tables of up to 1,000,000, however many they are. */
  ticks(symbol: string, options: Timed & Pick<MarketDataOptions, "start" | "end"> = {}): AsyncGenerator<Table> {
    checkOptions(options, ["start", "end", "timeoutMs"], "ticks");
    return tickPages(this.#context, symbol, options, this.#bulkSeconds(options));
  }

  /** Has the broker import a file of its machine. What is left out is told from the file. */
  async importMarketData(path: string, options: ImportOptions = {}): Promise<Imported> {
    checkOptions(options, IMPORTING, "importMarketData");
    const { timeoutMs: _, ...rest } = options;
    return this.#context.answer("ImportMarketData", { path, ...rest }, this.#bulkSeconds(options));
  }

  /** Returns range, prices and gaps of a series, stored, resampled, or made of the `price` of ticks. */
  async describeMarketData(
    symbol: string,
    timeframe: string,
    options: Timed & { readonly price?: TickPrice } = {},
  ): Promise<SeriesFacts> {
    checkOptions(options, ["price", "timeoutMs"], "describeMarketData");
    const request = { symbol, timeframe, price: options.price };
    return this.#context.answer("DescribeMarketData", request, this.#bulkSeconds(options));
  }

  /** Has the broker resample a stored series, or the `price` of its ticks, and store the result. */
  async resampleMarketData(
    symbol: string,
    fromTimeframe: string,
    toTimeframe: string,
    options: Timed & { readonly price?: TickPrice } = {},
  ): Promise<StoredSeries> {
    checkOptions(options, ["price", "timeoutMs"], "resampleMarketData");
    const request = { symbol, fromTimeframe, toTimeframe, price: options.price };
    return this.#context.answer("ResampleMarketData", request, this.#bulkSeconds(options));
  }

  /** Deletes a series, or without `timeframe` all series of a symbol; returns the deleted timeframes. */
  async deleteMarketData(symbol: string, timeframe?: string): Promise<readonly string[]> {
    const deleted = await this.#context.answer("DeleteMarketData", { symbol, timeframe });
    return deleted.timeframes;
  }

  // --- prices --------------------------------------------------------------------------------------------------------

  /**
   * Publishes stored bars or ticks as prices, for all clients that subscribe. Iterate over the handle to read them. Give
   * one of `barsPerSecond`, `speed` and `asFastAsRead`.
   */
  async replay(symbol: string, timeframe: string, options: ReplayOptions): Promise<PriceReplay> {
    checkOptions(options, REPLAYING, "replay");
    const { barsPerSecond, speed, asFastAsRead, price } = options;
    if ([barsPerSecond, speed, asFastAsRead].filter((one) => one !== undefined).length !== 1) {
      throw new TypeError("replay: give one of barsPerSecond, speed (1 is real time) and asFastAsRead: true");
    }
    return startReplay(this.#context, {
      replayId: this.#clock.newId(),
      symbol,
      timeframe,
      ...range(options),
      price,
      barsPerSecond,
      speed,
      asFastAsRead,
    });
  }

  /** Lists the price replays that the broker knows, the latest first. */
  async listReplays(): Promise<readonly PriceReplayStatus[]> {
    const list = await this.#context.answer("ListPriceReplays", {});
    return list.replays;
  }

  /** Stops a price replay of any client. Raises `NotFound`. */
  async stopReplay(replayId: string): Promise<ReplayState> {
    const answer = await this.#context.answer("StopPriceReplay", { replayId });
    return answer.status;
  }

  /**
   * Publishes live prices, up to 1,000, each on `prices.<symbol>.<timeframe>`; returns how many. All are published or none:
   * `ValidationError` names the first wrong one in `details.path`.
   */
  async publishPrices(prices: readonly Price[]): Promise<number> {
    const answer = await this.#context.answer("PublishPrices", { prices: timedPrices(prices) });
    return answer.published;
  }

  // --- backtests -----------------------------------------------------------------------------------------------------

  /** Starts a backtest, and resolves with its handle as soon as the broker has accepted it. */
  async backtest(options: BacktestOptions): Promise<Run> {
    checkOptions(options, BACKTESTING, "backtest");
    const config = { ...configFields(options), backtestId: options.backtestId ?? this.#clock.newId() };
    return startRun(this.#context, "StartBacktest", config, options.watch ?? STREAMS);
  }

  /** Returns the handle of a backtest that was started elsewhere or before. Raises `NotFound`. */
  async run(backtestId: string): Promise<Run> {
    await this.backtestStatus(backtestId);
    return new Run(this.#context, backtestId, false);
  }

  /** Lists the backtests that the broker knows, the latest first. */
  async listBacktests(
    options: { readonly status?: BacktestState; readonly limit?: number } = {},
  ): Promise<readonly BacktestStatus[]> {
    checkOptions(options, ["status", "limit"], "listBacktests");
    const list = await this.#context.answer("ListBacktests", { ...options });
    return list.backtests;
  }

  /** Returns the status of a backtest. Raises `NotFound`. */
  async backtestStatus(backtestId: string): Promise<BacktestStatus> {
    return this.#context.answer("GetBacktestStatus", { backtestId });
  }

  /** Returns the results of a backtest, without metrics while it has not ended. Raises `NotFound`. */
  async results(
    backtestId: string,
    options: Timed & { readonly tables?: readonly TableName[] } = {},
  ): Promise<Results> {
    checkOptions(options, ["tables", "timeoutMs"], "results");
    return fetchResults(this.#context, backtestId, options.tables ?? ALL_TABLES, this.#bulkSeconds(options));
  }

  /** Returns the metrics of a backtest, without its tables; null while it has not ended. Raises `NotFound`. */
  async metrics(backtestId: string): Promise<Metrics | null> {
    const answer = await this.#context.answer("GetPerformanceMetrics", { backtestId });
    return answer.metrics ?? null;
  }

  // --- sweeps --------------------------------------------------------------------------------------------------------

  /**
   * Starts a sweep: a backtest for each combination of the values in `space`. Resolves with its handle once it is accepted,
   * which `sweep.accepted` describes. Raises what `backtest` raises, and `InvalidConfiguration` for an empty space, a
   * constraint that leaves nothing, and too many combinations.
   */
  async sweep(options: SweepOptions): Promise<Sweep> {
    checkOptions(options, SWEEPING, "sweep");
    const request = { ...sweepFields(options), sweepId: options.sweepId ?? this.#clock.newId() };
    return startSweep(this.#context, request, this.#bulkSeconds(options));
  }

  /** Checks a sweep without starting it: how many combinations it has, and how long they are expected to take. */
  async countSweep(options: SweepOptions): Promise<SweepAccepted> {
    checkOptions(options, SWEEPING, "countSweep");
    return this.#context.answer("StartSweep", { ...sweepFields(options), dryRun: true }, this.#bulkSeconds(options));
  }

  /** Returns the handle of a sweep that was started elsewhere or before. Raises `NotFound`. */
  async findSweep(sweepId: string): Promise<Sweep> {
    const sweep = new Sweep(this.#context, sweepId, null);
    await sweep.status();
    return sweep;
  }

  /** Lists the sweeps that the broker knows, the latest first. */
  async listSweeps(options: ListSweeps = {}): Promise<readonly SweepStatus[]> {
    checkOptions(options, ["status", "limit"], "listSweeps");
    const list = await this.#context.answer("ListSweeps", { ...options });
    return list.sweeps;
  }

  /** Lists how many combinations of each algorithm were ever run on the same bars, those that were run last first. */
  async trials(options: TrialsOptions = {}): Promise<readonly TrialGroup[]> {
    const list = await this.#context.answer("GetTrials", trialFields(options));
    return list.groups;
  }

  // --- stored results ------------------------------------------------------------------------------------------------

  /** Lists the stored results with their sizes on disk in bytes, the latest first. */
  async storedResults(options: Timed & { readonly limit?: number } = {}): Promise<ResultList> {
    checkOptions(options, ["limit", "timeoutMs"], "storedResults");
    return this.#context.answer("ListResults", { limit: options.limit }, this.#bulkSeconds(options));
  }

  /** Deletes a backtest with its results, and returns the bytes that this freed. */
  async deleteBacktest(backtestId: string): Promise<number> {
    const deleted = await this.#context.answer("DeleteBacktest", { backtestId }, BULK_SECONDS);
    return deleted.freedBytes;
  }

  /** Keeps the results of a backtest from being deleted, or with `pinned` false no longer. */
  async pinBacktest(backtestId: string, pinned = true): Promise<boolean> {
    const answer = await this.#context.answer("PinBacktest", { backtestId, pinned }, BULK_SECONDS);
    return answer.pinned;
  }

  /** Deletes the results that are too old, too many or too large, the oldest first; with `dryRun` only names them. */
  async pruneResults(options: PruneOptions = {}): Promise<PrunedResults> {
    checkOptions(options, PRUNING, "pruneResults");
    return this.#context.answer("PruneResults", pruneFields(options), this.#bulkSeconds(options));
  }

  // --- shared state --------------------------------------------------------------------------------------------------

  /**
   * Returns the keys that begin with `prefix` (`backtest.`) as a replica of their own. `resolvers` decide, by prefixes of
   * keys, which value counts when two clients changed the same key; they come before the built-in ones.
   */
  sharedState(
    prefix: string,
    options: { readonly resolvers?: { readonly [prefix: string]: Resolver } } = {},
  ): SharedState {
    checkShared(prefix, options);
    return new SharedState(this.#context, prefix, options.resolvers ?? {});
  }

  // --- streams -------------------------------------------------------------------------------------------------------

  /**
   * Receives a topic, or with a dot at the end (`prices.`) every topic that begins so.
   *
   * Without `history` the subscription begins when it reaches the broker, shortly after this returns. With it, it begins
   * with the oldest message that the broker retains, and misses none after that. `filters` select what is read. Raises a
   * `TypeError` for text that is no topic, and for a filter that its messages cannot have.
   */
  subscribe<Topic extends string>(topic: Topic, options: SubscribeOptions = {}): Subscription<Topic> {
    checkedPrefix(topic);
    checkOptions(options, ["history", "filters"], "subscribe");
    const wanted = updateFilter(topic, options.filters ?? {});
    return new Subscription(this.#context, topic, { since: options.history === true ? "retained" : "now" }, wanted);
  }

  /**
   * Fetches earlier messages of a topic, as far as the broker retains them; a `gap` states those it does not. Both numbers
   * are included; without `toSeq` up to the latest. Raises `NotFound`.
   */
  async fetchMissed<Topic extends string>(
    topic: Topic,
    range: { readonly fromSeq?: number; readonly toSeq?: number } = {},
  ): Promise<readonly (Update<TopicData<Topic>> | Gap)[]> {
    checkOptions(range, ["fromSeq", "toSeq"], "fetchMissed");
    const { fromSeq = 1, toSeq } = range;
    return fetchMissed(this.#context, topic, fromSeq, toSeq);
  }

  // --- within --------------------------------------------------------------------------------------------------------

  #seconds(options: Timed | undefined): number | undefined {
    return options?.timeoutMs === undefined ? undefined : asSeconds(options.timeoutMs, "timeoutMs");
  }

  #bulkSeconds(options: Timed): number {
    return this.#seconds(options) ?? BULK_SECONDS;
  }

  /** Tells callbacks once the step that has the news is done: they may call the client. */
  #emit<Name extends keyof ClientEvents>(name: Name, event: ClientEvents[Name]): void {
    if (this.#emitter.has(name)) queueMicrotask(() => this.#emitter.emit(name, event));
  }

  #report(error: unknown, about: string): void {
    if (error instanceof ClosedError) return; // the program has closed something itself
    const reported =
      error instanceof BacktestrError
        ? error
        : new SystemFault(`${about}: ${error instanceof Error ? error.message : String(error)}`, null, {
            cause: error,
          });
    const [report, callbacks] = this.#errorLog.add(reported, about, this.#clock.wallMs());
    // A callback of errors that fails itself must not be told of that, and so on.
    if (about === "callback") return;
    for (const callback of callbacks) queueMicrotask(() => this.#emitter.call(() => callback(report)));
    if (reported.severity !== "Info") this.#emit("error", report);
  }

  #beat({ pulse, status, isOtherHealth }: HeartbeatChange): void {
    if (pulse === "silent") this.#emit("silence", { status });
    else if (status !== null) {
      this.#emit("heartbeat", status);
      if (isOtherHealth) this.#emit("health", status);
    }
  }
}

/**
 * Connects to a broker through a transport, and resolves with a client once a session is open, or at once with
 * `waitForBroker: false`. Raises `NetworkError` if
 * there is no broker within `timeoutMs`, and `AuthenticationError` if it does not take this client's key.
 */
export async function createClient(transport: Transport, options: ClientOptions = {}): Promise<Client> {
  const client = new Client(transport, options);
  try {
    if (options.waitForBroker !== false) await client.opened({ timeoutMs: options.timeoutMs });
    return client;
  } catch (error) {
    await client.close();
    throw error;
  }
}

const refuseCompressed: Decompress = (form) => {
  throw new SerializationError(`a batch in ${form} came, and this client was made without decompression`);
};
