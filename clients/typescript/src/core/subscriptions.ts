/**
 * All subscriptions of one client: their positions in each topic, and the search for lost messages and their repair.
 *
 * Three things reveal a loss: a jump in a topic's sequence numbers, `system.watermarks`, and a last request when the
 * backtest of a topic has ended. Each subscription also has a bound on its unread deliveries (`space`). Without space a
 * topic's sequence stands still, and the messages that pass meanwhile are fetched once there is space again. So a slow
 * reader costs memory up to the bound, then a repair, and only then a stated `Gap`.
 */

import type { BacktestStatus } from "../generated/contracts.js";
import type { Decompress } from "./batches.js";
import { decodeStream, isMap, isWhole, type Payload, type TopicMessage } from "./codec.js";
import { StreamCounters } from "./counters.js";
import { type Delivery, type Purpose, type SubscriptionEffect, type TopicRepair, weight } from "./effects.js";
import { BacktestrError, Busy, MessageError, NetworkError, NotFound, TimedOut, ValidationError } from "./errors.js";
import { FollowedBacktests, statusRequest } from "./followed-backtests.js";
import { unpack } from "./msgpack-decoder.js";
import { checkedMissed, TopicStream } from "./topic-stream.js";
import { BACKTESTS, WATERMARKS } from "./topics.js";
import type { Signer } from "./transport.js";

/**
 * The first message of a topic that a subscription gets. `now`: the next one that is published. `start`: the topic's
 * first, because the topic is new. `retained`: the oldest that the broker retains. `latest`: the latest, for topics in
 * which each message replaces those before it.
 */
export type Since = "now" | "start" | "retained" | "latest";

type Effects = SubscriptionEffect[];

const FINAL_STATES: readonly unknown[] = ["completed", "failed", "stopped"];

/**
 * Seconds without a message of a topic after which messages that a watermark or an answer reports are missing. Until then
 * they may be on their way: those come by another socket, and overtake a backlog.
 */
export const QUIET = 0.25;

// The client's own subscription to system.backtests, which reports the end of every backtest.
const OWN = 0;
const UNBOUNDED = Number.MAX_SAFE_INTEGER;

/** The wanted messages of a subscription: see `Subscriptions.open`. */
export interface Wanted {
  readonly prefix: string;
  readonly since: Since;
  readonly space: number;
  readonly until?: string | undefined;
  readonly firstSeq?: number | undefined;
}

class Subscription {
  readonly prefix: string;
  readonly since: Since;
  readonly until: string | undefined; // the subscription ends with this backtest
  space: number;
  firstSeq: number;
  isEnding = false;
  readonly streams = new Map<string, TopicStream>();
  readonly #decompress: Decompress;
  readonly #counters: StreamCounters;

  constructor(wanted: Wanted, decompress: Decompress, counters: StreamCounters) {
    this.prefix = wanted.prefix;
    this.since = wanted.since;
    this.until = wanted.until;
    this.space = wanted.space;
    this.firstSeq = wanted.firstSeq ?? 1;
    this.#decompress = decompress;
    this.#counters = counters;
    this.begin();
  }

