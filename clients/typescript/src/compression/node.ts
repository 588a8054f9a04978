/** Decompresses batches in Node: lz4 in plain TypeScript, gzip and zstd with node:zlib. */

import * as zlib from "node:zlib";
import { unpackZstd } from "./fzstd.js";
import { decompressGzip } from "./gzip.js";
import { decompressLz4 } from "./lz4.js";
import { checkZstdFrame } from "./zstd-frame.js";

/** The logarithm of the largest window of zstd, 8 MiB. */
const MAX_WINDOW_LOG = 23;

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
      return zstd(data, rawBytes);
  }
}

function inflate(data: Uint8Array, rawBytes: number): Uint8Array {
  // With `info` the result has the inflater beside the data, which the types do not say.
  const options = { maxOutputLength: Math.max(1, rawBytes), info: true };
  const { buffer, engine } = zlib.inflateRawSync(data, options) as unknown as {
    buffer: Uint8Array;
    engine: { bytesWritten: number };
  };
  if (engine.bytesWritten !== data.length) throw new Error("data after the end");
  return buffer;
}

function zstd(data: Uint8Array, rawBytes: number): Uint8Array {
  // Node 20 has none.
  if (typeof zlib.zstdDecompressSync !== "function") return unpackZstd(data, rawBytes);
  return zlib.zstdDecompressSync(data, {
    maxOutputLength: Math.max(1, rawBytes),
    params: { [zlib.constants.ZSTD_d_windowLogMax]: MAX_WINDOW_LOG },
  });
}
