/**
 * Reads tables: Arrow IPC streams and files, uncompressed, into plain typed arrays without a library.
 *
 * Only the types of columns that PROTOCOL.md names are read. Values stay where they are, as long as they lie at a
 * multiple of their size and belong to one record batch; else they are copied once.
 */

import { SerializationError } from "../core/errors.js";
import { FlatTable } from "./flatbuffer.js";
import { type ColumnType, type ColumnValues, decodeText, type Table, TextColumn } from "./table.js";

export { type ColumnType, type ColumnValues, type Table, TextColumn } from "./table.js";

const MAGIC = "ARROW1";
const CONTINUATION = 0xffffffff;
/** Bytes before a message: its mark, and its length. */
const MARK = 8;
/** The kinds of a message, and the fields of the tables Message, Footer, Schema, Field and RecordBatch by their numbers. */
const [SCHEMA, RECORD_BATCH] = [1, 3];
const [HEADER_TYPE, HEADER, BODY_LENGTH] = [1, 2, 3];
const [FOOTER_SCHEMA, FOOTER_BATCHES] = [1, 3];
const [ENDIANNESS, FIELDS] = [0, 1];
const [NAME, TYPE_TYPE, TYPE, DICTIONARY, CHILDREN] = [0, 2, 3, 4, 5];
const [LENGTH, NODES, BUFFERS, COMPRESSION] = [0, 1, 2, 3];
/** Arrow's types by their numbers. */
const [INT, FLOAT, UTF8, BOOL, TIMESTAMP, FIXED_SIZE_LIST, LARGE_UTF8] = [2, 3, 5, 6, 10, 16, 20];
const UNITS = ["s", "ms", "us", "ns"] as const;
/** Milliseconds in a unit, or how many of it are a millisecond: both exact, so that no time is off by a rounding. */
const TO_MS: Record<string, readonly [times: number, per: number]> = {
  s: [1000, 1],
  ms: [1, 1],
  us: [1, 1000],
  ns: [1, 1_000_000],
};

interface Field {
  readonly name: string;
  readonly type: ColumnType;
  /** Bytes of an offset: 4 of text, 8 of large text. */
  readonly offsetBytes: number;
  /** The values of a row: 1, and more for a list of a fixed size. */
  readonly width: number;
}

/** The part of a column that one record batch has. */
interface Part {
  readonly rows: number;
  readonly nullCount: number;
  readonly buffers: readonly Uint8Array[];
  /** The values of lists of a fixed size. */
  readonly listed?: Part;
}

/**
 * Returns the table of an Arrow IPC stream or file.
 *
 * Columns may be views of `bytes`, which therefore must not be changed afterwards. Throws `SerializationError` for data
 * that are damaged, compressed, or have columns of other types.
 */
export function decodeTable(bytes: Uint8Array): Table {
  return refusing(() => decoded(bytes));
}

/** Returns the rows of several Arrow IPC streams with the same columns as one table. Throws `SerializationError`. */
export function decodeTogether(streams: readonly Uint8Array[]): Table {
  return refusing(() => decoded(streams.length === 1 ? (streams[0] as Uint8Array) : joinedStreams(streams)));
}

function refusing(decode: () => Table): Table {
  try {
    return decode();
  } catch (error) {
    if (error instanceof SerializationError) throw error;
    throw new SerializationError(`it is no Arrow IPC stream or file: ${(error as Error).message}`, null, {
      cause: error,
    });
  }
}

function decoded(bytes: Uint8Array): Table {
  const { schema, batches } = isFile(bytes) ? ofFile(bytes) : ofStream(bytes);
  const fields = fieldsOf(schema);
  const parts: Part[][] = fields.map(() => []);
  let rows = 0;
  for (const { kind, header, body } of batches) {
    if (kind !== RECORD_BATCH) throw new RangeError(`a message of the kind ${kind}`);
    rows += takeBatch(header, body, fields, parts);
  }
  return tableOf(fields, parts, rows, bytes);
}

/** A message, and what it is about: a flatbuffer, and the bytes of columns. */
interface Message {
  readonly kind: number;
  readonly header: FlatTable;
  readonly body: Uint8Array;
  /** The place of the next message. */
  readonly end: number;
}

interface Content {
  readonly schema: FlatTable;
  readonly batches: Iterable<Message>;
}

function isFile(bytes: Uint8Array): boolean {
  return decodeText(bytes.subarray(0, MAGIC.length)) === MAGIC;
}

