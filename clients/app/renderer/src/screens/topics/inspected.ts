/** Keeps what an inspector shows of topics: counts, the latest messages, and gaps. All of it is bounded, and pure. */

/** Topics that are told apart; messages of further ones are counted together. */
export const MOST_TOPICS = 500;
/** Messages that are kept of each topic. */
export const MOST_MESSAGES = 50;
/** Gaps that are kept of each topic. */
export const MOST_GAPS = 20;
/** Milliseconds over which a rate is measured. */
const RATE_MS = 3_000;

/** One kept message. `at` is when it came, in milliseconds since 1970. */
export interface KeptMessage {
  readonly seq: number;
  readonly at: number;
  readonly type: string;
  readonly data: unknown;
}

/** A loss: the messages that the broker no longer had. */
export interface KeptGap {
  readonly at: number;
  readonly fromSeq: number;
  readonly toSeq: number;
}

/** One topic as it was seen since the inspector began, or was cleared. */
export interface InspectedTopic {
  readonly topic: string;
  readonly messages: number;
  readonly lost: number;
  readonly lastSeq: number;
  readonly lastAt: number;
  /** The latest first. */
  readonly kept: readonly KeptMessage[];
  readonly gaps: readonly KeptGap[];
}

interface Entry {
  topic: string;
  messages: number;
  lost: number;
  lastSeq: number;
  lastAt: number;
  kept: KeptMessage[]; // the latest last
  gaps: KeptGap[];
  slots: [number, number][]; // of the rate: the second, with its messages
}

/** Counts and keeps what comes on many topics. */
export class Inspection {
  readonly #topics = new Map<string, Entry>();
  #others = 0;

  /** Messages of topics beyond `MOST_TOPICS`. */
  get others(): number {
    return this.#others;
  }

  /** Notes a message. */
  message(topic: string, message: KeptMessage): void {
    const entry = this.#entry(topic);
    if (entry === undefined) {
      this.#others += 1;
      return;
    }
    this.#count(entry, 1, message.seq, message.at);
    entry.kept.push(message);
    // Cut seldom: a shift for each of a thousand messages a second costs.
    if (entry.kept.length >= 2 * MOST_MESSAGES) entry.kept.splice(0, entry.kept.length - MOST_MESSAGES);
  }

  /** Notes many messages at once, of which the last ones are given. */
  messages(topic: string, count: number, last: readonly KeptMessage[]): void {
    const entry = this.#entry(topic);
    const latest = last.at(-1);
    if (entry === undefined) this.#others += count;
    if (entry === undefined || latest === undefined) return;
    this.#count(entry, count, latest.seq, latest.at);
    entry.kept.push(...last);
    entry.kept.splice(0, Math.max(0, entry.kept.length - MOST_MESSAGES));
  }

  /** Notes messages that are lost. */
  gap(topic: string, gap: KeptGap): void {
    const entry = this.#entry(topic);
    if (entry === undefined) return;
    entry.lost += gap.toSeq - gap.fromSeq + 1;
    entry.gaps.push(gap);
    entry.gaps.splice(0, Math.max(0, entry.gaps.length - MOST_GAPS));
  }

  /** Returns the topics in the order in which they came, as they are now. */
  topics(): readonly InspectedTopic[] {
    return [...this.#topics.values()].map((entry) => ({
      topic: entry.topic,
      messages: entry.messages,
      lost: entry.lost,
      lastSeq: entry.lastSeq,
      lastAt: entry.lastAt,
      kept: entry.kept.slice(-MOST_MESSAGES).reverse(),
      gaps: entry.gaps.toReversed(),
    }));
  }

  /** Returns the messages a second of a topic over the last three seconds before `now`. */
  rate(topic: string, now: number): number {
    const entry = this.#topics.get(topic);
    if (entry === undefined) return 0;
    const from = now - RATE_MS;
    let messages = 0;
    for (const [second, count] of entry.slots)
      if (second * 1000 > from - 1000 && second * 1000 + 1000 <= now) messages += count;
    return messages / (RATE_MS / 1000);
  }

  /** Forgets everything, or one subscription's topics. */
  clear(isForgotten: (topic: string) => boolean = () => true): void {
    for (const topic of [...this.#topics.keys()]) if (isForgotten(topic)) this.#topics.delete(topic);
    this.#others = 0;
  }

  #entry(topic: string): Entry | undefined {
    const known = this.#topics.get(topic);
    if (known !== undefined || this.#topics.size >= MOST_TOPICS) return known;
    const made: Entry = { topic, messages: 0, lost: 0, lastSeq: 0, lastAt: 0, kept: [], gaps: [], slots: [] };
    this.#topics.set(topic, made);
    return made;
  }

  #count(entry: Entry, count: number, seq: number, at: number): void {
    entry.messages += count;
    entry.lastSeq = seq;
    entry.lastAt = at;
    const second = Math.floor(at / 1000);
    const slot = entry.slots.at(-1);
    if (slot?.[0] === second) slot[1] += count;
    else entry.slots.push([second, count]);
    if (entry.slots.length > RATE_MS / 1000 + 2) entry.slots.shift();
  }
}

/** True if a subscription to `prefix` brings `topic`: it names it, or ends with a dot and begins it. */
export function brings(prefix: string, topic: string): boolean {
  return prefix === topic || (prefix.endsWith(".") && topic.startsWith(prefix));
}

/** Says why something typed is no topic to subscribe to; undefined where it is one. */
export function topicError(text: string, known: readonly string[]): string | undefined {
  if (text === "") return "Name a topic, or the beginning of topics with a dot at its end.";
  if (/\s/.test(text)) return "A topic has no spaces.";
  if (known.includes(text)) return "It is subscribed already.";
  return undefined;
}
