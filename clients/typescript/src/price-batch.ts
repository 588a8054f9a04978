/** Prices as columns, joined of the batches that follow each other. */

import type { PriceColumns } from "./core/batches.js";
import type { Update } from "./core/updates.js";
import type { PriceUpdate } from "./generated/contracts.js";

/**
 * Prices that follow each other on a topic, as one typed array for each field. `symbol` and `timeframe` are lists only
 * where prices of several came one by one.
 */
export class PriceBatch {
  readonly kind = "prices";
  readonly topic: string;
  /** The sequence number of each price. */
  readonly seq: Float64Array;
  readonly symbol: string | readonly string[];
  readonly timeframe: string | readonly string[];
  /** Milliseconds since the Unix epoch. */
  readonly timestamp: Float64Array;
  readonly bid: Float64Array;
  readonly ask: Float64Array;
  readonly last: Float64Array;
  readonly volume: Float64Array;

  constructor(fields: Omit<PriceBatch, "kind" | "rows">) {
    this.topic = fields.topic;
    this.seq = fields.seq;
    this.symbol = fields.symbol;
    this.timeframe = fields.timeframe;
    this.timestamp = fields.timestamp;
    this.bid = fields.bid;
    this.ask = fields.ask;
    this.last = fields.last;
    this.volume = fields.volume;
  }

  /** The number of prices. */
  get rows(): number {
    return this.seq.length;
  }
}

const NUMBERS = ["timestamp", "bid", "ask", "last", "volume"] as const;

/** Returns columns that follow each other, and have the same texts, as one batch. */
export function joinedPrices(topic: string, seq: number, parts: readonly PriceColumns[]): PriceBatch {
  const [first] = parts as readonly [PriceColumns, ...PriceColumns[]];
  const rows = parts.reduce((sum, one) => sum + one.count, 0);
  const joined = (name: (typeof NUMBERS)[number]): Float64Array => {
    if (parts.length === 1) return first.numbers[name];
    const all = new Float64Array(rows);
    let at = 0;
    for (const { numbers, count } of parts) {
      all.set(numbers[name], at);
      at += count;
    }
    return all;
  };
  return new PriceBatch({
    topic,
    seq: Float64Array.from({ length: rows }, (_, index) => seq + index),
    symbol: first.texts.symbol,
    timeframe: first.texts.timeframe,
    timestamp: joined("timestamp"),
    bid: joined("bid"),
    ask: joined("ask"),
    last: joined("last"),
    volume: joined("volume"),
  });
}

/** Returns prices that came one by one as one batch; there is at least one. */
export function pricesOf(updates: readonly Update<PriceUpdate>[]): PriceBatch {
  const column = (name: (typeof NUMBERS)[number]): Float64Array => Float64Array.from(updates, ({ data }) => data[name]);
  const text = (name: "symbol" | "timeframe"): string | readonly string[] => {
    const all = updates.map(({ data }) => data[name]);
    return all.every((one) => one === all[0]) ? (all[0] as string) : all;
  };
  return new PriceBatch({
    topic: (updates[0] as Update).topic,
    seq: Float64Array.from(updates, (one) => one.seq),
    symbol: text("symbol"),
    timeframe: text("timeframe"),
    timestamp: column("timestamp"),
    bid: column("bid"),
    ask: column("ask"),
    last: column("last"),
    volume: column("volume"),
  });
}
