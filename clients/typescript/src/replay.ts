/** A price replay publishes stored bars or ticks as prices; its handle reads them and controls it. */

import { asSeconds } from "./arguments.js";
import type { Context } from "./context.js";
import { errorFromData, NotFound, SystemFault, TimedOut } from "./core/errors.js";
import { classOf } from "./core/topics.js";
import type { Update } from "./core/updates.js";
import type { PriceReplayStarted, PriceReplayStatus, PriceUpdate, StartPriceReplay } from "./generated/contracts.js";
import { Subscription } from "./subscription.js";

/** The state of a price replay. */
export type ReplayState = PriceReplayStatus["status"];

// Seconds without a price of this price replay after which the broker is asked for its status.
const STATUS_AFTER = 1;
// Seconds for which an acknowledgement is tried. The next one covers it.
const ACKNOWLEDGE_TIMEOUT = 30;

/**
 * One price replay: iterate over its prices, once and by one reader; control it from anywhere.
 *
 * Prices come in order and each once. The iteration ends when the price replay has ended and everything was read, and
 * raises the error of one that failed. Leaving a `for await` and `await using` stop it.
 */
export class PriceReplay implements AsyncIterable<PriceUpdate> {
  readonly #context: Context;
  readonly #started: PriceReplayStarted;
  readonly #hasCredit: boolean;
  readonly #acknowledgeEvery: number;
  readonly #subscription: Subscription;
  #seq: number;
  #acknowledged: number;
  #unread: number;
  #end: PriceReplayStatus | null = null;
  #askStatusAt: number;

  /** Receives the prices of a started price replay; called by `Client.replay`. */
  constructor(context: Context, asked: StartPriceReplay, started: PriceReplayStarted) {
    this.#context = context;
    this.#started = started;
    this.#hasCredit = asked.asFastAsRead === true;
    // Four in each ring: the price replay need not wait for one acknowledgement before the next.
    this.#acknowledgeEvery = Math.floor((classOf(started.topic)?.retained ?? 4) / 4);
    this.#seq = started.fromSeq - 1;
    this.#acknowledged = this.#seq;
    this.#unread = started.bars;
    this.#askStatusAt = context.clock.now() + STATUS_AFTER;
    this.#subscription = new Subscription(context, started.topic, { since: "retained", firstSeq: started.fromSeq });
  }

  /** The id of the price replay. */
  get id(): string {
    return this.#started.replayId;
  }

  /** The topic of its prices, for others who watch: `client.subscribe(replay.topic)`. */
  get topic(): string {
    return this.#started.topic;
  }

  /** The number of its bars. */
  get bars(): number {
    return this.#started.bars;
  }

  // --- reading -------------------------------------------------------------------------------------------------------

  /**
   * Returns the next price; null at the end. Raises `TimedOut` when none came within `timeoutMs`, the error of a price
   * replay that failed, and `NotFound` when the broker was restarted, since a price replay ends with its broker.
   */
  async next(options: { readonly timeoutMs?: number } = {}): Promise<PriceUpdate | null> {
    const { clock } = this.#context;
    const seconds = options.timeoutMs === undefined ? Infinity : asSeconds(options.timeoutMs, "timeoutMs");
    const deadline = clock.now() + seconds;
    while (this.#unread > 0 && !this.#isRead()) {
      const price = await this.#priceBy(Math.min(deadline, this.#end === null ? this.#askStatusAt : Infinity));
      if (price !== undefined) {
        this.#askStatusAt = clock.now() + STATUS_AFTER;
        return price;
      }
      const now = clock.now();
      if (this.#end === null && now >= this.#askStatusAt) {
        await this.#checkStatus();
        this.#askStatusAt = clock.now() + STATUS_AFTER;
      } else if (now >= deadline) {
        throw new TimedOut(`no price came within ${seconds} s`, { timeoutSeconds: seconds });
      }
    }
    if (this.#end?.status === "failed") {
      throw this.#end.error ? errorFromData(this.#end.error) : new SystemFault(`replay ${this.id} failed`);
    }
    this.#subscription.close();
    return null;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<PriceUpdate, void, undefined> {
    let isWhole = false;
    try {
      for (let price = await this.next(); price !== null; price = await this.next()) yield price;
      isWhole = true;
    } finally {
      if (!isWhole) await this.#leave();
    }
  }

  /** Returns the next price of this price replay; undefined if something else came, or nothing by then. */
  async #priceBy(until: number): Promise<PriceUpdate | undefined> {
    const left = until - this.#context.clock.now();
    if (left <= 0) return undefined;
    let received: Awaited<ReturnType<Subscription["next"]>>;
    try {
      received = await this.#subscription.next(left === Infinity ? {} : { timeoutMs: left * 1000 });
    } catch (error) {
      if (error instanceof TimedOut) return undefined;
      throw error;
    }
    switch (received?.kind) {
      case "update":
        return this.#read(received);
      case "gap":
        this.#reached(received.toSeq); // it is among the client's errors, and an event
        return undefined;
      case "restarted":
        throw new NotFound(`the broker was restarted, and replay ${this.id} ended with it; start it again`);
      default:
        this.#unread = 0; // the subscription was closed
        return undefined;
    }
  }