  get #isExact(): boolean {
    return !this.prefix.endsWith(".");
  }

  /** True if a topic begins with its first message, or with the oldest that is retained. */
  get #isFromStart(): boolean {
    return this.since === "start" || this.since === "retained";
  }

  /** Starts every topic from its beginning. */
  begin(): void {
    this.abandon();
    this.streams.clear();
    if (this.#isExact && this.#isFromStart) this.stream(this.prefix).nextSeq = this.firstSeq;
  }

  /** Gives up the repairs that are under way. */
  abandon(): void {
    for (const stream of this.streams.values()) stream.abandon();
  }

  matches(topic: string): boolean {
    return topic === this.prefix || (!this.#isExact && topic.startsWith(this.prefix));
  }

  stream(topic: string): TopicStream {
    let stream = this.streams.get(topic);
    if (stream === undefined) {
      stream = new TopicStream(topic, this.#isFromStart, this.#decompress, this.#counters);
      this.streams.set(topic, stream);
    }
    return stream;
  }
}

/** The machine of all subscriptions: it takes messages, answers and the reader's progress, and returns effects. */
export class Subscriptions {
  readonly counters = new StreamCounters();
  readonly #decompress: Decompress;
  #isConnected = false;
  #signer: Signer | null = null;
  #instanceId: string | null = null;
  readonly #byId = new Map<number, Subscription>();
  readonly #prefixes = new Map<string, number>();
  readonly #backtests = new FollowedBacktests();
  #watermarkSeq = 0;
  #requests = 0; // numbers them

  constructor(decompress: Decompress) {
    this.#decompress = decompress;
  }

  /** The prefixes to subscribe to on a new connection. */
  get prefixes(): readonly string[] {
    return [...this.#prefixes.keys()];
  }

  // --- calls of the program ------------------------------------------------------------------------------------------

  /**
   * Begins a subscription to a topic, or to all whose names begin with `prefix` when that ends with a dot.
   *
   * It ends with the backtest `until`, once every message before the end is delivered. At most `space` deliveries are
   * made before the reader has `taken` some. `firstSeq` is the first sequence number of a topic that begins at its start
   * or with its retained messages.
   */
  open(subscriptionId: number, wanted: Wanted): Effects {
    const effects: Effects = [];
    if (this.#byId.size === 0) effects.push(...this.#subscribe(WATERMARKS));
    const subscription = new Subscription(wanted, this.#decompress, this.counters);
    this.#byId.set(subscriptionId, subscription);
    effects.push(...this.#subscribe(wanted.prefix));
    if (wanted.since === "retained") effects.push(...this.#checkForMore(subscriptionId, subscription));
    if (wanted.until !== undefined) effects.push(...this.follow(wanted.until, wanted.since === "start"));
    return effects;
  }

  /** Forgets a subscription. One that has ended is forgotten already. */
  close(subscriptionId: number): Effects {
    const subscription = this.#byId.get(subscriptionId);
    if (subscription === undefined) return [];
    this.#byId.delete(subscriptionId);
    subscription.abandon();
    const effects = this.#unsubscribe(subscription.prefix);
    if (this.#byId.size === 0) effects.push(...this.#unsubscribe(WATERMARKS));
    return effects;
  }

  /**
   * Reports when this backtest has `finished`. One that `isNew` cannot have finished before this call, and is not asked
   * for before it has `started`: its start may still wait for a broker.
   */
  follow(backtestId: string, isNew: boolean): Effects {
    const effects: Effects = [];
    if (!this.#byId.has(OWN)) {
      effects.push(...this.open(OWN, { prefix: BACKTESTS, since: "retained", space: UNBOUNDED }));
    }
    effects.push(...this.#backtests.follow(backtestId, isNew));
    return effects;
  }

  /** Notes that the broker has accepted a backtest that is followed as new. */
  started(backtestId: string): Effects {
    return this.#backtests.started(backtestId);
  }

  /** Reports the end of this backtest no more. */
  unfollow(backtestId: string): void {
    this.#backtests.unfollow(backtestId);
  }

  /** Notes that the reader has taken deliveries, which leaves space for `count` more. */
  taken(subscriptionId: number, count: number): Effects {
    const subscription = this.#byId.get(subscriptionId);
    if (subscription === undefined) return [];
    subscription.space += count;
    const effects: Effects = [];
    for (const stream of [...subscription.streams.values()]) {
      effects.push(...this.#deliver(subscriptionId, subscription, stream.resume(subscription.space)));
      effects.push(...this.#fetchMissing(subscriptionId, subscription, stream));
    }
    return effects;
  }

  // --- the connection ------------------------------------------------------------------------------------------------

  /** Notes that there is a new connection, to this instance of the broker. */
  connected(signer: Signer | null, instanceId: string): Effects {
    const isRestart = this.#instanceId !== null && this.#instanceId !== instanceId;
    this.#isConnected = true;
    this.#signer = signer;
    this.#instanceId = instanceId;
    this.#watermarkSeq = 0;
    const effects: Effects = [];
    for (const [subscriptionId, subscription] of [...this.#byId]) {
      if (isRestart) {
        subscription.firstSeq = 1;
        subscription.begin();
        subscription.isEnding = false;
        effects.push(...this.#deliver(subscriptionId, subscription, [{ kind: "restarted", instanceId }]));
      }
      effects.push(...this.#checkForMore(subscriptionId, subscription));
    }
    if (isRestart) effects.push(...this.#backtests.askForAll());
    return effects;
  }

  /** Takes in a stream message, and never raises: what cannot be believed becomes an `unattributed` effect. */
  receive(frames: readonly Uint8Array[]): Effects {
    if (!this.#isConnected) return [];
    let message: TopicMessage;
    try {
      message = decodeStream(this.#signer, frames);
    } catch (error) {
      return [{ kind: "unattributed", error: asMessageError(error) }];
    }
    const { topic, seq, payload } = message;
    if (message.instanceId !== this.#instanceId) return []; // from a broker that is gone
    const effects: Effects = [];
    if (topic === WATERMARKS) effects.push(...this.#watermarks(seq, payload));
    for (const [subscriptionId, subscription] of [...this.#byId]) {
      if (subscription.matches(topic)) {
        effects.push(...this.#arrived(subscriptionId, subscription, topic, seq, payload));
      }
    }
    return effects;
  }

  // --- the client's own requests -------------------------------------------------------------------------------------

  /** Takes in the broker's answer to a request that an `ask` has sent. */
  answered(purpose: Purpose, data: unknown): Effects {
    if (purpose.kind === "status") return isStatus(data) ? this.#status(data) : [];
    const found = this.#repaired(purpose);
    if (found === null) return [];
    const [subscription, stream] = found;
    const id = purpose.subscriptionId;
    try {
      const answer = checkedMissed(data);
      const deliveries = stream.fetched(answer, subscription.space);
      if (answer.messages.length === 0) stream.readsOn = false;
      const effects = this.#deliver(id, subscription, deliveries);
      const isAll = answer.messages.length === 0 && stream.nextSeq > answer.toSeq && stream.missing() === null;
      if (purpose.isLast && isAll) return [...effects, ...this.#end(id, null)];
      const isCertain = deliveries.length > 0; // the next page of a long topic
      return [...effects, ...this.#fetchMissing(id, subscription, stream, isCertain)];
    } catch (error) {
      return this.#end(id, asMessageError(error));
    }
  }

  /** Takes a `wait` back: what is missing is fetched, if no message of the topic has come since. */
  waited(repair: TopicRepair): Effects {
    const subscription = this.#byId.get(repair.subscriptionId);
    const stream = subscription?.streams.get(repair.topic);
    if (subscription === undefined || stream === undefined || stream.waitNumber !== repair.number) return [];
    stream.waitNumber = 0;
    const isCertain = stream.received === stream.waitsAt;
    return this.#fetchMissing(repair.subscriptionId, subscription, stream, isCertain);
  }

  /** Takes in the failure of a request that an `ask` has sent: it was refused, or not answered. */
  failed(purpose: Purpose, error: BacktestrError): Effects {
    const isPassing = error instanceof TimedOut || error instanceof NetworkError || error instanceof Busy;
    if (purpose.kind === "status") {
      if (isPassing && this.#backtests.has(purpose.backtestId)) return [statusRequest(purpose.backtestId)];
      return this.#finished(purpose.backtestId, error);
    }
    const found = this.#repaired(purpose);
    if (found === null) return [];
    const [subscription, stream] = found;
    stream.requestNumber = 0;
    if (isPassing) return this.#fetch(purpose.subscriptionId, stream, undefined, purpose.isLast);
    if (!(error instanceof NotFound)) return this.#end(purpose.subscriptionId, error);
    stream.readsOn = false;
    const effects = this.#deliver(
      purpose.subscriptionId,
      subscription,
      stream.giveUp(subscription.space, stream.known),
    );
    return subscription.isEnding ? [...effects, ...this.#end(purpose.subscriptionId, null)] : effects;
  }

  // --- messages ------------------------------------------------------------------------------------------------------

  #arrived(id: number, subscription: Subscription, topic: string, seq: number, payload: Payload): Effects {
    const stream = subscription.stream(topic);
    try {
      const effects = this.#deliver(id, subscription, stream.receive(seq, payload, subscription.space));
      return [...effects, ...this.#fetchMissing(id, subscription, stream)];
    } catch (error) {
      return this.#end(id, asMessageError(error));
    }
  }

  #watermarks(seq: number, payload: Payload): Effects {
    const data = readOrNull(payload.data);
    const reached = isMap(data) ? data.topics : undefined;
    if (!isMap(reached) || !Object.values(reached).every(isWhole)) {
      const error = new ValidationError("$.payload.data: expected Watermarks", { path: "$.payload.data" });
      return [{ kind: "unattributed", error }];
    }
    const isOneLost = seq !== this.#watermarkSeq + 1; // also true of the first: what was before it is unknown
    this.#watermarkSeq = seq;
    const effects: Effects = [];
    for (const [id, subscription] of [...this.#byId]) {
      for (const [topic, lastSeq] of Object.entries(reached) as [string, number][]) {
        const isRead = subscription.streams.has(topic) || subscription.since !== "now";
        if (!isRead || !subscription.matches(topic)) continue;
        const stream = subscription.stream(topic);
        if (subscription.since === "latest") stream.startAt(lastSeq);
        stream.noteWatermark(lastSeq);
        effects.push(...this.#fetchMissing(id, subscription, stream));
      }
      if (isOneLost) effects.push(...this.#checkForMore(id, subscription));
    }
    return effects;
  }

  /**
   * Fetches the messages that are missing, or those that may follow an answer or, at the backtest's end, the last one.
   * Without `isCertain`, messages that no later one has passed may be on their way, and are waited for.
   */
  #fetchMissing(id: number, subscription: Subscription, stream: TopicStream, isCertain = false): Effects {
    if (subscription.space <= 0 || stream.requestNumber !== 0) return [];
    const missing = stream.missing();
    if (missing !== null) {
      if (!isCertain && !stream.isPassed && !subscription.isEnding) return this.#wait(id, stream);
      stream.noteRepair(missing[1]);
      return this.#fetch(id, stream, missing[1], false);
    }
    const mayHaveMore = (subscription.isEnding || stream.readsOn) && !stream.hasNext;
    return mayHaveMore ? this.#fetch(id, stream, undefined, subscription.isEnding) : [];
  }

  #wait(subscriptionId: number, stream: TopicStream): Effects {
    if (stream.waitNumber !== 0) return [];
    this.#requests += 1;
    stream.waitNumber = this.#requests;
    stream.waitsAt = stream.received;
    const repair: TopicRepair = {
      kind: "repair",
      number: this.#requests,
      subscriptionId,
      topic: stream.topic,
      isLast: false,
    };
    return [{ kind: "wait", seconds: QUIET, repair }];
  }

  /**
   * Asks for each topic whether the broker has more, because a loss may be unnoticed. A reader of the latest messages,
   * whose topics may be many, is told instead, and asks for all of them at once.
   */
  #checkForMore(id: number, subscription: Subscription): Effects {
    if (subscription.since === "latest") {
      return this.#deliver(id, subscription, [{ kind: "maybeLost", prefix: subscription.prefix }]);
    }
    const effects: Effects = [];
    for (const stream of subscription.streams.values()) {
      if (subscription.space > 0 && stream.nextSeq !== 0 && stream.requestNumber === 0) {
        effects.push(...this.#fetch(id, stream, undefined, false));
      }
    }
    return effects;
  }

  #fetch(subscriptionId: number, stream: TopicStream, toSeq: number | undefined, isLast: boolean): Effects {
    this.#requests += 1;
    stream.requestNumber = this.#requests;
    stream.askedFor = stream.known;
    stream.readsOn ||= toSeq === undefined;
    const { topic, nextSeq: fromSeq } = stream;
    const data = toSeq === undefined ? { topic, fromSeq } : { topic, fromSeq, toSeq };
    const purpose: TopicRepair = { kind: "repair", number: this.#requests, subscriptionId, topic, isLast };
    return [{ kind: "ask", requestType: "FetchMissed", data, purpose }];
  }

  /** Returns the subscription and topic of a repair, or null if a restart or an end has made it obsolete. */
  #repaired(purpose: TopicRepair): readonly [Subscription, TopicStream] | null {
    const subscription = this.#byId.get(purpose.subscriptionId);
    const stream = subscription?.streams.get(purpose.topic);
    if (subscription === undefined || stream === undefined || stream.requestNumber !== purpose.number) return null;
    return [subscription, stream];
  }

  #deliver(subscriptionId: number, subscription: Subscription, deliveries: readonly Delivery[]): Effects {
    if (deliveries.length === 0) return [];
    if (subscriptionId === OWN) return this.#own(deliveries);
    subscription.space -= weight(deliveries);
    return [{ kind: "deliver", subscriptionId, deliveries }];
  }

  // --- ends ----------------------------------------------------------------------------------------------------------

  /** Reads the client's own subscription to system.backtests. */
  #own(deliveries: readonly Delivery[]): Effects {
    const effects: Effects = [];
    for (const delivery of deliveries) {
      if (delivery.kind === "gap") {
        effects.push(...this.#backtests.askForAll());
      } else if (delivery.kind === "message") {
        const data = readOrNull(delivery.data);
        if (isStatus(data)) {
          effects.push(...this.#status(data));
        } else {
          const error = new ValidationError("$.payload.data: expected BacktestStatus", { path: "$.payload.data" });
          effects.push({ kind: "unattributed", error });
        }
      }
    }
    return effects;
  }

  #status(status: BacktestStatus): Effects {
    return FINAL_STATES.includes(status.status) ? this.#finished(status.backtestId, status) : [];
  }

  #finished(backtestId: string, outcome: BacktestStatus | BacktestrError): Effects {
    if (!this.#backtests.has(backtestId)) return [];
    this.#backtests.unfollow(backtestId);
    const effects: Effects = [{ kind: "finished", backtestId, outcome }];
    for (const [id, subscription] of [...this.#byId]) {
      if (subscription.until !== backtestId) continue;
      if (outcome instanceof BacktestrError) {
        effects.push(...this.#end(id, outcome));
      } else {
        subscription.isEnding = true;
        effects.push(...this.#fetchMissing(id, subscription, subscription.stream(subscription.prefix)));
      }
    }
    return effects;
  }

  #end(subscriptionId: number, error: BacktestrError | null): Effects {
    if (subscriptionId === OWN) return error === null ? [] : [{ kind: "unattributed", error }];
    return [{ kind: "end", subscriptionId, error }, ...this.close(subscriptionId)];
  }

  // --- prefixes ------------------------------------------------------------------------------------------------------

  #subscribe(prefix: string): Effects {
    const count = this.#prefixes.get(prefix) ?? 0;
    this.#prefixes.set(prefix, count + 1);
    return count === 0 ? [{ kind: "subscribe", prefix }] : [];
  }

  #unsubscribe(prefix: string): Effects {
    const count = this.#prefixes.get(prefix) ?? 0;
    if (count > 1) {
      this.#prefixes.set(prefix, count - 1);
      return [];
    }
    this.#prefixes.delete(prefix);
    return [{ kind: "unsubscribe", prefix }];
  }

  /** Returns what is wrong with prefixes and topics; null if they fit the subscriptions. For tests. */
  violation(): string | null {
    const wanted = new Map<string, number>();
    const add = (prefix: string): unknown => wanted.set(prefix, (wanted.get(prefix) ?? 0) + 1);
    for (const subscription of this.#byId.values()) {
      add(subscription.prefix);
      for (const [topic, stream] of subscription.streams) {
        if (!subscription.matches(topic)) return `${topic} is read under ${subscription.prefix}`;
        const inside = stream.violation();
        if (inside !== null) return `${topic}: ${inside}`;
      }
    }
    if (this.#byId.size > 0) add(WATERMARKS);
    const isSame =
      wanted.size === this.#prefixes.size && [...wanted].every(([one, n]) => this.#prefixes.get(one) === n);
    return isSame ? null : "the prefixes are not those of the subscriptions";
  }
}

function isStatus(data: unknown): data is BacktestStatus {
  return isMap(data) && typeof data.backtestId === "string" && typeof data.status === "string";
}

/** Returns data that may be packed; null where they cannot be read. */
function readOrNull(data: unknown): unknown {
  try {
    return unpack(data);
  } catch (error) {
    asMessageError(error);
    return null;
  }
}

/** Returns the error of hostile or damaged bytes; anything else is a defect of this client, and raised. */
function asMessageError(error: unknown): MessageError {
  if (error instanceof MessageError) return error;
  throw error;
}
