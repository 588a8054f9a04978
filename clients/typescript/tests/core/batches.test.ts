/** Batches: every form gives its messages, and every other form is refused with a reason. */

import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decompress } from "../../src/compression/node.js";
import { type Batch, MAX_BATCH_BYTES, openPayload, PriceColumns } from "../../src/core/batches.js";
import { MessageError, SerializationError } from "../../src/core/errors.js";
import { encode, Packed } from "../../src/core/msgpack-encoder.js";

const MESSAGES = [1, 2, 3].map((n) => ({ type: "Number", data: { n } }));
const RAW = encode(MESSAGES);
const BATCH = { count: 3, compression: "none", rawBytes: RAW.length, messages: MESSAGES as unknown };

function open(batch: unknown): Batch | null {
  const packed = openPayload({ type: "Batch", data: new Packed(encode(batch)) }, decompress);
  const plain = openPayload({ type: "Batch", data: batch }, decompress);
  expect(packed?.payloads()).toEqual(plain?.payloads());
  return packed;
}

function floats(values: readonly number[]): Uint8Array {
  return new Uint8Array(Float64Array.from(values).buffer);
}

function wholes(values: readonly bigint[]): Uint8Array {
  return new Uint8Array(BigInt64Array.from(values).buffer);
}

const COLUMNS = {
  symbol: "S",
  timeframe: "1m",
  backtestId: "b",
  timestamp: { dtype: "<i8", data: wholes([-5n, 1_700_000_000_000n]) },
  bid: { dtype: "<f8", data: floats([1.5, Number.NaN]) },
  ask: { dtype: "<f8", data: floats([2, -0]) },
  last: 7,
  volume: { dtype: "<f8", data: floats([0, 1e300]) },
  other: "ignored",
};
const PRICES = {
  count: 2,
  compression: "none",
  rawBytes: encode(COLUMNS).length,
  type: "PriceUpdate",
  columns: COLUMNS,
};

test("another payload is no batch", () => {
  expect(openPayload({ type: "OrderUpdate", data: {} }, decompress)).toBeNull();
});

test("messages come as they are, and a part of them after some are skipped", () => {
  const batch = open(BATCH) as Batch;
  expect(batch.payloads()).toEqual(MESSAGES);
  expect(batch.count).toBe(3);
  expect(batch.size).toBe(RAW.length);
  expect(batch.after(2).payloads()).toEqual(MESSAGES.slice(2));
  expect(batch.after(1).after(1).count).toBe(1);
  expect(batch.after(0)).toBe(batch);
});

test("compressed messages are those that were compressed", () => {
  const packed = { ...BATCH, compression: "gzip", messages: new Uint8Array(gzipSync(RAW)) };
  expect(open(packed)?.payloads()).toEqual(MESSAGES);
});

test.each([1, 15, 16, 300, 65_536])("%i messages have a list head of their own", (count) => {
  const messages = Array.from({ length: count }, () => ({ type: "t", data: 1 }));
  expect(open({ count, compression: "none", rawBytes: 1, messages })?.count).toBe(count);
});

test("columns are prices, and can be cut, compared and read one by one", () => {
  const batch = open(PRICES) as PriceColumns;
  expect(batch).toBeInstanceOf(PriceColumns);
  const first = { symbol: "S", timeframe: "1m", backtestId: "b", timestamp: -5, bid: 1.5, ask: 2, last: 7, volume: 0 };
  expect(batch.price(0)).toEqual(first);
  expect(batch.price(1)).toEqual({ ...first, timestamp: 1_700_000_000_000, bid: Number.NaN, ask: -0, volume: 1e300 });
  expect(batch.payloads().map((one) => one.type)).toEqual(["PriceUpdate", "PriceUpdate"]);
  expect(batch.size).toBe(80);
  expect(batch.after(0)).toBe(batch);
  expect(batch.after(1).payloads()).toEqual(batch.payloads().slice(1));
  expect(batch.isLike(batch.after(1))).toBe(true);
  const other = open({ ...PRICES, columns: { ...COLUMNS, backtestId: "c" } }) as PriceColumns;
  expect(batch.isLike(other)).toBe(false);
  const compressed = { ...PRICES, compression: "gzip", columns: new Uint8Array(gzipSync(encode(COLUMNS))) };
  expect(open(compressed)?.payloads()).toEqual(batch.payloads());
});

