/** Tables that polars has written, against what apache-arrow reads of the same bytes, and damaged ones. */

import { execFileSync } from "node:child_process";
import { resolve } from "node:path";
import { Vector } from "apache-arrow";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { toArrow } from "../../src/arrow.js";
import { SerializationError } from "../../src/core/errors.js";
import { decodeTable, decodeTogether, type Table, TextColumn } from "../../src/tables/index.js";

const PYTHON = resolve(import.meta.dirname, "../../../../.venv/bin/python");

/** Tables as the engine writes them: as a stream and a file, without nulls, with nulls, empty, and in several batches. */
const SCRIPT = `
import base64, datetime, io, json, sys
import polars as pl
UTC = datetime.timezone.utc
whole = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
def made(rows, with_nulls):
    def of(values):
        return [None if with_nulls and at % 3 == 1 else values(at) for at in range(rows)]
    columns = {
        "timestamp": pl.Series(of(lambda at: datetime.datetime(1969, 12, 31, 23, 59, 59, 999_000 + at % 999, UTC) + datetime.timedelta(days=at * 97)), dtype=pl.Datetime("us", "UTC")),
        "open": pl.Series(of(lambda at: at / 7), dtype=pl.Float64),
        "small": pl.Series(of(lambda at: at / 4), dtype=pl.Float32),
        "side": pl.Series(of(lambda at: ["buy", "", "sell 買う", "\\ufeff😀"][at % 4]), dtype=pl.String),
        "entries": pl.Series(of(lambda at: at % 5 < 2), dtype=pl.Boolean),
        "__proto__": pl.Series(of(lambda at: float(at)), dtype=pl.Float64),
        "7": pl.Series(of(lambda at: float(at)), dtype=pl.Float64),
        "sums": pl.Series(of(lambda at: [at / 3, None if with_nulls and at % 5 == 2 else 0.5, -at]), dtype=pl.Array(pl.Float64, 3)),
        "seconds": pl.Series(of(lambda at: datetime.datetime(2020, 1, 1) + datetime.timedelta(milliseconds=at)), dtype=pl.Datetime("ms")),
    }
    for name in whole:
        kind = getattr(pl, name)
        low, high = pl.select(kind.min()).item(), pl.select(kind.max()).item()
        columns[name] = pl.Series(of(lambda at: [low, 0, high, 1][at % 4]), dtype=kind)
    return pl.DataFrame(columns)
oldest = pl.CompatLevel.oldest()
found = {}
for name, frame in {
    "plain": made(1000, False), "nulls": made(1000, True), "empty": made(0, False), "one": made(1, False),
    "all null": made(2, True)[1:],
    "sliced": made(1003, True)[3:],
    "batches": pl.concat([made(10, False), made(7, True), made(64, True)], rechunk=False),
}.items():
    stream, file = io.BytesIO(), io.BytesIO()
    frame.write_ipc_stream(stream, compression="uncompressed", compat_level=oldest)
    frame.write_ipc(file, compression="uncompressed", compat_level=oldest)
    found[name] = [base64.b64encode(one.getvalue()).decode() for one in (stream, file)]
packed = io.BytesIO()
made(1000, False).write_ipc_stream(packed, compression="zstd", compat_level=oldest)
found["compressed"] = [base64.b64encode(packed.getvalue()).decode()]
views = io.BytesIO()
made(10, False).write_ipc_stream(views, compression="uncompressed")
lists = io.BytesIO()
pl.DataFrame({"sums": [[1.0], [2.0, 3.0]]}).write_ipc_stream(lists, compression="uncompressed", compat_level=oldest)
found["lists of many lengths"] = [base64.b64encode(lists.getvalue()).decode()]
found["views"] = [base64.b64encode(views.getvalue()).decode()]
json.dump(found, sys.stdout)
`;

let files: Map<string, Uint8Array[]>;

beforeAll(() => {
  const output = execFileSync(PYTHON, ["-c", SCRIPT], { encoding: "utf8", maxBuffer: 2 ** 28 });
  const found = Object.entries(JSON.parse(output) as Record<string, string[]>);
  files = new Map(
    found.map(([name, texts]) => [name, texts.map((text) => Uint8Array.from(Buffer.from(text, "base64")))]),
  );
});

const NAMES = ["plain", "nulls", "empty", "one", "all null", "sliced", "batches"];

/** A value as this reader gives it. */
function cell(table: Table, name: string, row: number): unknown {
  const column = table.columns[name];
  if (table.nulls[name]?.[row] === 1) return null;
  if (table.types[name] === "float64[3]") return Array.from((column as Float64Array).slice(3 * row, 3 * row + 3));
  const value = column instanceof TextColumn ? column.at(row) : column?.[row];
  return table.types[name] === "bool" ? value === 1 : value;
}

/** A value as apache-arrow gives it; times in milliseconds. */
function expectedCell(table: ReturnType<typeof toArrow>, name: string, row: number): unknown {
  const column = table.getChildAt(table.schema.fields.findIndex((field) => field.name === name));
  const value: unknown = column?.get(row);
  if (!(value instanceof Vector)) return value;
  return Array.from(value as Iterable<number | null>, (one) => one ?? Number.NaN);
}