/** Finds the messages of a file by its footer; polars writes the schema at its beginning without a mark. */
function ofFile(bytes: Uint8Array): Content {
  const end = bytes.length - MAGIC.length - 4;
  if (end < MAGIC.length || !isFile(bytes.subarray(end + 4))) throw new RangeError("it does not end as an Arrow file");
  const length = new DataView(bytes.buffer, bytes.byteOffset + end, 4).getInt32(0, true);
  if (length <= 0 || length > end) throw new RangeError("its footer reaches beyond it");
  const footer = FlatTable.root(new DataView(bytes.buffer, bytes.byteOffset + end - length, length));
  const batches = footer.blocks(FOOTER_BATCHES).map((at) => messageAt(bytes, at) ?? wrong("an empty message"));
  return { schema: footer.table(FOOTER_SCHEMA), batches };
}

function ofStream(bytes: Uint8Array): Content {
  const first = messageAt(bytes, 0);
  if (first?.kind !== SCHEMA) throw new RangeError("it has no schema");
  return { schema: first.header, batches: messagesFrom(bytes, first.end) };
}

/** Returns streams as one: the schema of the first, and the batches of all. */
function joinedStreams(streams: readonly Uint8Array[]): Uint8Array {
  let columns: string | undefined;
  const parts = streams.map((bytes, index) => {
    const { schema, batches } = ofStream(bytes);
    const own = JSON.stringify(fieldsOf(schema));
    columns ??= own;
    if (own !== columns) throw new RangeError("its parts have other columns");
    const start = messageAt(bytes, 0)?.end as number;
    let end = start;
    for (const batch of batches) end = batch.end;
    return bytes.subarray(index === 0 ? 0 : start, end);
  });
  const mark = new Uint8Array(MARK).fill(0xff, 0, 4); // the end of a stream
  return joined(
    [...parts, mark],
    parts.reduce((size, part) => size + part.length, MARK),
  );
}

function* messagesFrom(bytes: Uint8Array, start: number): Generator<Message> {
  for (let at = start; at < bytes.length; ) {
    const message = messageAt(bytes, at);
    if (message === undefined) return;
    yield message;
    at = message.end;
  }
}

/** Returns the message at a place, or undefined for the mark of the end. */
function messageAt(bytes: Uint8Array, at: number): Message | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(at, true) !== CONTINUATION) throw new RangeError("a message without its mark");
  const length = view.getInt32(at + 4, true);
  if (length === 0) return undefined;
  const start = at + MARK;
  if (length < 0 || start + length > bytes.length) throw new RangeError("a message reaches beyond its end");
  const message = FlatTable.root(new DataView(bytes.buffer, bytes.byteOffset + start, length));
  const end = start + length + message.size(BODY_LENGTH);
  if (end > bytes.length) throw new RangeError("a message reaches beyond its end");
  const body = bytes.subarray(start + length, end);
  return { kind: message.byte(HEADER_TYPE), header: message.table(HEADER), body, end };
}

function wrong(what: string): never {
  throw new RangeError(what);
}

function fieldsOf(schema: FlatTable): Field[] {
  if (schema.short(ENDIANNESS) !== 0) throw new RangeError("it is big-endian");
  return schema.tables(FIELDS).map((field) => {
    const name = decodeText(field.text(NAME));
    const kind = field.byte(TYPE_TYPE);
    const type = field.has(DICTIONARY) ? undefined : typeOf(kind, field);
    if (type === undefined) throw new SerializationError(`the column ${name} has a type that is not known (${kind})`);
    const width = kind === FIXED_SIZE_LIST ? field.table(TYPE).int(0) : 1;
    return { name, type, offsetBytes: kind === LARGE_UTF8 ? 8 : 4, width };
  });
}

function typeOf(kind: number, field: FlatTable): ColumnType | undefined {
  switch (kind) {
    case BOOL:
      return "bool";
    case UTF8:
    case LARGE_UTF8:
      return "utf8";
    case INT: {
      const type = field.table(TYPE);
      const bits = type.int(0) as 8 | 16 | 32 | 64;
      return [8, 16, 32, 64].includes(bits) ? `${type.byte(1) === 1 ? "" : "u"}int${bits}` : undefined;
    }
    case FLOAT:
      return ([undefined, "float32", "float64"] as const)[field.table(TYPE).short(0)];
    case TIMESTAMP: {
      const type = field.table(TYPE);
      const unit = UNITS[type.short(0)];
      const zone = decodeText(type.text(1));
      return unit && `timestamp[${unit}${zone === "" ? "" : `, ${zone}`}]`;
    }
    case FIXED_SIZE_LIST: {
      const [values] = field.tables(CHILDREN);
      const isPlain = values !== undefined && values.byte(TYPE_TYPE) === FLOAT && !values.has(DICTIONARY);
      return isPlain && typeOf(FLOAT, values) === "float64" ? `float64[${field.table(TYPE).int(0)}]` : undefined;
    }
    default:
      return undefined;
  }
}

