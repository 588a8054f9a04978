/**
 * Decompresses one LZ4 frame (lz4_Frame_format.md 1.6) in plain TypeScript, into a buffer of the size that was announced.
 *
 * Nothing is written beyond that size, so data that would become larger throw an `Error` at that byte.
 */

const MAGIC = 0x184d2204;
const UNCOMPRESSED = 0x80000000;
const MIN_MATCH = 4;

/** Returns the `rawBytes` bytes of a frame. Throws an `Error` for anything but one whole frame of exactly that size. */
export function decompressLz4(data: Uint8Array, rawBytes: number): Uint8Array {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  if (data.length < 7 || view.getUint32(0, true) !== MAGIC) throw new Error("no frame of LZ4");
  const flags = byte(data, 4);
  if (flags >>> 6 !== 1 || (flags & 0b11) !== 0)
    throw new Error("a frame of LZ4 of an unknown version or with a dictionary");
  const [hasBlockChecksums, hasSize, hasChecksum] = [(flags & 16) !== 0, (flags & 8) !== 0, (flags & 4) !== 0];
  const headerEnd = hasSize ? 14 : 6;
  if (data.length < headerEnd + 1) throw new Error("a frame of LZ4 that ends in its header");
  if (hasSize && view.getBigUint64(6, true) !== BigInt(rawBytes)) throw new Error("a frame of LZ4 of another size");
  if (((xxh32(data, 4, headerEnd) >>> 8) & 0xff) !== byte(data, headerEnd)) throw new Error("a damaged header");
  const raw = new Uint8Array(rawBytes);
  let at = headerEnd + 1;
  let end = 0;
  for (;;) {
    const size = view.getUint32(at, true);
    at += 4;
    if (size === 0) break;
    const length = size & ~UNCOMPRESSED;
    if (length < 0 || at + length > data.length) throw new Error("a block that reaches beyond its frame");
    end = (size & UNCOMPRESSED) !== 0 ? copied(data, at, length, raw, end) : block(data, at, at + length, raw, end);
    if (hasBlockChecksums && view.getUint32(at + length, true) !== xxh32(data, at, at + length)) {
      throw new Error("a damaged block");
    }
    at += length + (hasBlockChecksums ? 4 : 0);
  }
  if (hasChecksum) {
    if (view.getUint32(at, true) !== xxh32(raw, 0, end)) throw new Error("damaged content");
    at += 4;
  }
  if (at !== data.length || end !== rawBytes) throw new Error("a frame of LZ4 of another size");
  return raw;
}

function copied(data: Uint8Array, at: number, length: number, raw: Uint8Array, end: number): number {
  if (end + length > raw.length) throw new Error("more than was announced");
  raw.set(data.subarray(at, at + length), end);
  return end + length;
}

/** Decodes the block from `at` to `stop` to the place `end` of `raw`, and returns the place behind it. */
function block(data: Uint8Array, start: number, stop: number, raw: Uint8Array, place: number): number {
  let [at, end] = [start, place];
  while (at < stop) {
    const token = data[at++] as number;
    let literals = token >>> 4;
    if (literals === 15) {
      for (let more = 255; more === 255; literals += more) {
        if (at >= stop) throw new Error("a block that ends in a length");
        more = data[at++] as number;
      }
    }
    if (at + literals > stop || end + literals > raw.length) throw new Error("literals beyond their block");
    if (literals < 32) {
      for (let left = literals; left > 0; left -= 1) raw[end++] = data[at++] as number;
    } else {
      raw.set(data.subarray(at, at + literals), end);
      at += literals;
      end += literals;
    }
    if (at === stop) return end; // the last sequence has literals alone
    if (at + 2 > stop) throw new Error("a block that ends in an offset");
    const offset = (data[at] as number) | ((data[at + 1] as number) << 8);
    at += 2;
    let length = (token & 15) + MIN_MATCH;
    if ((token & 15) === 15) {
      for (let more = 255; more === 255; length += more) {
        if (at >= stop) throw new Error("a block that ends in a length");
        more = data[at++] as number;
      }
    }
    if (offset === 0 || offset > end || end + length > raw.length) throw new Error("a copy of what is not there");
    if (offset >= length && length >= 32) {
      raw.copyWithin(end, end - offset, end - offset + length);
      end += length;
    } else {
      for (let left = length; left > 0; left -= 1, end += 1) raw[end] = raw[end - offset] as number;
    }
  }
  throw new Error("a block without its last literals");
}

const [P1, P2, P3, P4, P5] = [0x9e3779b1, 0x85ebca77, 0xc2b2ae3d, 0x27d4eb2f, 0x165667b1];

/** Returns the xxHash of 32 bits, with the seed 0, of the bytes from `start` to `stop`. */
function xxh32(data: Uint8Array, start: number, stop: number): number {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  let at = start;
  let hash = P5;
  if (stop - start >= 16) {
    const lanes = [(P1 + P2) | 0, P2, 0, -P1 | 0];
    for (; at + 16 <= stop; at += 16) {
      for (let lane = 0; lane < 4; lane += 1) {
        const mixed = (lanes[lane] as number) + Math.imul(view.getUint32(at + 4 * lane, true), P2);
        lanes[lane] = Math.imul(rotated(mixed, 13), P1);
      }
    }
    const [a = 0, b = 0, c = 0, d = 0] = lanes;
    hash = rotated(a, 1) + rotated(b, 7) + rotated(c, 12) + rotated(d, 18);
  }
  hash = (hash + (stop - start)) | 0;
  for (; at + 4 <= stop; at += 4) {
    hash = Math.imul(rotated(hash + Math.imul(view.getUint32(at, true), P3), 17), P4);
  }
  for (; at < stop; at += 1) hash = Math.imul(rotated(hash + Math.imul(byte(data, at), P5), 11), P1);
  hash = Math.imul(hash ^ (hash >>> 15), P2);
  hash = Math.imul(hash ^ (hash >>> 13), P3);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function rotated(value: number, by: number): number {
  return (value << by) | (value >>> (32 - by));
}

function byte(data: Uint8Array, at: number): number {
  return data[at] as number;
}
