/**
 * One topic for one subscriber: sequence numbers go in, messages in order come out, and no loss is silent.
 *
 * A `TopicStream` is given the messages that arrive and the watermarks. Its `missing` is what to fetch from the broker,
 * and a message that cannot be had any more becomes a `Gap` (PROTOCOL.md, section 7).
 */

import { type Decompress, openPayload } from "./batches.js";
import { checkedPayload, isMap, isWhole, type Payload } from "./codec.js";
import { StreamCounters } from "./counters.js";
import { type DeliveredBatch, type Delivery, type Gap, weightOf } from "./effects.js";
import { ValidationError } from "./errors.js";

/** Messages that arrived ahead of a missing one; beyond this they are fetched again later instead of being held. */
export const MAX_AHEAD = 10_000;
/**
 * A message that the broker no longer retains may still be on its way, on another socket than the answer that omits it.
 * It is lost for certain once a later message has come that way, or after so many answers without it.
 */
export const MAX_INCONCLUSIVE = 3;

// Of these topics every message is delivered by itself.
const SYSTEM_PREFIXES = ["system.", "state."];

type Numbered = readonly [seq: number, payload: Payload];

/** The answer to `FetchMissed`, checked. */
export interface Missed {
  readonly fromSeq: number;
  readonly toSeq: number;
  readonly oldestSeq: number;
  readonly messages: readonly { readonly seq: number; readonly payload: Payload }[];
}

/** Returns the data of an answer to `FetchMissed`. Raises a `ValidationError` for other data. */
export function checkedMissed(data: unknown): Missed {
  const numbers = ["fromSeq", "toSeq", "oldestSeq"];
  if (!isMap(data) || !numbers.every((name) => isWhole(data[name])) || !Array.isArray(data.messages)) {
    throw new ValidationError("$.payload.data: expected Missed", { path: "$.payload.data" });
  }
  for (const one of data.messages) {
    if (!isMap(one) || !isWhole(one.seq)) {
      throw new ValidationError("$.payload.data.messages[...]: expected a message", { path: "$.payload.data" });
    }
    checkedPayload(one.payload, "$.payload.data.messages[...].payload");
  }
  return data as unknown as Missed;
}

/**
 * The order of one topic for one subscriber.
 *
 * `nextSeq` is the sequence number that is delivered next. It is 0 while any may come first: without `fromStart` the
 * first message that arrives begins the stream. Every number before it was delivered or stated as a gap.
 */
export class TopicStream {
  readonly topic: string;
  nextSeq: number;
  /** The highest number that is known to exist. */
  known = 0;
  /** The number of the FetchMissed that is under way, 0 for none. */
  requestNumber = 0;
  /** The highest number that was known to exist when that was sent. */
  askedFor = 0;
  /** Whether the broker may have more behind an answer: those of a log are pages. */
  readsOn = false;
  /** The number of the wait for messages that may be on their way, 0 for none. */
  waitNumber = 0;
  /** The value of `received` when that wait began. */
  waitsAt = 0;
  readonly #counters: StreamCounters;
  readonly #decompress: Decompress;
  #ahead = new Map<number, Payload>();
  #gapEnd = 0; // the last number of the gap that is being repaired, 0 for none
  #isGapLost = false; // true if messages of it are lost
  #received = 0; // the highest number that came by subscription
  #inconclusive = 0; // answers in a row after which a missing message might still come

  /** `counters` count duplicates and gaps, together with those of other topics. */
  constructor(topic: string, fromStart: boolean, decompress: Decompress, counters = new StreamCounters()) {
    this.topic = topic;
    this.nextSeq = fromStart ? 1 : 0;
    this.#decompress = decompress;
    this.#counters = counters;
  }

