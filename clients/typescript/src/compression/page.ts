/** Decompresses batches in a page, in plain JavaScript. */

import { unpackZstd } from "./fzstd.js";
import { decompressGzip } from "./gzip.js";
import { inflate } from "./inflate.js";
import { decompressLz4 } from "./lz4.js";
import { checkZstdFrame } from "./zstd-frame.js";

/**
 * Returns the `rawBytes` bytes that were compressed. The caller has compared `rawBytes` with a limit of its own before.
 *
 * No more than that is ever decompressed. Throws an `Error` for data that are not one whole piece of that format.
 */
export function decompress(form: "lz4" | "zstd" | "gzip", data: Uint8Array, rawBytes: number): Uint8Array {
  switch (form) {
    case "lz4":
      return decompressLz4(data, rawBytes);
    case "gzip":
      return decompressGzip(data, rawBytes, inflate);
    case "zstd":
      checkZstdFrame(data, rawBytes);
      return unpackZstd(data, rawBytes);
  }
}
