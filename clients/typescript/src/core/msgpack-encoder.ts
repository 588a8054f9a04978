/**
 * Encodes values as MessagePack, with every integer and length in its shortest encoding and floats as float64.
 *
 * A whole number is an integer up to 2^53, beyond that a float64; a bigint is an integer of 64 bits. A field that is
 * undefined is left out. What has no form on the wire raises a `TypeError` that names its path.
 */

import { utf8Length, writeUtf8 } from "./utf8.js";

/** MessagePack that is encoded already, and is taken over as it is. */
export class Packed {
  readonly bytes: Uint8Array;

  /** Takes the bytes of one value. */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
}

/** A value of an extension type of MessagePack; -1 is a timestamp. */
export class Extension {
  readonly type: number;
  readonly data: Uint8Array;

  /** `type` is from -128 to 127. */
  constructor(type: number, data: Uint8Array) {
    this.type = type;
    this.data = data;
  }
}

/** Lists and maps within each other, as far as they are taken and given. */
export const MAX_DEPTH = 512;

const MIN_INT64 = -(2n ** 63n);
const MAX_UINT64 = 2n ** 64n - 1n;
// Bytes of the buffer that is used again and again; a larger message grows one of its own.
const SHARED_BYTES = 16_384;
// Texts of up to so many units are tried as ASCII first.
const SHORT_UNITS = 48;
const TWO_32 = 4_294_967_296;

class Writer {
  bytes = new Uint8Array(SHARED_BYTES);
  view = new DataView(this.bytes.buffer);
  at = 0;
  isSorted = false;

  /** Makes room for `count` more bytes, and returns where they begin. */
  room(count: number): number {
    const begin = this.at;
    if (begin + count > this.bytes.length) {
      const grown = new Uint8Array(Math.max(2 * this.bytes.length, begin + count));
      grown.set(this.bytes.subarray(0, begin));
      this.bytes = grown;
      this.view = new DataView(grown.buffer);
    }
    this.at = begin + count;
    return begin;
  }

  /** Gives the memory of a large message back. */
  shrink(): void {
    this.bytes = new Uint8Array(SHARED_BYTES);
    this.view = new DataView(this.bytes.buffer);
  }

  byte(value: number): void {
    const begin = this.room(1);
    this.bytes[begin] = value;
  }

  raw(bytes: Uint8Array): void {
    const begin = this.room(bytes.length);
    this.bytes.set(bytes, begin);
  }

  /** Writes the head of a text, bin, list or map; `short` codes have the length in the code itself. */
  head(length: number, short: number, shortMost: number, code8: number, code16: number): void {
    if (length <= shortMost) {
      this.byte(short | length);
    } else if (length < 0x100 && code8 !== 0) {
      const begin = this.room(2);
      this.view.setUint16(begin, (code8 << 8) | length);
    } else if (length < 0x10000) {
      const begin = this.room(3);
      this.bytes[begin] = code16;
      this.view.setUint16(begin + 1, length);
    } else {
      const begin = this.room(5);
      this.bytes[begin] = code16 + 1;
      this.view.setUint32(begin + 1, length);
    }
  }

  value(value: unknown, depth: number): void {
    switch (typeof value) {
      case "string":
        this.text(value);
        break;
      case "number":
        this.number(value);
        break;
      case "boolean":
        this.byte(value ? 0xc3 : 0xc2);
        break;
      case "bigint":
        this.bigint(value);
        break;
      case "object":
        if (value === null) this.byte(0xc0);
        else this.object(value, depth);
        break;
      default:
        throw new TypeError(`a value of the type ${typeof value} cannot be sent`);
    }
  }

