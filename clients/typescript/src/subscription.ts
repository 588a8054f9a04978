/** A subscription is a program's reading of a topic or a prefix. */

import { asSeconds } from "./arguments.js";
import type { Context } from "./context.js";
import type { PriceColumns } from "./core/batches.js";
import type { Gap, Restarted, StreamMessage } from "./core/effects.js";
import { BacktestrError, TimedOut, ValidationError } from "./core/errors.js";
import type { Since } from "./core/subscriptions.js";
import { checkedMissed, TopicStream } from "./core/topic-stream.js";
import type { TopicData } from "./core/topics.js";
import { narrowed, type UpdateFilter } from "./core/update-filter.js";
import { readBatch, readMessage, type Update } from "./core/updates.js";
import type { PriceUpdate } from "./generated/contracts.js";
import { MAX_UNREAD, type Mailbox } from "./mailbox.js";
import { joinedPrices, type PriceBatch, pricesOf } from "./price-batch.js";

export type { Gap, Restarted } from "./core/effects.js";
export type { Update } from "./core/updates.js";

/** A subscription gives a message, a loss that is stated, or the news that another broker answers now. */
export type Received<Data = unknown> = Update<Data> | Gap | Restarted;

/** The begin and the end of a subscription that the client makes itself. */
export interface Extent {
  readonly since: Since;
  /** It ends with this backtest. */
  readonly until?: string | undefined;
  readonly firstSeq?: number | undefined;
}

// Most rows of one batch of prices: a longer one costs hardly less for each row.
const MAX_ROWS = 65_536;
// Most prices of one batch that came one by one.
const MAX_MESSAGES = 1_000;

/**
 * An async iterable of messages in order, each once, for one reader.
 *
 * A `gap` states messages that are lost for good. `restarted` states that another start of the broker answers now: topics
 * are read again from number 1. The iteration ends when the subscription is closed; leaving a `for await` closes it. If
 * an error ends it, the error is raised after everything before it was read.
 */
export class Subscription<Topic extends string = string> implements AsyncIterable<Received<TopicData<Topic>>> {
  /** The topic, or the beginning of topics. */
  readonly topic: Topic;
  readonly #context: Context;
  readonly #wanted: UpdateFilter | null;
  readonly #id: number;
  readonly #mailbox: Mailbox;
  #rows: Update[] = []; // the unread rest of a batch
  #row = 0;

