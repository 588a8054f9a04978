import { type Table, TextColumn } from "@backtestr/client/page";
import { expect, test } from "vitest";
import { arrowOf, csvOf, isoTime } from "../../renderer/src/screens/data/export-bars";
import { sampleFile } from "../../renderer/src/screens/data/sample";

const encoder = new TextEncoder();

function texts(...values: string[]): TextColumn {
  const bytes = encoder.encode(values.join(""));
  let end = 0;
  const offsets = [0, ...values.map((one) => (end += encoder.encode(one).length))];
  return new TextColumn(bytes, Int32Array.from(offsets));
}

const TABLE: Table = {
  rows: 2,
  names: ["timestamp", "bid", "volume", "note"],
  types: { timestamp: "timestamp[us, UTC]", bid: "float64", volume: "float64", note: "utf8" },
  columns: {
    timestamp: Float64Array.of(1_704_067_200_000, 1_704_067_200_000.125),
    bid: Float64Array.of(1.1, 0.00001234),
    volume: Float64Array.of(Number.NaN, 5),
    note: texts("plain", 'a "b", c'),
  },
  nulls: { volume: Uint8Array.of(1, 0) },
  ipc: Uint8Array.of(1, 2, 3),
};

test("a table becomes CSV with every digit of its times and numbers", async () => {
  const shares: number[] = [];
  const text = await (await csvOf(TABLE, (share) => shares.push(share))).text();
  expect(text.split("\n")).toEqual([
    "timestamp,bid,volume,note",
    "2024-01-01T00:00:00Z,1.1,,plain",
    '2024-01-01T00:00:00.000125Z,0.00001234,5,"a ""b"", c"',
    "",
  ]);
  expect(shares).toEqual([1]);
});

test("Arrow is what the broker has sent", async () => {
  expect(new Uint8Array(await arrowOf(TABLE).arrayBuffer())).toEqual(TABLE.ipc);
});

test("times have the digits that they need", () => {
  expect([isoTime(0), isoTime(1), isoTime(-0.5), isoTime(1_000.001)]).toEqual([
    "1970-01-01T00:00:00Z",
    "1970-01-01T00:00:00.001Z",
    "1969-12-31T23:59:59.999500Z",
    "1970-01-01T00:00:01.000001Z",
  ]);
});

test("the sample is the same each time, and has sound bars", async () => {
  const [one, other] = await Promise.all([sampleFile().text(), sampleFile().text()]);
  expect(one).toBe(other);
  const rows = one.trim().split("\n").slice(1);
  expect(rows.length).toBe(6_000);
  for (const row of rows) {
    const [open = 0, high = 0, low = 0, close = 0] = row.split(",").slice(1).map(Number);
    expect(high).toBeGreaterThanOrEqual(Math.max(open, close));
    expect(low).toBeLessThanOrEqual(Math.min(open, close));
    expect(low).toBeGreaterThan(0);
  }
});
