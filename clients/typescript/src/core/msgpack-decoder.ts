/**
 * Decodes MessagePack strictly: text is UTF-8, keys of maps are texts, and nothing follows the value.
 *
 * An integer beyond 2^53 becomes a bigint, and bin a view of the bytes that came. Hostile bytes raise a `MessageError`:
 * claimed lengths are compared with what is there before anything is allocated.
 */

import { MessageError, SerializationError, ValidationError } from "./errors.js";
import { Extension, MAX_DEPTH, Packed } from "./msgpack-encoder.js";
import { fromUtf8 } from "./utf8.js";

// Texts of up to so many bytes are remembered: keys, symbols and ids come again and again.
const REMEMBERED_BYTES = 40;
const SLOTS = 1024;
// Texts of up to so many bytes are made here; a TextDecoder costs more to call.
const SHORT_BYTES = 24;
const TWO_32 = 4_294_967_296;

interface Remembered {
  readonly bytes: Uint8Array;
  readonly text: string;
}

const remembered: (Remembered | undefined)[] = new Array(SLOTS).fill(undefined);

class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    // A Buffer of Node has methods of other meanings under the same names.
    this.#bytes =
      bytes.constructor === Uint8Array ? bytes : new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Reads the one value, and leaves what is at `packed` in it as `Packed`. */
  whole(packed: readonly string[]): unknown {
    const value = packed.length === 0 ? this.#value(MAX_DEPTH) : this.#mapWithPacked(packed);
    if (this.#at !== this.#bytes.length) {
      throw new SerializationError(`${this.#bytes.length - this.#at} bytes follow the MessagePack value`);
    }
    return value;
  }

  /** Reads a map whose value at a path of keys is left packed; a value of another type is read as it is. */
  #mapWithPacked(path: readonly string[]): unknown {
    const code = this.#bytes[this.#at] ?? 0;
    const isMap = (code >= 0x80 && code < 0x90) || code === 0xde || code === 0xdf;
    if (!isMap) return this.#value(MAX_DEPTH);
    this.#at += 1;
    const length = code < 0x90 ? code & 0x0f : this.#unsigned(code - 0xdd);
    this.#claim(2 * length, MAX_DEPTH);
    const map: { [name: string]: unknown } = {};
    const [name, ...within] = path;
    for (let index = 0; index < length; index += 1) {
      const key = this.#key();
      if (key !== name) setField(map, key, this.#value(MAX_DEPTH));
      else if (within.length > 0) map[key] = this.#mapWithPacked(within);
      else map[key] = this.#packed();
    }
    return map;
  }

  #packed(): Packed {
    const begin = this.#at;
    this.#skip();
    return new Packed(this.#bytes.subarray(begin, this.#at));
  }

  /** Moves on by one value, which need not be valid within: that shows when it is read. */
  #skip(): void {
    for (let left = 1; left > 0; left -= 1) {
      const code = this.#byte();
      if (code < 0x80 || code >= 0xe0) continue;
      if (code < 0x90) left += 2 * (code & 0x0f);
      else if (code < 0xa0) left += code & 0x0f;
      else if (code < 0xc0) this.#advance(code & 0x1f);
      else if (code >= 0xde) left += 2 * this.#unsigned(code - 0xdd);
      else if (code >= 0xdc) left += this.#unsigned(code - 0xdb);
      else this.#skipScalar(code);
    }
  }

  #skipScalar(code: number): void {
    if (code <= 0xc3) return;
    if (code <= 0xc6) this.#advance(this.#unsigned(code - 0xc4));
    else if (code <= 0xc9) this.#advance(this.#unsigned(code - 0xc7) + 1);
    else if (code <= 0xcb) this.#advance(code === 0xca ? 4 : 8);
    else if (code <= 0xcf) this.#advance(1 << (code - 0xcc));
    else if (code <= 0xd3) this.#advance(1 << (code - 0xd0));
    else if (code <= 0xd8) this.#advance((1 << (code - 0xd4)) + 1);
    else this.#advance(this.#unsigned(code - 0xd9));
  }

  #value(depth: number): unknown {
    const code = this.#byte();
    if (code < 0x80) return code;
    if (code < 0x90) return this.#map(code & 0x0f, depth);
    if (code < 0xa0) return this.#list(code & 0x0f, depth);
    if (code < 0xc0) return this.#text(code & 0x1f);
    if (code >= 0xe0) return code - 0x100;
    const view = this.#view;
    switch (code) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#bin(this.#unsigned(code - 0xc4));
      case 0xc7:
      case 0xc8:
      case 0xc9:
        return this.#extension(this.#unsigned(code - 0xc7));
      case 0xca:
        return view.getFloat32(this.#advance(4));
      case 0xcb:
        return view.getFloat64(this.#advance(8));
      case 0xcc:
      case 0xcd:
      case 0xce:
        return this.#unsigned(code - 0xcc);
      case 0xcf:
        return this.#unsigned64();
      case 0xd0:
        return view.getInt8(this.#advance(1));
      case 0xd1:
        return view.getInt16(this.#advance(2));
      case 0xd2:
        return view.getInt32(this.#advance(4));
      case 0xd3:
        return this.#signed64();
      case 0xd4:
      case 0xd5:
      case 0xd6:
      case 0xd7:
      case 0xd8:
        return this.#extension(1 << (code - 0xd4));
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#text(this.#unsigned(code - 0xd9));
      case 0xdc:
      case 0xdd:
        return this.#list(this.#unsigned(code - 0xdb), depth);
      case 0xde:
      case 0xdf:
        return this.#map(this.#unsigned(code - 0xdd), depth);
      default:
        throw new SerializationError(`0x${code.toString(16)} begins no MessagePack value`);
    }
  }

  #byte(): number {
    const value = this.#bytes[this.#at];
    if (value === undefined) throw cutShort();
    this.#at += 1;
    return value;
  }

  /** Moves on by `count` bytes, and returns where they begin. */
  #advance(count: number): number {
    const begin = this.#at;
    this.#at = begin + count;
    if (this.#at > this.#bytes.length) throw cutShort();
    return begin;
  }

  /** Reads a number of 1, 2 or 4 bytes (`size` 0, 1 or 2). */
  #unsigned(size: number): number {
    if (size === 0) return this.#byte();
    const begin = this.#advance(size === 1 ? 2 : 4);
    return size === 1 ? this.#view.getUint16(begin) : this.#view.getUint32(begin);
  }

  #unsigned64(): number | bigint {
    const begin = this.#advance(8);
    const high = this.#view.getUint32(begin);
    if (high < 0x200000) return high * TWO_32 + this.#view.getUint32(begin + 4);
    return this.#view.getBigUint64(begin);
  }

  #signed64(): number | bigint {
    const begin = this.#advance(8);
    const high = this.#view.getInt32(begin);
    if (high >= -0x200000 && high < 0x200000) {
      const value = high * TWO_32 + this.#view.getUint32(begin + 4);
      if (Number.isSafeInteger(value)) return value;
    }
    return this.#view.getBigInt64(begin);
  }

  #bin(length: number): Uint8Array {
    const begin = this.#advance(length);
    return new Uint8Array(this.#bytes.buffer, this.#bytes.byteOffset + begin, length);
  }

  #extension(length: number): Extension {
    const type = this.#view.getInt8(this.#advance(1));
    return new Extension(type, this.#bin(length));
  }

  #list(length: number, depth: number): unknown[] {
    this.#claim(length, depth);
    const list: unknown[] = [];
    for (let index = 0; index < length; index += 1) list.push(this.#value(depth - 1));
    return list;
  }

  #map(length: number, depth: number): object {
    this.#claim(2 * length, depth);
    const map: { [name: string]: unknown } = {};
    for (let index = 0; index < length; index += 1) {
      const name = this.#key();
      setField(map, name, this.#value(depth - 1));
    }
    return map;
  }

  /** Refuses a list or map that claims more values than bytes are left, or that is nested too deeply. */
  #claim(values: number, depth: number): void {
    if (values > this.#bytes.length - this.#at) throw cutShort();
    if (depth === 0) throw new SerializationError(`lists and maps within each other go deeper than ${MAX_DEPTH}`);
  }

  #key(): string {
    const code = this.#byte();
    if (code >= 0xa0 && code < 0xc0) return this.#text(code & 0x1f);
    if (code >= 0xd9 && code <= 0xdb) return this.#text(this.#unsigned(code - 0xd9));
    throw new ValidationError("$: a key of a map is a text; another type came", { path: "$" });
  }

  #text(length: number): string {
    const begin = this.#advance(length);
    if (length > REMEMBERED_BYTES) return this.#decoded(begin, length);
    const bytes = this.#bytes;
    const end = begin + length;
    let hash = length;
    for (let index = begin; index < end; index += 1) hash = (hash * 31 + (bytes[index] as number)) | 0;
    const slot = (hash ^ (hash >>> 11)) & (SLOTS - 1);
    const known = remembered[slot];
    if (known !== undefined && known.bytes.length === length) {
      const of = known.bytes;
      let index = 0;
      while (index < length && of[index] === bytes[begin + index]) index += 1;
      if (index === length) return known.text;
    }
    const text = this.#decoded(begin, length);
    remembered[slot] = { bytes: bytes.slice(begin, end), text };
    return text;
  }

  #decoded(begin: number, length: number): string {
    const bytes = this.#bytes;
    const end = begin + length;
    if (length <= SHORT_BYTES) {
      let text = "";
      for (let index = begin; index < end; index += 1) {
        const unit = bytes[index] as number;
        if (unit >= 0x80) return fromUtf8(bytes.subarray(begin, end));
        text += String.fromCharCode(unit);
      }
      return text;
    }
    return fromUtf8(bytes.subarray(begin, end));
  }
}

function setField(map: { [name: string]: unknown }, name: string, value: unknown): void {
  if (name !== "__proto__") map[name] = value;
  else Object.defineProperty(map, name, { value, enumerable: true, configurable: true, writable: true });
}

function cutShort(): SerializationError {
  return new SerializationError("the MessagePack ends within a value");
}

/**
 * Returns the value of MessagePack. Raises a `MessageError` for anything else. What is at the path of keys `packed` is
 * left as `Packed`, to be decoded when it is read; damage within it shows only then.
 */
export function decode(bytes: Uint8Array, packed: readonly string[] = []): unknown {
  try {
    return new Reader(bytes).whole(packed);
  } catch (error) {
    if (error instanceof MessageError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new SerializationError(`not the MessagePack that PROTOCOL.md describes: ${reason}`, null, { cause: error });
  }
}

/** Returns a value that may be packed. Raises a `MessageError` as `decode` does. */
export function unpack(value: unknown): unknown {
  return value instanceof Packed ? decode(value.bytes) : value;
}