/** Adds the part that a record batch has of each column, and returns its rows. */
function takeBatch(batch: FlatTable, body: Uint8Array, fields: readonly Field[], parts: Part[][]): number {
  if (batch.has(COMPRESSION)) throw new RangeError("it is compressed");
  const rows = batch.size(LENGTH);
  const nodes = batch.pairs(NODES);
  const buffers = batch.pairs(BUFFERS);
  let [node, next] = [0, 0];
  function part(expected: number, count: number): Part {
    const [length, nullCount] = nodes[node] ?? [];
    if (length !== expected || nullCount === undefined) throw new RangeError("a column has another number of rows");
    const own = buffers.slice(next, next + count);
    node += 1;
    next += own.length;
    const found = own.map(([offset, size]) => {
      if (offset + size > body.length) throw new RangeError("a column reaches beyond its end");
      return body.subarray(offset, offset + size);
    });
    return { rows: expected, nullCount, buffers: found };
  }
  for (const [index, field] of fields.entries()) {
    const isListed = field.type.startsWith("float64[");
    const own = part(rows, field.type === "utf8" ? 3 : isListed ? 1 : 2);
    (parts[index] as Part[]).push(isListed ? { ...own, listed: part(rows * field.width, 2) } : own);
  }
  if (next !== buffers.length || node !== nodes.length) throw new RangeError("it has columns that are not named");
  return rows;
}

function tableOf(fields: readonly Field[], parts: readonly Part[][], rows: number, ipc: Uint8Array): Table {
  // Without a prototype, so that a column may have any name.
  const types: Record<string, ColumnType> = Object.create(null);
  const columns: Record<string, ColumnValues> = Object.create(null);
  const nulls: Record<string, Uint8Array> = Object.create(null);
  for (const [index, field] of fields.entries()) {
    const ofColumn = parts[index] as Part[];
    const missing = nullsOf(ofColumn, rows);
    if (missing !== undefined) nulls[field.name] = missing;
    types[field.name] = field.type;
    columns[field.name] = valuesOf(field, ofColumn, rows, missing);
  }
  return { rows, names: fields.map((one) => one.name), types, columns, nulls, ipc };
}

function nullsOf(parts: readonly Part[], rows: number): Uint8Array | undefined {
  if (parts.every((part) => part.nullCount === 0)) return undefined;
  const nulls = new Uint8Array(rows);
  let row = 0;
  for (const part of parts) {
    if (part.nullCount > 0) {
      const validity = bits(part, 0);
      for (let index = 0; index < part.rows; index += 1) {
        nulls[row + index] = ((validity[index >> 3] as number) >> (index & 7)) & 1 ? 0 : 1;
      }
    }
    row += part.rows;
  }
  return nulls;
}

function bits(part: Part, buffer: number): Uint8Array {
  const found = part.buffers[buffer] as Uint8Array;
  if (found.length * 8 < part.rows) throw new RangeError("a column has too few bits");
  return found;
}

const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
} as const;

function valuesOf(field: Field, parts: readonly Part[], rows: number, nulls: Uint8Array | undefined): ColumnValues {
  const { type } = field;
  if (type === "utf8") return textOf(field, parts, rows, nulls);
  if (type === "bool") return booleansOf(parts, rows, nulls);
  if (type.startsWith("timestamp")) return timesOf(type, parts, rows, nulls);
  if (type.startsWith("float64[")) return listsOf(field, parts, rows, nulls);
  const values = numbersOf(ARRAYS[type as keyof typeof ARRAYS], parts, rows, nulls !== undefined);
  if (nulls !== undefined) {
    const empty = type.startsWith("float") ? Number.NaN : type.endsWith("64") ? 0n : 0;
    for (let row = 0; row < rows; row += 1) if (nulls[row] === 1) (values as unknown[])[row] = empty;
  }
  return values as ColumnValues;
}

/** Returns the values of lists of a fixed size, one list after the other; those of a list that is null are NaN. */
function listsOf(field: Field, parts: readonly Part[], rows: number, nulls: Uint8Array | undefined): ColumnValues {
  const { width } = field;
  const listed = parts.map((part) => part.listed as Part);
  for (const part of listed) {
    if ((part.buffers[1] as Uint8Array).length < part.rows * 8) throw new RangeError("a column has too few values");
  }
  let missing = nullsOf(listed, rows * width);
  if (nulls !== undefined) {
    missing ??= new Uint8Array(rows * width);
    for (let row = 0; row < rows; row += 1) if (nulls[row] === 1) missing.fill(1, row * width, (row + 1) * width);
  }
  return valuesOf({ ...field, type: "float64" }, listed, rows * width, missing);
}