test("columns may begin at any offset", () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 20 }), (padding) => {
      const batch = open({ padding, ...PRICES }) as PriceColumns;
      expect(batch.numbers.volume).toEqual(Float64Array.of(0, 1e300));
    }),
  );
});

describe("refused", () => {
  const column = (name: string, value: unknown): unknown => ({ ...PRICES, columns: { ...COLUMNS, [name]: value } });
  test.each<[string, unknown, string]>([
    ["no map", [1], "a batch is a map"],
    ["more bytes than the limit", { ...BATCH, rawBytes: MAX_BATCH_BYTES + 1 }, "up to 67108864 are taken"],
    ["a negative size", { ...BATCH, rawBytes: -1 }, "bytes came"],
    ["no size", { ...BATCH, rawBytes: null }, "bytes came"],
    ["no message", { ...BATCH, count: 0 }, "it has 1 to 65536"],
    ["too many messages", { ...BATCH, count: 65_537 }, "it has 1 to 65536"],
    ["a count that is no number", { ...BATCH, count: "3" }, "it has 1 to 65536"],
    ["neither messages nor columns", { ...BATCH, messages: null }, "either messages or columns"],
    ["both", { ...BATCH, columns: COLUMNS }, "either messages or columns"],
    ["another count than it holds", { ...BATCH, count: 2 }, "it holds 3"],
    ["no list", { ...BATCH, messages: { a: 1 } }, "it holds no list"],
    ["a list of no payloads", { ...BATCH, messages: [1, 2, 3] }, "expected a map"],
    ["a bin that is not compressed", { ...BATCH, messages: RAW }, "in another form"],
    ["a list that is compressed", { ...BATCH, compression: "gzip" }, "in another form"],
    ["an unknown compression", { ...BATCH, compression: "brotli", messages: RAW }, "knows none, lz4, zstd and gzip"],
    ["damaged compression", { ...BATCH, compression: "gzip", messages: RAW }, "a batch that is not gzip"],
    [
      "another size than it states",
      { ...BATCH, compression: "gzip", rawBytes: RAW.length + 1, messages: new Uint8Array(gzipSync(RAW)) },
      "gzip",
    ],
    ["columns of another type", { ...PRICES, type: "OrderUpdate" }, "reads those of PriceUpdate"],
    ["columns without a type", { ...PRICES, type: undefined }, "reads those of PriceUpdate"],
    ["columns that are no map", { ...PRICES, columns: [1] }, "columns are a map"],
    ["a text that is a number", column("symbol", 5), "the column symbol of a batch of prices is one text"],
    ["another dtype", column("bid", { dtype: "<f4", data: floats([1, 2]) }), "the column bid of 2 prices is <f8"],
    ["another length", column("bid", { dtype: "<f8", data: floats([1]) }), "the column bid of 2 prices is <f8"],
    ["no bytes", column("timestamp", { dtype: "<i8", data: "x" }), "the column timestamp of 2 prices is <i8"],
    ["no column", column("volume", null), "the column volume of 2 prices is <f8"],
  ])("%s", (_, batch, text) => {
    const opened = (): unknown =>
      openPayload({ type: "Batch", data: new Packed(encode(batch)) }, decompress)?.payloads();
    expect(opened).toThrow(MessageError);
    expect(opened).toThrow(text);
  });

  test("what a decompressor gives too much, or throws", () => {
    const batch = { ...BATCH, compression: "lz4", messages: RAW };
    const payload = { type: "Batch", data: batch };
    expect(() => openPayload(payload, () => new Uint8Array(1))).toThrow("is not exactly that");
    const own = new SerializationError("mine");
    const throwing = (error: unknown) => (): never => {
      throw error;
    };
    expect(() => openPayload(payload, throwing(own))).toThrow(own);
    expect(() => openPayload(payload, throwing("odd"))).toThrow("a batch that is not lz4: odd");
  });
});
