/** A stream payload is one message or a batch, and a batch holds messages or prices as columns. */

import type { PriceUpdate } from "../generated/contracts.js";
import { checkedPayload, isMap, isWhole, type Payload, shown } from "./codec.js";
import { numbersOf, VALUE_BYTES } from "./columns.js";
import { MessageError, SerializationError } from "./errors.js";
import { decode, unpack } from "./msgpack-decoder.js";
import { Packed } from "./msgpack-encoder.js";

/** Bytes of an unpacked batch: as many as a frame of a stream may have. Checked before anything is unpacked. */
export const MAX_BATCH_BYTES = 64 << 20;
/** Messages in a batch, as many as a broker accepts: without a bound a few bytes could stand for any number. */
export const MAX_BATCH_MESSAGES = 65_536;

/** A format of compressed batches. */
export type Compression = "lz4" | "zstd" | "gzip";

/**
 * Decompresses one batch of `rawBytes` bytes, which were compared with a limit before. It decompresses no more than that
 * (one byte more shows that there are more), and throws for data that are damaged or end too early.
 */
export type Decompress = (form: Compression, data: Uint8Array, rawBytes: number) => Uint8Array;

/** The messages of a batch that came as maps: the last `count` of those that are packed, or came, together. */
export class Messages {
  readonly kind = "messages";
  readonly count: number;
  /** The size in bytes. */
  readonly size: number;
  readonly #all: Packed | readonly unknown[];

  constructor(count: number, size: number, all: Packed | readonly unknown[]) {
    this.count = count;
    this.size = size;
    this.#all = all;
  }