interface ArrayType {
  readonly BYTES_PER_ELEMENT: number;
  new (length: number): ArrayLike<unknown> & { set(values: ArrayLike<unknown>, at: number): void };
  new (
    buffer: ArrayBufferLike,
    at: number,
    length: number,
  ): ArrayLike<unknown> & { set(values: ArrayLike<unknown>, at: number): void };
}

/** Returns the numbers of a column, in place if that can be. `mustCopy`: they will be changed. */
function numbersOf(kind: unknown, parts: readonly Part[], rows: number, mustCopy: boolean): ArrayLike<unknown> {
  const Kind = kind as ArrayType;
  const size = Kind.BYTES_PER_ELEMENT;
  const found = parts.map((part) => {
    const bytes = part.buffers[1] as Uint8Array;
    if (bytes.length < part.rows * size) throw new RangeError("a column has too few values");
    if (bytes.byteOffset % size === 0) return new Kind(bytes.buffer, bytes.byteOffset, part.rows);
    return new Kind(bytes.slice(0, part.rows * size).buffer, 0, part.rows);
  });
  if (found.length === 1 && !mustCopy) return found[0] as ArrayLike<unknown>;
  const values = new Kind(rows);
  let row = 0;
  for (const one of found) {
    values.set(one, row);
    row += one.length;
  }
  return values;
}

function booleansOf(parts: readonly Part[], rows: number, nulls: Uint8Array | undefined): Uint8Array {
  const values = new Uint8Array(rows);
  let row = 0;
  for (const part of parts) {
    const found = bits(part, 1);
    for (let index = 0; index < part.rows; index += 1, row += 1) {
      values[row] = nulls?.[row] === 1 ? 0 : ((found[index >> 3] as number) >> (index & 7)) & 1;
    }
  }
  return values;
}

/** Returns times in milliseconds, made of two halves of 32 bits: a bigint for each of a million takes 55 to 110 ms. */
function timesOf(type: string, parts: readonly Part[], rows: number, nulls: Uint8Array | undefined): Float64Array {
  const [times, per] = TO_MS[type.slice("timestamp[".length).split(/[,\]]/, 1)[0] as string] ?? [1, 1];
  const values = new Float64Array(rows);
  let row = 0;
  for (const part of parts) {
    const [low, high] = halves(part);
    for (let index = 0; index < part.rows; index += 1, row += 1) {
      values[row] = (((high[2 * index + 1] as number) * 2 ** 32 + (low[2 * index] as number)) * times) / per;
    }
  }
  if (nulls !== undefined) for (let at = 0; at < rows; at += 1) if (nulls[at] === 1) values[at] = Number.NaN;
  return values;
}

function halves(part: Part): [low: Uint32Array, high: Int32Array] {
  const found = part.buffers[1] as Uint8Array;
  if (found.length < part.rows * 8) throw new RangeError("a column has too few values");
  const bytes = found.byteOffset % 4 === 0 ? found : found.slice(0, part.rows * 8);
  const { buffer, byteOffset } = bytes;
  return [new Uint32Array(buffer, byteOffset, 2 * part.rows), new Int32Array(buffer, byteOffset, 2 * part.rows)];
}

function textOf(field: Field, parts: readonly Part[], rows: number, nulls: Uint8Array | undefined): TextColumn {
  const offsets = new Float64Array(rows + 1);
  const chunks: Uint8Array[] = [];
  let [row, end] = [0, 0];
  for (const part of parts) {
    const [found, content] = [part.buffers[1] as Uint8Array, part.buffers[2] as Uint8Array];
    if (part.rows > 0 && found.length < (part.rows + 1) * field.offsetBytes) throw new RangeError("too few offsets");
    const view = new DataView(found.buffer, found.byteOffset, found.byteLength);
    let last = 0;
    for (let index = 0; part.rows > 0 && index <= part.rows; index += 1) {
      const low = view.getUint32(index * field.offsetBytes, true);
      const high = field.offsetBytes === 8 ? view.getUint32(index * 8 + 4, true) : 0;
      const offset = high * 2 ** 32 + low;
      if (offset < last || offset > content.length) throw new RangeError("a text reaches beyond its end");
      last = offset;
      offsets[row + index] = end + offset;
    }
    chunks.push(content.subarray(0, last));
    row += part.rows;
    end += last;
  }
  return new TextColumn(chunks.length === 1 ? (chunks[0] as Uint8Array) : joined(chunks, end), offsets, nulls);
}

function joined(chunks: readonly Uint8Array[], size: number): Uint8Array {
  const whole = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}