  /**
   * Takes in a stream payload whose first message is `seq`, and returns what can be delivered now.
   *
   * A batch is delivered as one if nothing before it is missing and there is space for it, and otherwise message by
   * message. The few messages of system topics always come one by one. Raises a `MessageError` for a damaged batch.
   */
  receive(seq: number, payload: Payload, space: number): Delivery[] {
    const found = openPayload(payload, this.#decompress);
    if (found === null) return this.offer([[seq, payload]], space);
    const first = this.nextSeq || seq;
    const last = seq + found.count - 1;
    const isWhole = seq <= first && first <= last && !SYSTEM_PREFIXES.some((one) => this.topic.startsWith(one));
    if (!isWhole) return this.offer(numbered(seq, found.payloads()), space);
    const batch: DeliveredBatch = { kind: "batch", topic: this.topic, seq: first, content: found.after(first - seq) };
    const weight = weightOf(batch);
    if (weight > space) return this.offer(numbered(seq, found.payloads()), space);
    this.#counters.duplicatesDropped += first - seq;
    if (this.#ahead.size > 0) {
      // An answer may have been quicker.
      for (let one = first; one <= last; one += 1) {
        if (this.#ahead.delete(one)) this.#counters.duplicatesDropped += 1;
      }
    }
    this.known = Math.max(this.known, last);
    this.#received = Math.max(this.#received, last);
    this.#advanceTo(last);
    return this.#withAhead([batch], space - weight + 1);
  }

  /** Takes in single messages, and returns at most `space` that can be delivered now, in order and once each. */
  offer(messages: Iterable<Numbered>, space: number): Delivery[] {
    const delivered: Delivery[] = [];
    for (const [seq, payload] of messages) {
      this.known = Math.max(this.known, seq);
      this.#received = Math.max(this.#received, seq);
      if (this.nextSeq === 0) this.nextSeq = seq;
      if (seq === this.nextSeq && delivered.length < space) {
        // Even when no more can be held.
        if (this.#ahead.delete(seq)) this.#counters.duplicatesDropped += 1;
        delivered.push(this.#message(seq, payload));
        this.#advanceTo(seq);
      } else if (seq < this.nextSeq || this.#ahead.has(seq)) {
        this.#counters.duplicatesDropped += 1;
      } else if (seq === this.nextSeq || this.#ahead.size < MAX_AHEAD) {
        this.#ahead.set(seq, payload);
      }
    }
    return this.#withAhead(delivered, space);
  }

  /** Returns the held messages that can be delivered now that there is space for `space` deliveries. */
  resume(space: number): Delivery[] {
    return this.#withAhead([], space);
  }

  /** Notes that the topic has reached `lastSeq`. */
  noteWatermark(lastSeq: number): void {
    if (this.nextSeq === 0) return;
    if (lastSeq > this.known && lastSeq >= this.nextSeq) this.#counters.watermarksBehind += 1;
    this.known = Math.max(this.known, lastSeq);
  }

  /** Begins with the message `seq`, unless the stream has begun already. */
  startAt(seq: number): void {
    if (this.nextSeq === 0) this.nextSeq = seq;
  }

  /** Notes that the missing messages up to `toSeq` are being fetched. */
  noteRepair(toSeq: number): void {
    if (this.#gapEnd !== 0) return;
    this.#counters.gapsSeen += 1;
    this.#gapEnd = toSeq;
  }

  /** Gives up the repair that is under way, because the rest of the topic is not wanted. */
  abandon(): void {
    if (this.#gapEnd === 0) return;
    this.#gapEnd = 0;
    this.#counters.gapsLeft += 1;
  }

  /** The highest number that came by subscription. */
  get received(): number {
    return this.#received;
  }

  /** True if a later message than the next one has come by subscription: then the next one will not. */
  get isPassed(): boolean {
    return this.nextSeq > 0 && this.nextSeq <= this.#received;
  }

  /** True if the next message is held already and waits for space. */
  get hasNext(): boolean {
    return this.#ahead.has(this.nextSeq);
  }

  /** Returns the first and last number to fetch, or null if nothing is missing or a request is under way. */
  missing(): readonly [first: number, last: number] | null {
    if (this.requestNumber !== 0 || this.nextSeq === 0 || this.nextSeq > this.known || this.hasNext) return null;
    let next = this.known + 1;
    for (const seq of this.#ahead.keys()) next = Math.min(next, seq);
    return [this.nextSeq, next - 1];
  }

  /** Takes in the answer to `FetchMissed`, and returns what can be delivered now, with a `Gap` for each loss. */
  fetched(answer: Missed, space: number): Delivery[] {
    this.requestNumber = 0;
    const arrived: Numbered[] = [];
    for (const { seq, payload } of answer.messages) {
      const found = openPayload(payload, this.#decompress);
      if (found === null) arrived.push([seq, payload]);
      else arrived.push(...numbered(seq, found.payloads()));
    }
    for (const [seq, payload] of arrived) if (seq >= this.nextSeq) this.#ahead.set(seq, payload);
    const reached = Math.max(answer.toSeq, answer.oldestSeq - 1);
    this.known = Math.max(this.known, reached);
    for (const seq of this.#ahead.keys()) this.known = Math.max(this.known, seq);
    // The stream may have passed the answer meanwhile, and what is known only since then is younger than the answer.
    if (reached < answer.fromSeq && !this.hasNext) return this.giveUp(space, this.askedFor);
    const delivered = this.#withAhead([], space);
    while (this.nextSeq <= reached && delivered.length < space) {
      let lastMissing = reached;
      for (const seq of this.#ahead.keys()) lastMissing = Math.min(lastMissing, seq - 1);
      if (lastMissing > this.#received && this.#inconclusive < MAX_INCONCLUSIVE) {
        this.#inconclusive += 1;
        break;
      }
      delivered.push(this.#gapTo(lastMissing));
      this.#withAhead(delivered, space);
    }
    if (this.#ahead.size > MAX_AHEAD) {
      this.#ahead = new Map([...this.#ahead].sort(([one], [other]) => one - other).slice(0, MAX_AHEAD));
    }
    return delivered;
  }

  /** States the missing messages up to that number as a gap, because the broker does not have them. */
  giveUp(space: number, upTo: number): Delivery[] {
    this.requestNumber = 0;
    const missing = this.missing();
    if (missing === null || space <= 0 || this.nextSeq > upTo) return [];
    return this.#withAhead([this.#gapTo(Math.min(missing[1], upTo))], space);
  }

  #message(seq: number, { type, data }: Payload): Delivery {
    return { kind: "message", topic: this.topic, seq, type, data };
  }

  #gapTo(lastSeq: number): Gap {
    const gap: Gap = { kind: "gap", topic: this.topic, fromSeq: this.nextSeq, toSeq: lastSeq };
    this.#counters.messagesLost += lastSeq - this.nextSeq + 1;
    this.#isGapLost = true;
    this.#advanceTo(lastSeq);
    return gap;
  }

  /** Notes that everything up to `seq` was delivered or stated as a gap. */
  #advanceTo(seq: number): void {
    this.nextSeq = seq + 1;
    this.#inconclusive = 0;
    if (this.#isGapLost || this.#gapEnd !== 0) this.#closeGap(seq);
  }

  /**
   * Counts the gap that ends at `seq` or before, if one does. A loss that was found without a repair counts as seen and
   * lost at once.
   */
  #closeGap(seq: number): void {
    if (this.#isGapLost && this.#gapEnd === 0) this.#counters.gapsSeen += 1;
    else if (seq < this.#gapEnd) return;
    if (this.#isGapLost) this.#counters.gapsLost += 1;
    else this.#counters.gapsRepaired += 1;
    this.#gapEnd = 0;
    this.#isGapLost = false;
  }

  /** Returns `delivered`, extended by the held messages that follow without a gap, as far as there is space. */
  #withAhead(delivered: Delivery[], space: number): Delivery[] {
    while (this.#ahead.size > 0 && delivered.length < space) {
      const payload = this.#ahead.get(this.nextSeq);
      if (payload === undefined) break;
      this.#ahead.delete(this.nextSeq);
      delivered.push(this.#message(this.nextSeq, payload));
      this.#advanceTo(this.nextSeq);
    }
    return delivered;
  }

  /** Returns what is wrong with held messages and the open gap; null if they lie ahead of `nextSeq`. For tests. */
  violation(): string | null {
    if (this.#ahead.size > MAX_AHEAD + 1) return "too many messages are held";
    for (const seq of this.#ahead.keys()) {
      if (seq < this.nextSeq || seq > this.known) return `message ${seq} is held, and ${this.nextSeq} is next`;
    }
    return this.#gapEnd === 0 || this.nextSeq <= this.#gapEnd ? null : "a gap that has ended is open";
  }
}

function* numbered(seq: number, payloads: readonly Payload[]): Generator<Numbered> {
  for (let index = 0; index < payloads.length; index += 1) yield [seq + index, payloads[index] as Payload];
}