  /** Called by the client: see `Client.subscribe`. */
  constructor(context: Context, topic: Topic, extent: Extent, wanted: UpdateFilter | null = null) {
    this.#context = context;
    this.topic = topic;
    this.#wanted = wanted;
    [this.#id, this.#mailbox] = context.driver.open({ prefix: narrowed(topic, wanted), ...extent });
  }

  /**
   * Returns what comes next; null at the end. Raises `TimedOut` when nothing came within `timeoutMs`; then what comes
   * later is not lost.
   */
  async next(options: { readonly timeoutMs?: number } = {}): Promise<Received<TopicData<Topic>> | null> {
    const clock = this.#context.clock;
    const timeout = options.timeoutMs === undefined ? null : asSeconds(options.timeoutMs, "timeoutMs");
    const deadline = timeout === null ? Number.POSITIVE_INFINITY : clock.now() + timeout;
    for (;;) {
      const turn = this.#context.turns.due();
      if (turn !== null) await turn;
      const next = this.#take();
      if (next === undefined) {
        if (this.#mailbox.isEnded) return this.#ended();
        await this.#arrival(deadline, timeout);
      } else if (this.#passes(next)) {
        return next as Received<TopicData<Topic>>;
      }
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Received<TopicData<Topic>>, void, undefined> {
    try {
      for (let next = await this.next(); next !== null; next = await this.next()) yield next;
    } finally {
      this.close();
    }
  }

  /**
   * Reads prices as columns: a batch joins unread prices, up to 65,536 rows. Made for the column batches of a backtest
   * (`options: { streams: { prices: true, columns: true } }`), which cost a small part of reading prices one by one. Lost
   * messages are stated as in the iteration. Raises a `TypeError` for a subscription to anything but prices.
   */
  async *batches(): AsyncGenerator<PriceBatch | Gap | Restarted, void, undefined> {
    if (!this.topic.startsWith("prices.")) {
      throw new TypeError(`${JSON.stringify(this.topic)} is no topic of prices, and has no batches of columns`);
    }
    try {
      for (;;) {
        const turn = this.#context.turns.due();
        if (turn !== null) await turn;
        const next = this.#takeBatch();
        if (next !== undefined) {
          if (next !== null) yield next;
        } else if (this.#mailbox.isEnded) {
          this.#ended();
          return;
        } else {
          await this.#arrival(Number.POSITIVE_INFINITY, null);
        }
      }
    } finally {
      this.close();
    }
  }

  /** Receives nothing more; what has arrived can still be read. */
  close(): void {
    this.#context.driver.shut(this.#id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  /** Takes what is there; undefined if nothing is. */
  #take(): Received | undefined {
    const row = this.#rows[this.#row];
    if (row !== undefined) {
      this.#row += 1;
      return row;
    }
    const delivery = this.#mailbox.take();
    switch (delivery?.kind) {
      case "batch":
        this.#rows = readBatch(delivery);
        this.#row = 1;
        return this.#rows[0];
      case "message":
        return readMessage(delivery);
      case "gap":
      case "restarted":
        return delivery;
      default:
        return undefined;
    }
  }

  /** Takes unread prices as one batch; null for a batch of which no price is wanted, undefined if nothing is there. */
  #takeBatch(): PriceBatch | Gap | Restarted | null | undefined {
    const rows = this.#rows.slice(this.#row);
    this.#rows = [];
    if (rows.length > 0) return this.#batchOf(rows);
    const delivery = this.#mailbox.take();
    if (delivery === undefined || delivery.kind === "maybeLost") return undefined;
    if (delivery.kind === "gap" || delivery.kind === "restarted") return delivery;
    if (delivery.kind === "message") return this.#batchOf(this.#messagesFrom(delivery));
    if (delivery.content.kind === "messages") return this.#batchOf(readBatch(delivery));
    const parts: PriceColumns[] = [delivery.content];
    let last = delivery.seq + delivery.content.count;
    for (;;) {
      const next = this.#mailbox.peek();
      const continues =
        next?.kind === "batch" &&
        next.content.kind === "columns" &&
        next.topic === delivery.topic &&
        next.seq === last &&
        last - delivery.seq + next.content.count <= MAX_ROWS &&
        next.content.isLike(delivery.content);
      if (!continues) break;
      this.#mailbox.take();
      parts.push(next.content as PriceColumns);
      last += next.content.count;
    }
    if (!this.#hasSymbol(delivery.content.texts.symbol)) return null;
    return joinedPrices(delivery.topic, delivery.seq, parts);
  }

  /** Takes the messages that follow one by one on the same topic, and returns all of them. */
  #messagesFrom(first: StreamMessage): Update[] {
    const rows = [readMessage(first)];
    for (let next = this.#mailbox.peek(); rows.length < MAX_MESSAGES; next = this.#mailbox.peek()) {
      if (next?.kind !== "message" || next.topic !== first.topic) break;
      rows.push(readMessage(next));
      this.#mailbox.take();
    }
    return rows;
  }

  #batchOf(rows: readonly Update[]): PriceBatch | null {
    for (const { type } of rows) {
      if (type === "PriceUpdate") continue;
      throw new ValidationError(`a ${type} came on a topic of prices`, { path: "$.payload.type" });
    }
    const wanted = rows.filter((row) => this.#hasSymbol((row.data as PriceUpdate).symbol));
    return wanted.length === 0 ? null : pricesOf(wanted as Update<PriceUpdate>[]);
  }

  #hasSymbol(symbol: string): boolean {
    return this.#wanted?.symbols?.has(symbol) ?? true;
  }

  #passes(received: Received): boolean {
    return received.kind !== "update" || this.#wanted === null || this.#wanted.passes(received.data);
  }

  #ended(): null {
    const { error } = this.#mailbox;
    if (error !== null) throw error instanceof BacktestrError ? error.at(new Error(this.topic)) : error;
    return null;
  }

  /** Resolves once there is something to take, or the end, or the deadline has come. Raises `TimedOut` after that. */
  async #arrival(deadline: number, timeout: number | null): Promise<void> {
    const { clock, turns } = this.#context;
    const left = deadline - clock.now();
    if (timeout !== null && left <= 0) {
      throw new TimedOut(`nothing came within ${timeout} s`, { timeoutSeconds: timeout });
    }
    await new Promise<void>((resolve) => {
      let cancel = (): void => undefined;
      const forget = this.#mailbox.onChange(() => {
        cancel();
        resolve();
      });
      if (timeout === null) return;
      cancel = clock.after(left, () => {
        forget();
        resolve();
      });
    });
    turns.fresh();
  }
}

/** Fetches messages of a topic, page by page, as far as the broker retains them; a gap states those it does not. */
export async function fetchMissed<Topic extends string>(
  context: Context,
  topic: Topic,
  fromSeq: number,
  toSeq: number | undefined,
): Promise<readonly (Update<TopicData<Topic>> | Gap)[]> {
  const stream = new TopicStream(topic, true, context.driver.decompress);
  stream.nextSeq = fromSeq;
  const found: (Update | Gap)[] = [];
  while (toSeq === undefined || stream.nextSeq <= toSeq) {
    const request = { topic, fromSeq: stream.nextSeq, toSeq };
    const answer = checkedMissed(await context.answer("FetchMissed", request));
    for (const delivery of stream.fetched(answer, MAX_UNREAD)) {
      if (delivery.kind === "gap") found.push(delivery);
      else if (delivery.kind === "message" && (toSeq === undefined || delivery.seq <= toSeq)) {
        found.push(readMessage(delivery));
      }
    }
    if (answer.messages.length === 0) break;
  }
  return found as (Update<TopicData<Topic>> | Gap)[];
}