  /** Returns the messages without the first `skipped`. */
  after(skipped: number): Messages {
    return skipped === 0 ? this : new Messages(this.count - skipped, this.size, this.#all);
  }

  /** Returns each message as its own payload. Raises a `MessageError` if one of them is no payload. */
  payloads(): Payload[] {
    const all = unpack(this.#all) as readonly unknown[];
    return all.slice(all.length - this.count).map((one) => checkedPayload(one, "$.payload.data.messages[...]"));
  }
}

/** The names of the columns of prices that are numbers. */
export const NUMBERS = ["timestamp", "bid", "ask", "last", "volume"] as const;
type NumberColumn = (typeof NUMBERS)[number];
const TEXTS = ["symbol", "timeframe"] as const;
const SOURCES = ["backtestId", "replayId"] as const;

/** The values that all prices of a batch in columns have in common. */
export interface PriceTexts {
  readonly symbol: string;
  readonly timeframe: string;
  readonly backtestId?: string;
  readonly replayId?: string;
}

/** Prices as columns: each field is one text for all of them, or a number for each. Timestamps are milliseconds. */
export class PriceColumns {
  readonly kind = "columns";
  readonly count: number;
  readonly texts: PriceTexts;
  readonly numbers: { readonly [name in NumberColumn]: Float64Array };

  constructor(count: number, texts: PriceTexts, numbers: { readonly [name in NumberColumn]: Float64Array }) {
    this.count = count;
    this.texts = texts;
    this.numbers = numbers;
  }

  /** The size in bytes. */
  get size(): number {
    return this.count * VALUE_BYTES * NUMBERS.length;
  }

  /** Returns the prices without the first `skipped`. */
  after(skipped: number): PriceColumns {
    if (skipped === 0) return this;
    const { timestamp, bid, ask, last, volume } = this.numbers;
    return new PriceColumns(this.count - skipped, this.texts, {
      timestamp: timestamp.subarray(skipped),
      bid: bid.subarray(skipped),
      ask: ask.subarray(skipped),
      last: last.subarray(skipped),
      volume: volume.subarray(skipped),
    });
  }

  /** Returns true if these prices have the same texts as `other`. */
  isLike({ texts }: PriceColumns): boolean {
    const mine: { readonly [name: string]: string | undefined } = { ...this.texts };
    const theirs: { readonly [name: string]: string | undefined } = { ...texts };
    return [...TEXTS, ...SOURCES].every((name) => mine[name] === theirs[name]);
  }

  /** Returns the price at a place, from 0 to `count` - 1. */
  price(index: number): PriceUpdate {
    const { timestamp, bid, ask, last, volume } = this.numbers;
    return {
      ...this.texts,
      timestamp: timestamp[index] as number,
      bid: bid[index] as number,
      ask: ask[index] as number,
      last: last[index] as number,
      volume: volume[index] as number,
    };
  }

  /** Returns each price as its own payload. */
  payloads(): Payload[] {
    return Array.from({ length: this.count }, (_, index) => ({ type: "PriceUpdate", data: this.price(index) }));
  }
}

/** The messages of a batch. */
export type Batch = Messages | PriceColumns;

/**
 * Returns the messages of a `Batch`, or null for any other payload. Raises a `MessageError` for a batch that is damaged,
 * too large, or in a form that this client does not know.
 */
export function openPayload(payload: Payload, decompress: Decompress): Batch | null {
  if (payload.type !== "Batch") return null;
  const batch = payload.data instanceof Packed ? decode(payload.data.bytes, MESSAGES) : payload.data;
  if (!isMap(batch)) throw new SerializationError(`a batch is a map; ${shown(batch)} came`);
  const { count, compression, rawBytes, messages, columns, type } = batch;
  if (!isWhole(rawBytes) || rawBytes < 0 || rawBytes > MAX_BATCH_BYTES) {
    throw new SerializationError(`a batch of ${shown(rawBytes)} bytes came; up to ${MAX_BATCH_BYTES} are taken`);
  }
  if (!isWhole(count) || count < 1 || count > MAX_BATCH_MESSAGES) {
    throw new SerializationError(`a batch of ${shown(count)} messages; it has 1 to ${MAX_BATCH_MESSAGES}`);
  }
  if (isAbsent(messages) === isAbsent(columns)) {
    throw new SerializationError("a batch has either messages or columns");
  }
  // A list of messages may still be packed, and what was compressed is a bin.
  const came = isAbsent(columns) ? messages : columns;
  const content = came instanceof Packed && isBin(came) ? unpack(came) : came;
  const isCompressed = content instanceof Uint8Array;
  if (isCompressed === (compression === "none")) {
    throw new SerializationError(`the content of a batch with compression ${shown(compression)} came in another form`);
  }
  const raw = isCompressed ? new Packed(decompressed(content, compression, rawBytes, decompress)) : content;
  return isAbsent(columns) ? messagesOf(raw, rawBytes, count) : columnsOf(unpack(raw), type, count);
}

const MESSAGES = ["messages"];

function isAbsent(value: unknown): boolean {
  return value === undefined || value === null || (value instanceof Packed && value.bytes[0] === 0xc0);
}

function decompressed(content: Uint8Array, form: unknown, rawBytes: number, decompress: Decompress): Uint8Array {
  if (form !== "lz4" && form !== "zstd" && form !== "gzip") {
    throw new SerializationError(`a batch with compression ${shown(form)}; this client knows none, lz4, zstd and gzip`);
  }
  let raw: Uint8Array;
  try {
    raw = decompress(form, content, rawBytes);
  } catch (error) {
    if (error instanceof MessageError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new SerializationError(`a batch that is not ${form}: ${reason}`, { compression: form }, { cause: error });
  }
  if (raw.length !== rawBytes) {
    throw new SerializationError(`a batch in ${form} says that it holds ${rawBytes} bytes, and is not exactly that`);
  }
  return raw;
}

function isBin({ bytes }: Packed): boolean {
  return bytes[0] === 0xc4 || bytes[0] === 0xc5 || bytes[0] === 0xc6;
}

function messagesOf(raw: unknown, size: number, count: number): Messages {
  const isList = raw instanceof Packed || Array.isArray(raw);
  const holds = raw instanceof Packed ? lengthOf(raw.bytes) : isList ? (raw as readonly unknown[]).length : null;
  if (holds !== count) {
    throw new SerializationError(`a batch says that it holds ${count} messages; it holds ${holds ?? "no list"}`);
  }
  return new Messages(count, size, raw as Packed | readonly unknown[]);
}

/** Returns the length that a list claims, before any message is decoded; null if it is no list. */
function lengthOf(bytes: Uint8Array): number | null {
  const [code = 0, a = 0, b = 0, c = 0, d = 0] = bytes.subarray(0, 5);
  if (code >= 0x90 && code < 0xa0) return code & 0x0f;
  if (code === 0xdc) return (a << 8) | b;
  return code === 0xdd ? ((a << 24) | (b << 16) | (c << 8) | d) >>> 0 : null;
}

function columnsOf(columns: unknown, type: unknown, count: number): PriceColumns {
  if (type !== "PriceUpdate") {
    throw new SerializationError(`a batch of ${shown(type)} came as columns; this client reads those of PriceUpdate`);
  }
  if (!isMap(columns)) throw new SerializationError(`columns are a map; ${shown(columns)} came`);
  const texts: { [name: string]: string } = {};
  for (const name of TEXTS) {
    const text = columns[name];
    if (typeof text !== "string") {
      throw new SerializationError(`the column ${name} of a batch of prices is one text; ${shown(text)} came`);
    }
    texts[name] = text;
  }
  for (const name of SOURCES) {
    const text = columns[name];
    if (typeof text === "string") texts[name] = text;
  }
  const [timestamp, bid, ask, last, volume] = NUMBERS.map((name) => numberColumn(columns, name, count)) as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  return new PriceColumns(count, texts as unknown as PriceTexts, { timestamp, bid, ask, last, volume });
}

function numberColumn(columns: { readonly [name: string]: unknown }, name: NumberColumn, count: number): Float64Array {
  const column = columns[name];
  if (typeof column === "number") return new Float64Array(count).fill(column);
  const dtype = name === "timestamp" ? "<i8" : "<f8";
  const data = isMap(column) && column.dtype === dtype ? column.data : undefined;
  if (!(data instanceof Uint8Array) || data.length !== VALUE_BYTES * count) {
    const came = isMap(column) ? `${shown(column.dtype)} in ${shown(column.data)}` : shown(column);
    throw new SerializationError(`the column ${name} of ${count} prices is ${dtype}; ${came} came`);
  }
  return numbersOf({ dtype, data });
}
