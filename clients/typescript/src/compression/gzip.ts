/** Takes one gzip member (RFC 1952) apart and checks it; an inflater of the platform does the rest. */

const [HAS_CRC, HAS_EXTRA, HAS_NAME, HAS_COMMENT, RESERVED] = [2, 4, 8, 16, 0xe0];
const HEADER = 10;
const TRAILER = 8;

/** Inflates raw deflate data to at most `rawBytes` bytes. Throws for more, and for data that end elsewhere. */
export type Inflate = (data: Uint8Array, rawBytes: number) => Uint8Array;

/** Returns the content of a member. Throws an `Error` for anything but one whole member of `rawBytes` bytes. */
export function decompressGzip(data: Uint8Array, rawBytes: number, inflate: Inflate): Uint8Array {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  if (data.length < HEADER + TRAILER || view.getUint16(0) !== 0x1f8b || data[2] !== 8)
    throw new Error("no gzip member");
  const flags = view.getUint8(3);
  if ((flags & RESERVED) !== 0) throw new Error("a gzip member of an unknown kind");
  let start = HEADER;
  if ((flags & HAS_EXTRA) !== 0) start += 2 + view.getUint16(start, true);
  if ((flags & HAS_NAME) !== 0) start = textEnd(data, start);
  if ((flags & HAS_COMMENT) !== 0) start = textEnd(data, start);
  if ((flags & HAS_CRC) !== 0) start += 2;
  const stop = data.length - TRAILER;
  if (start > stop) throw new Error("a gzip member that ends in its header");
  if (view.getUint32(stop + 4, true) !== rawBytes % 2 ** 32) throw new Error("a gzip member of another size");
  const raw = inflate(data.subarray(start, stop), rawBytes);
  if (raw.length !== rawBytes || view.getUint32(stop, true) !== crc32(raw)) throw new Error("a damaged gzip member");
  return raw;
}

function textEnd(data: Uint8Array, start: number): number {
  const end = data.indexOf(0, start);
  if (end < 0) throw new Error("a gzip member that ends in its header");
  return end + 1;
}

let table: Uint32Array | undefined;

function crc32(data: Uint8Array): number {
  table ??= crcTable();
  let crc = 0xffffffff;
  for (let at = 0; at < data.length; at += 1) {
    crc = (crc >>> 8) ^ (table[(crc ^ (data[at] as number)) & 0xff] as number);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

function crcTable(): Uint32Array {
  return Uint32Array.from({ length: 256 }, (_, index) => {
    let value = index;
    for (let bit = 0; bit < 8; bit += 1) value = (value & 1) !== 0 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
    return value;
  });
}