describe.each(NAMES)("a table that is %s", (name) => {
  it.each([
    ["a stream", 0, 0],
    ["a file", 1, 0],
    ["a stream at an odd place", 0, 3],
    ["a file at a multiple of 4", 1, 4],
  ])("reads as apache-arrow reads it: %s", (_what, which, shift) => {
    const source = files.get(name)?.[which] as Uint8Array;
    const whole = new Uint8Array(source.length + shift);
    whole.set(source, shift);
    const table = decodeTable(whole.subarray(shift));
    const expected = toArrow(decodeTable(Uint8Array.from(source)));
    expect(table.rows).toBe(expected.numRows);
    expect(table.names).toEqual(expected.schema.fields.map((field) => field.name));
    for (const column of table.names) {
      for (let row = 0; row < table.rows; row += 1) {
        const found = cell(table, column, row);
        // apache-arrow loses a byte order mark.
        const comparable = typeof found === "string" ? found.replace("\ufeff", "") : found;
        expect(comparable, `${column} ${row}`).toEqual(expectedCell(expected, column, row));
      }
    }
  });

  it("says the same as a stream and as a file", () => {
    const [stream, file] = (files.get(name) as Uint8Array[]).map(decodeTable) as [Table, Table];
    const { ipc: _, ...content } = stream;
    expect({ ...file, ipc: undefined }).toEqual({ ...content, ipc: undefined });
  });
});

it("gives numbers of one batch without a copy", () => {
  const bytes = Uint8Array.from(files.get("plain")?.[1] as Uint8Array);
  const { columns } = decodeTable(bytes);
  expect((columns.open as Float64Array).buffer).toBe(bytes.buffer);
});

it("names types as PROTOCOL.md does", () => {
  const { types } = decodeTable(files.get("plain")?.[0] as Uint8Array);
  expect(types).toMatchObject({ timestamp: "timestamp[us, UTC]", side: "utf8", entries: "bool", UInt16: "uint16" });
  expect([types.seconds, types.sums]).toEqual(["timestamp[ms]", "float64[3]"]);
});

it("has NaN and null where a value is null", () => {
  const { columns, nulls } = decodeTable(files.get("nulls")?.[0] as Uint8Array);
  expect(nulls.open?.[1]).toBe(1);
  expect((columns.open as Float64Array)[1]).toBeNaN();
  expect((columns.sums as Float64Array).slice(3, 9)).toEqual(Float64Array.of(NaN, NaN, NaN, 2 / 3, NaN, -2));
  expect([nulls.sums?.[1], nulls.sums?.[2]]).toEqual([1, 0]);
  expect((columns.timestamp as Float64Array)[1]).toBeNaN();
  expect((columns.side as TextColumn).toArray().slice(0, 4)).toEqual(["buy", null, "sell 買う", "\ufeff😀"]);
  expect((columns.side as TextColumn).at(5000)).toBeUndefined();
});

it("joins streams with the same columns", () => {
  const [plain, nulls] = ["plain", "nulls"].map((name) => files.get(name)?.[0] as Uint8Array) as [
    Uint8Array,
    Uint8Array,
  ];
  const [first, second] = [decodeTable(plain), decodeTable(nulls)];
  const both = decodeTogether([plain, nulls, files.get("empty")?.[0] as Uint8Array]);
  expect([both.rows, both.names]).toEqual([first.rows + second.rows, first.names]);
  for (const name of both.names) {
    for (const row of [0, 1, 2, 998, 999]) {
      expect(cell(both, name, row), name).toEqual(cell(first, name, row));
      expect(cell(both, name, first.rows + row), name).toEqual(cell(second, name, row));
    }
  }
  const arrow = toArrow(both);
  expect([arrow.numRows, arrow.getChild("side")?.get(1998)]).toEqual([
    2000,
    (second.columns.side as TextColumn).at(998),
  ]);
  const others = files.get("lists of many lengths")?.[0] as Uint8Array;
  expect(() => decodeTogether([plain, others])).toThrow(SerializationError);
  expect(() => decodeTogether([plain, files.get("plain")?.[1] as Uint8Array])).toThrow(SerializationError);
});

it.each(["compressed", "views", "lists of many lengths"])("refuses what is %s", (name) => {
  expect(() => decodeTable(files.get(name)?.[0] as Uint8Array)).toThrow(SerializationError);
});

it("refuses what is no Arrow, and what ends too early", () => {
  const [stream, file] = files.get("nulls") as [Uint8Array, Uint8Array];
  for (const bytes of [new Uint8Array(0), Buffer.from("PAR1"), new Uint8Array(100), Buffer.from("ARROW1")]) {
    expect(() => decodeTable(bytes)).toThrow(SerializationError);
  }
  for (const whole of [stream, file]) {
    for (const end of [4, 9, 100, 500, whole.length >> 1]) {
      expect(() => decodeTable(whole.subarray(0, end))).toThrow(SerializationError);
    }
  }
});

it("raises nothing but SerializationError for any change of its bytes", () => {
  for (const whole of files.get("batches") as Uint8Array[]) {
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const damaged = Uint8Array.from(whole);
        damaged[at] = (damaged[at] as number) ^ change;
        try {
          const table = decodeTable(damaged);
          for (const name of table.names) cell(table, name, table.rows - 1);
        } catch (error) {
          if (!(error instanceof SerializationError)) throw error;
        }
      }),
      { numRuns: 400 },
    );
  }
});