  number(value: number): void {
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      const begin = this.room(9);
      this.bytes[begin] = 0xcb;
      this.view.setFloat64(begin + 1, value);
    } else if (value >= 0) {
      this.unsigned(value);
    } else {
      this.negative(value);
    }
  }

  unsigned(value: number): void {
    if (value < 0x80) {
      this.byte(value);
    } else if (value < 0x100) {
      const begin = this.room(2);
      this.view.setUint16(begin, 0xcc00 | value);
    } else if (value < 0x10000) {
      const begin = this.room(3);
      this.bytes[begin] = 0xcd;
      this.view.setUint16(begin + 1, value);
    } else if (value < TWO_32) {
      const begin = this.room(5);
      this.bytes[begin] = 0xce;
      this.view.setUint32(begin + 1, value);
    } else {
      const begin = this.room(9);
      this.bytes[begin] = 0xcf;
      this.view.setUint32(begin + 1, Math.floor(value / TWO_32));
      this.view.setUint32(begin + 5, value % TWO_32);
    }
  }

  negative(value: number): void {
    if (value >= -0x20) {
      this.byte(value & 0xff);
    } else if (value >= -0x80) {
      const begin = this.room(2);
      this.bytes[begin] = 0xd0;
      this.view.setInt8(begin + 1, value);
    } else if (value >= -0x8000) {
      const begin = this.room(3);
      this.bytes[begin] = 0xd1;
      this.view.setInt16(begin + 1, value);
    } else if (value >= -0x80000000) {
      const begin = this.room(5);
      this.bytes[begin] = 0xd2;
      this.view.setInt32(begin + 1, value);
    } else {
      const begin = this.room(9);
      this.bytes[begin] = 0xd3;
      this.view.setBigInt64(begin + 1, BigInt(value));
    }
  }

  bigint(value: bigint): void {
    if (value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER)) {
      this.number(Number(value));
      return;
    }
    if (value < MIN_INT64 || value > MAX_UINT64) {
      throw new TypeError(`${value} is beyond the 64 bits of an integer`);
    }
    const begin = this.room(9);
    this.bytes[begin] = value > 0n ? 0xcf : 0xd3;
    if (value > 0n) this.view.setBigUint64(begin + 1, value);
    else this.view.setBigInt64(begin + 1, value);
  }

  text(value: string): void {
    if (value.length <= SHORT_UNITS && this.ascii(value)) return;
    const length = utf8Length(value);
    if (length < 0) throw new TypeError("a text with half of a surrogate pair cannot be sent");
    this.head(length, 0xa0, 31, 0xd9, 0xda);
    const begin = this.room(length);
    writeUtf8(value, this.bytes, begin);
  }

  /** Writes a short text of ASCII, and returns true; writes nothing of any other text. */
  ascii(value: string): boolean {
    const length = value.length;
    const headed = length <= 31 ? 1 : 2;
    const begin = this.room(headed + length);
    const bytes = this.bytes;
    if (headed === 1) {
      bytes[begin] = 0xa0 | length;
    } else {
      bytes[begin] = 0xd9;
      bytes[begin + 1] = length;
    }
    for (let index = 0; index < length; index += 1) {
      const unit = value.charCodeAt(index);
      if (unit >= 0x80) {
        this.at = begin;
        return false;
      }
      bytes[begin + headed + index] = unit;
    }
    return true;
  }

  object(value: object, depth: number): void {
    if (depth === 0) throw new TypeError(`lists and maps within each other go deeper than ${MAX_DEPTH}`);
    if (Array.isArray(value)) {
      this.head(value.length, 0x90, 15, 0, 0xdc);
      for (let index = 0; index < value.length; index += 1) this.value(value[index], depth - 1);
    } else if (value instanceof Packed) {
      this.raw(value.bytes);
    } else if (value instanceof Uint8Array) {
      this.head(value.length, 0, -1, 0xc4, 0xc5);
      this.raw(value);
    } else if (value instanceof Extension) {
      this.extension(value);
    } else {
      this.map(value as { readonly [name: string]: unknown }, depth);
    }
  }

  map(value: { readonly [name: string]: unknown }, depth: number): void {
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
      throw new TypeError(`a ${nameOf(prototype)} cannot be sent; give a plain object, list, text or number`);
    }
    const names = Object.keys(value);
    if (this.isSorted) names.sort(byCodePoint);
    let count = 0;
    for (const name of names) if (value[name] !== undefined) count += 1;
    this.head(count, 0x80, 15, 0, 0xde);
    for (const name of names) {
      const one = value[name];
      if (one === undefined) continue;
      this.text(name);
      this.value(one, depth - 1);
    }
  }

  extension({ type, data }: Extension): void {
    const fixed = [1, 2, 4, 8, 16].indexOf(data.length);
    if (fixed >= 0) this.byte(0xd4 + fixed);
    else this.head(data.length, 0, -1, 0xc7, 0xc8);
    this.byte(type & 0xff);
    this.raw(data);
  }
}

function nameOf(prototype: unknown): string {
  const name: unknown = (prototype as { constructor?: { name?: unknown } }).constructor?.name;
  return typeof name === "string" && name ? name : "object of a class";
}

/** Compares texts by their code points, which is the order of their UTF-8. */
export function byCodePoint(one: string, other: string): number {
  const length = Math.min(one.length, other.length);
  for (let index = 0; index < length; index += 1) {
    const a = one.charCodeAt(index);
    const b = other.charCodeAt(index);
    if (a !== b) {
      const isHigh = a >= 0xd800 && a <= 0xdfff;
      // A surrogate stands for a code point above all others, though its unit is below U+E000.
      if (isHigh !== (b >= 0xd800 && b <= 0xdfff)) return isHigh ? 1 : -1;
      return a - b;
    }
  }
  return one.length - other.length;
}

const shared = new Writer();
let isSharedUsed = false;

function encoded(value: unknown, isSorted: boolean): Uint8Array {
  // A getter of the value may encode another one meanwhile.
  const writer = isSharedUsed ? new Writer() : shared;
  isSharedUsed = true;
  try {
    writer.at = 0;
    writer.isSorted = isSorted;
    writer.value(value, MAX_DEPTH);
    return writer.bytes.slice(0, writer.at);
  } finally {
    if (writer === shared) {
      isSharedUsed = false;
      if (shared.bytes.length > SHARED_BYTES) shared.shrink();
    }
  }
}

/**
 * Returns `value` as MessagePack. Raises a `TypeError` for a value that has no form there; it has the path of the value,
 * which begins with `path`. With `isSorted` the keys of maps are in the order of their code points, as in values of the
 * shared state.
 */
export function encode(value: unknown, path = "$", isSorted = false): Uint8Array {
  try {
    return encoded(value, isSorted);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new TypeError(located(value, path, error.message, MAX_DEPTH));
  }
}

/** Returns `reason` with the path of the first value within `value` that cannot be encoded. */
function located(value: unknown, path: string, reason: string, depth: number): string {
  if (depth > 0 && typeof value === "object" && value !== null && !(value instanceof Uint8Array)) {
    for (const [name, one] of Object.entries(value)) {
      if (one === undefined && !Array.isArray(value)) continue;
      try {
        encoded(one, false);
      } catch (error) {
        const step = Array.isArray(value) ? `[${name}]` : `.${name}`;
        return located(one, path + step, error instanceof Error ? error.message : reason, depth - 1);
      }
    }
  }
  return `${path}: ${reason}`;
}
