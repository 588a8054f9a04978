/** A table as plain typed arrays, one for each column. */

/** The type of a column, as PROTOCOL.md names it (section 6.10). */
export type ColumnType =
  | "bool"
  | "utf8"
  | "float32"
  | "float64"
  | "int8"
  | "int16"
  | "int32"
  | "int64"
  | "uint8"
  | "uint16"
  | "uint32"
  | "uint64"
  | `float64[${number}]`
  | `timestamp[${"s" | "ms" | "us" | "ns"}${string}]`;

/**
 * The values of a column.
 *
 * - `bool` is 1 and 0 in a `Uint8Array`.
 * - A timestamp is milliseconds since the Unix epoch, UTC, as everywhere in this client; microseconds are its fraction.
 * - Integers of 64 bits are bigints.
 * - Text is decoded when it is read.
 * - `float64[16]` has 16 numbers in each row: those of row r are from 16 r up to 16 r + 15.
 *
 * Where a value is null, a float and a timestamp are NaN, others are 0, and text is null; `Table.nulls` tells them apart.
 */
export type ColumnValues =
  | Float64Array
  | Float32Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array
  | TextColumn;

/** A table: its columns by name, each with `rows` values (`float64[16]` with 16 for each row). */
export interface Table {
  readonly rows: number;
  /** The names of the columns, in order. */
  readonly names: readonly string[];
  readonly types: Readonly<Record<string, ColumnType>>;
  readonly columns: Readonly<Record<string, ColumnValues>>;
  /** For each column that has nulls: 1 where the value is null, else 0. */
  readonly nulls: Readonly<Record<string, Uint8Array>>;
  /** The Arrow IPC stream or file that the table was read from; columns may be views of it. */
  readonly ipc: Uint8Array;
}

/** The values of a column of text, which are UTF-8 in one buffer until they are read. */
export class TextColumn implements Iterable<string | null> {
  /** The number of values. */
  readonly length: number;
  /** The UTF-8 of all values, one after the other. */
  readonly bytes: Uint8Array;
  /** The places where each value begins, and where the last one ends. */
  readonly offsets: Float64Array | Int32Array;
  /** 1 where the value is null; absent if none is. */
  readonly nulls: Uint8Array | undefined;

  constructor(bytes: Uint8Array, offsets: Float64Array | Int32Array, nulls?: Uint8Array) {
    this.length = Math.max(0, offsets.length - 1);
    this.bytes = bytes;
    this.offsets = offsets;
    this.nulls = nulls;
  }

  /** Returns the value of a row; null for one that is null, undefined beyond the last. */
  at(row: number): string | null | undefined {
    if (!(row >= 0 && row < this.length)) return undefined;
    if (this.nulls?.[row] === 1) return null;
    return decodeText(this.bytes.subarray(this.offsets[row], this.offsets[row + 1]));
  }

  *[Symbol.iterator](): Iterator<string | null> {
    for (let row = 0; row < this.length; row += 1) yield this.at(row) as string | null;
  }

  /** Returns all values. */
  toArray(): (string | null)[] {
    return [...this];
  }
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** Returns the text of UTF-8. */
export function decodeText(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}
