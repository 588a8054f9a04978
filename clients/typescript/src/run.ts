/** A run is the handle of a backtest: it reads its streams, controls it and waits for its end. */

import { asSeconds } from "./arguments.js";
import { BULK_SECONDS, type Context } from "./context.js";
import { shown } from "./core/codec.js";
import { BacktestrError, ClosedError, errorFromData, SystemFault } from "./core/errors.js";
import { didYouMean } from "./core/near-miss.js";
import { PositionOrder } from "./core/position-order.js";
import { checkRequest } from "./core/request-check.js";
import type { Update } from "./core/updates.js";
import type {
  BacktestAccepted,
  BacktestProgress,
  BacktestStatus,
  OrderUpdate,
  PositionUpdate,
  Requests,
  TrialGroup,
} from "./generated/contracts.js";
import { late } from "./lateness.js";
import { ALL_TABLES, fetchResults, type Results, type TableName } from "./results.js";
import { Subscription } from "./subscription.js";
import { trialsOf } from "./trials.js";

/** A stream of a backtest. */
export type Stream = "progress" | "orders" | "positions";

/** All streams of a backtest. */
export const STREAMS: readonly Stream[] = ["progress", "orders", "positions"];

// Seconds for which a request for results waits for the end of its backtest. It is resent after five without an answer.
const AT_HAND = 2;

/** The state of a backtest. */
export type BacktestState = BacktestStatus["status"];

/** Options of a call that waits. */
export interface Waiting {
  /** Milliseconds to wait at most; without it there is no bound. */
  readonly timeoutMs?: number | undefined;
}

/**
 * One backtest: watch it, control it, read its results.
 *
 * Each stream is read in order from its first message, by one reader, and ends when the backtest has ended and everything
 * was read. A stream may be read again; then it begins with the oldest message that the broker retains.
 */
export class Run {
  /** The id of the backtest. */
  readonly id: string;
  readonly #context: Context;
  readonly #end: Promise<BacktestStatus>;
  readonly #watched = new Map<Stream, Subscription>();

  /** Follows a backtest, and receives the streams in `watch`; called by `Client.backtest` and `Client.run`. */
  constructor(context: Context, id: string, isNew: boolean, watch: readonly Stream[] = []) {
    this.id = id;
    this.#context = context;
    this.#end = context.driver.follow(id, isNew);
    this.#end.catch(() => undefined); // nobody needs to wait for the end
    for (const stream of watch) this.#watched.set(stream, this.#subscription(stream, isNew));
  }

  // --- watching ------------------------------------------------------------------------------------------------------

  /** Asks the broker for the backtest's status. */
  status(): Promise<BacktestStatus> {
    return this.#context.answer("GetBacktestStatus", { backtestId: this.id });
  }

  /** Gives the progress up to the end. A slow reader misses some messages; each later one supersedes them. */
  async *progress(): AsyncGenerator<BacktestProgress, void, undefined> {
    for await (const received of this.#read("progress")) {
      if (received.kind === "update") yield received.data as BacktestProgress;
    }
  }

  /** Gives every change of an order, in order. Lost ones are reported to `client.errors` and as `lost`. */
  async *orders(): AsyncGenerator<OrderUpdate, void, undefined> {
    for await (const update of this.#each("orders")) yield update.data as OrderUpdate;
  }

  /**
   * Gives every change of a position, in order, and between them open positions at their present prices. The latter have
   * `mark` true; they come with each progress, and not at all if `marks` is false.
   */
  async *positions(options: { readonly marks?: boolean } = {}): AsyncGenerator<PositionUpdate, void, undefined> {
    const order = new PositionOrder();
    for await (const update of this.#each("positions", order)) {
      const data = update.data as PositionUpdate;
      if (order.isNew(data) && (options.marks !== false || data.mark !== true)) yield data;
    }
  }

  // --- control -------------------------------------------------------------------------------------------------------

  /** Pauses the backtest, and resolves when it is paused. Raises `StateConflict` when it has ended. */
  pause(): Promise<BacktestState> {
    return this.#control("PauseBacktest");
  }

  /** Continues a paused backtest. Raises `StateConflict` when it has ended. */
  resume(): Promise<BacktestState> {
    return this.#control("ResumeBacktest");
  }

  /** Stops the backtest early; it keeps the results of the bars that were simulated. */
  stop(): Promise<BacktestState> {
    return this.#control("StopBacktest");
  }

  async #control(request: "PauseBacktest" | "ResumeBacktest" | "StopBacktest"): Promise<BacktestState> {
    const accepted: BacktestAccepted = await this.#context.answer(request, { backtestId: this.id });
    return accepted.status;
  }

  // --- the end -------------------------------------------------------------------------------------------------------

  /**
   * Waits for the final status: `completed`, `failed` or `stopped`. Raises `TimedOut` after `timeoutMs`, while the backtest
   * continues; it says how far the backtest is, or behind which others it waits. Raises `NotFound` when the broker was restarted and no longer knows the backtest.
   */
  async wait(options: Waiting = {}): Promise<BacktestStatus> {
    const origin = new Error("wait");
    try {
      if (options.timeoutMs === undefined) return await this.#end;
      return await this.#endWithin(asSeconds(options.timeoutMs, "timeoutMs"));
    } catch (error) {
      throw error instanceof BacktestrError ? error.at(origin) : error;
    }
  }

