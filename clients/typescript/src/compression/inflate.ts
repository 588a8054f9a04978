/**
 * Inflates raw deflate data (RFC 1951) in plain TypeScript, for a page: what browsers have for that is asynchronous.
 *
 * The output has a size that was announced, and nothing is written beyond it.
 */

const MAX_BITS = 15;
const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const LENGTH_EXTRA = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_EXTRA = [
  0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
];
const LENGTH_BASE = bases(LENGTH_EXTRA, 3).fill(258, 28);
const DISTANCE_BASE = bases(DISTANCE_EXTRA, 1);

function bases(extra: readonly number[], first: number): number[] {
  let next = first;
  return extra.map((bits) => {
    const base = next;
    next += 2 ** bits;
    return base;
  });
}

/** A Huffman code: how many codes have each length, and the symbols in the order of their codes. */
interface Code {
  readonly counts: Uint16Array;
  readonly symbols: Uint16Array;
}

/** Returns the inflated data. Throws an `Error` for damaged data, for more than `rawBytes`, and for data after the end. */
export function inflate(data: Uint8Array, rawBytes: number): Uint8Array {
  const inflater = new Inflater(data, rawBytes);
  inflater.run();
  return inflater.raw.subarray(0, inflater.end);
}

class Inflater {
  readonly raw: Uint8Array;
  end = 0;
  readonly #data: Uint8Array;
  #at = 0;
  #bits = 0;
  #bitCount = 0;

  constructor(data: Uint8Array, rawBytes: number) {
    this.#data = data;
    this.raw = new Uint8Array(rawBytes);
  }

  run(): void {
    for (let isLast = 0; isLast === 0; ) {
      isLast = this.#take(1);
      const kind = this.#take(2);
      if (kind === 0) this.#stored();
      else if (kind === 1) this.#coded(...fixedCodes());
      else if (kind === 2) this.#coded(...this.#dynamicCodes());
      else throw new Error("a block of an unknown kind");
    }
    if (this.#at !== this.#data.length) throw new Error("data after the end");
  }

  #take(count: number): number {
    while (this.#bitCount < count) {
      if (this.#at >= this.#data.length) throw new Error("data that end too early");
      this.#bits |= (this.#data[this.#at++] as number) << this.#bitCount;
      this.#bitCount += 8;
    }
    const value = this.#bits & ((1 << count) - 1);
    this.#bits >>>= count;
    this.#bitCount -= count;
    return value;
  }

  #stored(): void {
    this.#bits = 0;
    this.#bitCount = 0;
    const length = this.#take(16);
    if ((this.#take(16) ^ 0xffff) !== length) throw new Error("a damaged block");
    if (this.#at + length > this.#data.length || this.end + length > this.raw.length)
      throw new Error("a block too long");
    this.raw.set(this.#data.subarray(this.#at, this.#at + length), this.end);
    this.#at += length;
    this.end += length;
  }

  #symbol(code: Code): number {
    let [value, first, index] = [0, 0, 0];
    for (let length = 1; length <= MAX_BITS; length += 1) {
      value |= this.#take(1);
      const count = code.counts[length] as number;
      if (value - count < first) return code.symbols[index + (value - first)] as number;
      index += count;
      first = (first + count) << 1;
      value <<= 1;
    }
    throw new Error("a code that is none");
  }

  #coded(lengths: Code, distances: Code): void {
    const { raw } = this;
    for (;;) {
      const symbol = this.#symbol(lengths);
      if (symbol === 256) return;
      if (symbol < 256) {
        if (this.end >= raw.length) throw new Error("more than was announced");
        raw[this.end++] = symbol;
        continue;
      }
      const length = this.#extended(symbol - 257, LENGTH_BASE, LENGTH_EXTRA);
      const distance = this.#extended(this.#symbol(distances), DISTANCE_BASE, DISTANCE_EXTRA);
      if (distance > this.end || this.end + length > raw.length) throw new Error("a copy of what is not there");
      for (let left = length; left > 0; left -= 1, this.end += 1) raw[this.end] = raw[this.end - distance] as number;
    }
  }

  #extended(index: number, base: readonly number[], extra: readonly number[]): number {
    const bits = extra[index];
    if (bits === undefined) throw new Error("a code that is none");
    return (base[index] as number) + this.#take(bits);
  }

  #dynamicCodes(): [Code, Code] {
    const [lengths, distances, count] = [this.#take(5) + 257, this.#take(5) + 1, this.#take(4) + 4];
    const ofLengths = new Uint8Array(19);
    for (const place of ORDER.slice(0, count)) ofLengths[place] = this.#take(3);
    const code = codeOf(ofLengths);
    const sizes = new Uint8Array(lengths + distances);
    for (let at = 0; at < sizes.length; ) {
      const symbol = this.#symbol(code);
      if (symbol < 16) {
        sizes[at++] = symbol;
        continue;
      }
      if (symbol === 16 && at === 0) throw new Error("a repetition of nothing");
      const value = symbol === 16 ? (sizes[at - 1] as number) : 0;
      const times = symbol === 16 ? 3 + this.#take(2) : symbol === 17 ? 3 + this.#take(3) : 11 + this.#take(7);
      if (at + times > sizes.length) throw new Error("more code lengths than announced");
      sizes.fill(value, at, at + times);
      at += times;
    }
    return [codeOf(sizes.subarray(0, lengths)), codeOf(sizes.subarray(lengths))];
  }
}

function codeOf(sizes: Uint8Array): Code {
  const counts = new Uint16Array(MAX_BITS + 1);
  for (const size of sizes) if (size > 0) counts[size] = (counts[size] as number) + 1;
  let room = 1;
  for (let length = 1; length <= MAX_BITS; length += 1) {
    room = 2 * room - (counts[length] as number);
    if (room < 0) throw new Error("a code with too many words");
  }
  const offsets = new Uint16Array(MAX_BITS + 2);
  for (let length = 1; length <= MAX_BITS; length += 1) {
    offsets[length + 1] = (offsets[length] as number) + (counts[length] as number);
  }
  const symbols = new Uint16Array(sizes.length);
  for (const [symbol, size] of sizes.entries()) {
    if (size === 0) continue;
    symbols[offsets[size] as number] = symbol;
    offsets[size] = (offsets[size] as number) + 1;
  }
  return { counts, symbols };
}

let fixed: [Code, Code] | undefined;

function fixedCodes(): [Code, Code] {
  fixed ??= [
    codeOf(new Uint8Array(288).fill(8).fill(9, 144, 256).fill(7, 256, 280)),
    codeOf(new Uint8Array(30).fill(5)),
  ];
  return fixed;
}
