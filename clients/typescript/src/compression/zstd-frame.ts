/** Checks the frame of Zstandard data (RFC 8878), before a decoder sees them: one frame, with nothing after it. */

const MAGIC = 0xfd2fb528;
/** The most bytes that a frame may have a decoder keep (PROTOCOL.md, section 9). */
const MAX_WINDOW = 8 * 2 ** 20;
const BLOCK_HEADER = 3;
const [RLE, RESERVED] = [1, 3];

/**
 * Throws an `Error` unless `data` are one whole frame, with a window of at most 8 MiB, whose header states no other size
 * than `rawBytes`.
 */
export function checkZstdFrame(data: Uint8Array, rawBytes: number): void {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  if (data.length < 6 || view.getUint32(0, true) !== MAGIC) throw new Error("no frame of Zstandard");
  const descriptor = view.getUint8(4);
  const isSingle = (descriptor & 32) !== 0;
  const [hasChecksum, dictionary] = [(descriptor & 4) !== 0, [0, 1, 2, 4][descriptor & 3] as number];
  if ((descriptor & 8) !== 0) throw new Error("a frame of an unknown version");
  let at = 5;
  if (!isSingle) {
    const window = view.getUint8(at++);
    const base = 2 ** (10 + (window >>> 3));
    if (base + (base / 8) * (window & 7) > MAX_WINDOW) throw new Error("a frame with a window of more than 8 MiB");
  }
  for (let left = dictionary; left > 0; left -= 1) if (view.getUint8(at++) !== 0) throw new Error("a dictionary");
  const sizeBytes = [isSingle ? 1 : 0, 2, 4, 8][descriptor >>> 6] as number;
  if (sizeBytes > 0) {
    let stated = 0;
    for (let index = sizeBytes - 1; index >= 0; index -= 1) stated = stated * 256 + view.getUint8(at + index);
    if (sizeBytes === 2) stated += 256;
    if (stated !== rawBytes) throw new Error(`a frame of ${stated} bytes`);
    if (isSingle && stated > MAX_WINDOW) throw new Error("a frame with a window of more than 8 MiB");
    at += sizeBytes;
  }
  for (let isLast = false; !isLast; ) {
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    isLast = (header & 1) !== 0;
    const kind = (header >>> 1) & 3;
    if (kind === RESERVED) throw new Error("a block of an unknown kind");
    at += BLOCK_HEADER + (kind === RLE ? 1 : header >>> 3);
  }
  if (at + (hasChecksum ? 4 : 0) !== data.length) throw new Error("a frame that does not end with the data");
}
