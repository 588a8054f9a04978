/** Columns of numbers on the wire (PROTOCOL.md, section 9) as typed arrays. */

import type { Column } from "../generated/contracts.js";
import { isMap, shown } from "./codec.js";
import { SerializationError } from "./errors.js";

/** The bytes of a value, whichever its type. */
export const VALUE_BYTES = 8;

// Arrays have the byte order of the machine, and the wire is little-endian.
const IS_LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Returns the numbers of a column: a copy, since its bytes are a part of a message. */
export function numbersOf({ dtype, data }: Column): Float64Array {
  return dtype === "<f8" ? floats(data) : wholes(data);
}

/** Returns columns by name, each as numbers. Raises a `SerializationError` unless all are columns of one length. */
export function columnsByName(columns: unknown, what: string): { readonly [name: string]: Float64Array } {
  if (!isMap(columns)) throw new SerializationError(`${what} are a map of columns; ${shown(columns)} came`);
  let length: number | undefined;
  const found = Object.entries(columns).map(([name, column]): [string, Float64Array] => {
    const numbers = isColumn(column) ? numbersOf(column) : undefined;
    length ??= numbers?.length;
    if (numbers !== undefined && numbers.length === length) return [name, numbers];
    const came = isMap(column) ? `${shown(column.dtype)} in ${shown(column.data)}` : shown(column);
    throw new SerializationError(`the column ${name} of ${what} is numbers, as many as in the others; ${came} came`);
  });
  return Object.fromEntries(found);
}

function isColumn(value: unknown): value is Column {
  if (!isMap(value) || (value.dtype !== "<f8" && value.dtype !== "<i8")) return false;
  return value.data instanceof Uint8Array && value.data.length % VALUE_BYTES === 0;
}

function floats(data: Uint8Array): Float64Array {
  if (IS_LITTLE_ENDIAN) return new Float64Array(data.slice().buffer);
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  return Float64Array.from({ length: data.length / VALUE_BYTES }, (_, index) =>
    view.getFloat64(VALUE_BYTES * index, true),
  );
}

/** Returns int64 as numbers: times in milliseconds and cells are far below 2^53. */
function wholes(data: Uint8Array): Float64Array {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const numbers = new Float64Array(data.length / VALUE_BYTES);
  for (let index = 0; index < numbers.length; index += 1) {
    const at = VALUE_BYTES * index;
    numbers[index] = view.getInt32(at + 4, true) * 4_294_967_296 + view.getUint32(at, true);
  }
  return numbers;
}