  #read(update: Update): PriceUpdate | undefined {
    this.#reached(update.seq);
    const price = update.data as PriceUpdate;
    // Others may publish on the topic: other price replays, a backtest, a feed.
    if (update.type !== "PriceUpdate" || price.replayId !== this.id) return undefined;
    this.#unread -= 1;
    return price;
  }

  #reached(seq: number): void {
    this.#seq = seq;
    if (this.#hasCredit && seq - this.#acknowledged >= this.#acknowledgeEvery) this.#acknowledge();
  }

  #acknowledge(): void {
    this.#acknowledged = this.#seq;
    const data = { replayId: this.id, seq: this.#seq };
    // Its failure is among the client's errors, and the next one covers it.
    this.#context.ask("AcknowledgePrices", data, ACKNOWLEDGE_TIMEOUT).catch(() => undefined);
  }

  /**
   * Asks whether it has ended, since nothing has come for a while. If it has not, it may wait for an acknowledgement that
   * was refused and that no later one covers: send it again.
   */
  async #checkStatus(): Promise<void> {
    const status = await this.status();
    if (status.status === "completed" || status.status === "stopped" || status.status === "failed") this.#end = status;
    else if (this.#hasCredit && this.#seq >= this.#started.fromSeq) this.#acknowledge();
  }

  #isRead(): boolean {
    return this.#end !== null && this.#seq >= (this.#end.lastSeq ?? 0);
  }

  // --- control -------------------------------------------------------------------------------------------------------

  /** Asks the broker for status, position, progress and rate. */
  status(): Promise<PriceReplayStatus> {
    return this.#context.answer("GetPriceReplayStatus", { replayId: this.id });
  }

  /** Pauses it, and resolves when nothing more is published. */
  pause(): Promise<ReplayState> {
    return this.#control("PausePriceReplay");
  }

  /** Goes on. */
  resume(): Promise<ReplayState> {
    return this.#control("ResumePriceReplay");
  }

  /** Stops it. What was published before can still be read. */
  async stop(): Promise<ReplayState> {
    const state = await this.#control("StopPriceReplay");
    await this.#checkStatus();
    return state;
  }

  /** Receives nothing more. A price replay with a rate goes on for others. */
  close(): void {
    this.#subscription.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#leave();
  }

  async #control(request: "PausePriceReplay" | "ResumePriceReplay" | "StopPriceReplay"): Promise<ReplayState> {
    const answer = await this.#context.answer(request, { replayId: this.id });
    return answer.status;
  }

  async #leave(): Promise<void> {
    this.close();
    try {
      await this.stop();
    } catch {
      // It has ended, or the broker or the client has: then there is nothing to stop.
    }
  }
}

/** Has the broker start a price replay, whose request has an id, and receives its prices. */
export async function startReplay(
  context: Context,
  asked: StartPriceReplay & { readonly replayId: string },
): Promise<PriceReplay> {
  try {
    const started = await context.answer("StartPriceReplay", asked);
    return new PriceReplay(context, asked, started);
  } catch (error) {
    if (error instanceof TimedOut) {
      // It may wait behind a long import, and would start later without a reader.
      await context.answer("StopPriceReplay", { replayId: asked.replayId }).catch(() => undefined);
    }
    throw error;
  }
}