  async #endWithin(seconds: number): Promise<BacktestStatus> {
    let cancel = (): void => undefined;
    const timeUp = new Promise<null>((resolve) => {
      cancel = this.#context.clock.after(seconds, () => resolve(null));
    });
    const status = await Promise.race([this.#end, timeUp]).finally(() => cancel());
    if (status !== null) return status;
    throw await late(this.#context, this.id, seconds);
  }

  /** Waits, then fetches metrics and tables. Raises the error of a failed backtest, and the errors of `wait`. */
  async result(options: Waiting & { readonly tables?: readonly TableName[] } = {}): Promise<Results> {
    const origin = new Error("result");
    const tables = options.tables ?? ALL_TABLES;
    const { clock } = this.#context;
    const seconds = options.timeoutMs === undefined ? null : asSeconds(options.timeoutMs, "timeoutMs");
    const until = seconds === null ? null : clock.now() + seconds;
    const early = await this.#atHand(tables, Math.min(AT_HAND, seconds ?? AT_HAND));
    if (early !== null) return early;
    const left = until === null ? {} : { timeoutMs: Math.max(0, 1000 * (until - clock.now())) };
    const status = await this.wait(left);
    if (status.status === "failed") {
      const error = status.error ? errorFromData(status.error) : null;
      throw (error ?? new SystemFault(`backtest ${this.id} failed without a reason`)).at(origin);
    }
    return fetchResults(this.#context, this.id, tables);
  }

  /** The results of a backtest that ends within `seconds`: its worker makes their tables while it stores them. */
  async #atHand(tables: readonly TableName[], seconds: number): Promise<Results | null> {
    try {
      const results = await fetchResults(
        this.#context,
        this.id,
        tables,
        seconds + this.#context.requestSeconds,
        seconds,
      );
      return results.metrics === null ? null : results;
    } catch (error) {
      if (error instanceof BacktestrError) return null; // the wait for the end finds the reason
      throw error;
    }
  }

  /** Returns how many combinations of its algorithm were ever run on its bars; null before it has results. */
  async trials(): Promise<TrialGroup | null> {
    const { trialGroup } = await this.#context.answer("GetBacktestResults", { backtestId: this.id, tables: [] });
    return trialsOf(this.#context, trialGroup);
  }

  /** Deletes the backtest with its results, and returns the bytes that this freed. */
  async delete(): Promise<number> {
    const deleted = await this.#context.answer("DeleteBacktest", { backtestId: this.id }, BULK_SECONDS);
    return deleted.freedBytes;
  }

  /** Keeps its results from being deleted, or with `pinned` false no longer. */
  async pin(pinned = true): Promise<boolean> {
    const answer = await this.#context.answer("PinBacktest", { backtestId: this.id, pinned }, BULK_SECONDS);
    return answer.pinned;
  }

  /** Receives nothing more of the streams. The backtest continues. */
  close(): void {
    for (const subscription of this.#watched.values()) subscription.close();
    this.#watched.clear();
  }

  /** Receives nothing more, not even the end. */
  abandon(): void {
    this.close();
    this.#context.driver.unfollow(this.id, new ClosedError(`backtest ${this.id} is not followed any more`));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  // --- within --------------------------------------------------------------------------------------------------------

  #subscription(stream: Stream, isNew: boolean): Subscription {
    return new Subscription<string>(this.#context, `${stream}.${this.id}`, {
      since: isNew ? "start" : "retained",
      until: this.id,
    });
  }

  #read(stream: Stream): Subscription {
    const watched = this.#watched.get(stream);
    this.#watched.delete(stream);
    return watched ?? this.#subscription(stream, false);
  }

  /**
   * Gives the updates of a stream, each once. After a restart of the broker all updates are read again from the first, in
   * the same order; those that were read already are skipped. Positions may have other numbers then: `order` is told.
   */
  async *#each(stream: Stream, order?: PositionOrder): AsyncGenerator<Update, void, undefined> {
    let lastSeq = 0;
    for await (const received of this.#read(stream)) {
      if (received.kind === "restarted") {
        if (order === undefined) continue;
        lastSeq = 0;
        order.restarted();
      } else if (received.kind === "gap") {
        // It is among the client's errors, and an event; result() has what the broker no longer retained.
        lastSeq = Math.max(lastSeq, received.toSeq);
      } else if (received.seq > lastSeq) {
        lastSeq = received.seq;
        yield received;
      }
    }
  }
}

/** Has the broker start a backtest by a request that has its id, and receives its streams. */
export async function startRun<Type extends "StartBacktest" | "GetSweepRun">(
  context: Context,
  requestType: Type,
  request: Requests[Type]["data"] & { readonly backtestId: string },
  watch: readonly Stream[],
): Promise<Run> {
  if (!Array.isArray(watch)) throw new TypeError(`watch: expected a list of streams; ${shown(watch)} came`);
  for (const stream of watch) {
    if (!STREAMS.includes(stream)) {
      throw new TypeError(`watch: ${shown(stream)} is no stream${didYouMean(String(stream), STREAMS)}`);
    }
  }
  checkRequest(requestType, request);
  // The subscriptions come before the start, so that they receive every message of the streams.
  const run = new Run(context, request.backtestId, true, watch);
  try {
    await context.ask(requestType, request);
    context.driver.started(request.backtestId);
    return run;
  } catch (error) {
    run.abandon();
    throw error;
  }
}
