/** Decodes a checked frame of Zstandard in plain JavaScript: in a page, and on Node 20, whose zlib has no zstd. */

import { Decompress } from "fzstd";

/** Returns the `rawBytes` bytes of a frame that `checkZstdFrame` has passed. Throws an `Error` as soon as there are more. */
export function unpackZstd(data: Uint8Array, rawBytes: number): Uint8Array {
  const raw = new Uint8Array(rawBytes);
  let end = 0;
  const stream = new Decompress((chunk) => {
    if (end + chunk.length > rawBytes) throw new Error("more than was announced");
    raw.set(chunk, end);
    end += chunk.length;
  });
  stream.push(data, true);
  return raw.subarray(0, end);
}
