/** Both decompressors, against the encoders of node:zlib and of the Python packages, and against hostile data. */

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { deflateRawSync, gzipSync, zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { unpackZstd } from "../../src/compression/fzstd.js";
import { inflate } from "../../src/compression/inflate.js";
import { decompress as inNode } from "../../src/compression/node.js";
import { decompress as inPage } from "../../src/compression/page.js";

const PYTHON = resolve(import.meta.dirname, "../../../../.venv/bin/python");
const FORMS = ["lz4", "zstd", "gzip"] as const;
const decompressors = [
  ["in Node", inNode],
  ["in a page", inPage],
] as const;

/** Content that repeats itself, content that does not, and much of either. */
const contents: Uint8Array[] = [
  new Uint8Array(0),
  new Uint8Array([7]),
  new Uint8Array(100_000),
  Uint8Array.from({ length: 70_000 }, (_, at) => (at * at) % 251),
  Uint8Array.from({ length: 300_000 }, (_, at) => (Math.imul(at, 2654435761) >>> 24) & 0xff),
  Buffer.from("EURUSD prices come and go; ".repeat(20_000)),
];

interface Packed {
  form: (typeof FORMS)[number];
  how: string;
  data: Uint8Array;
  content: Uint8Array;
}

/** The contents as Python's packages compress them: with and without checksums and sizes, in linked blocks of 64 KiB. */
function packedByPython(): Packed[] {
  const script = `
import gzip, json, sys, base64, lz4.frame, zstandard
found = []
def add(form, how, data, index):
    found.append([form, how, base64.b64encode(data).decode(), index])
for index, text in enumerate(json.load(sys.stdin)):
    raw = base64.b64decode(text)
    add("lz4", "as the broker does", lz4.frame.compress(raw), index)
    add("lz4", "with all checksums", lz4.frame.compress(raw, content_checksum=True, block_checksum=True), index)
    add("lz4", "in linked blocks", lz4.frame.compress(raw, block_size=4, block_linked=True, compression_level=9), index)
    add("lz4", "without a size", lz4.frame.compress(raw, store_size=False), index)
    add("zstd", "as the broker does", zstandard.ZstdCompressor(level=3).compress(raw), index)
    add("zstd", "at level 19", zstandard.ZstdCompressor(level=19).compress(raw), index)
    add("zstd", "without a size", zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(raw), index)
    add("gzip", "by Python", gzip.compress(raw), index)
json.dump(found, sys.stdout)
`;
  const input = JSON.stringify(contents.map((one) => Buffer.from(one).toString("base64")));
  const output = execFileSync(PYTHON, ["-c", script], { input, maxBuffer: 2 ** 28, encoding: "utf8" });
  return (JSON.parse(output) as [Packed["form"], string, string, number][]).map(([form, how, text, index]) => ({
    form,
    how,
    data: Buffer.from(text, "base64"),
    content: contents[index] as Uint8Array,
  }));
}

if (!existsSync(PYTHON)) throw new Error(`there is no ${PYTHON}; run: make setup`);
const packed = packedByPython();

describe.each(decompressors)("%s", (_where, decompress) => {
  it.each(packed.map((one) => [one.form, one.how, one.content.length, one] as const))(
    "%s %s: %d bytes",
    (form, _how, _size, { data, content }) => {
      expect(Buffer.from(decompress(form, data, content.length)).equals(content)).toBe(true);
    },
  );

  it.each(packed.filter((one) => one.content.length > 0).map((one) => [one.form, one.how, one] as const))(
    "%s %s: refuses another size, an end too early and bytes after the end",
    (form, _how, { data, content }) => {
      const strict = (bytes: Uint8Array, size: number): void => {
        const raw = decompress(form, bytes, size);
        if (raw.length !== size) throw new Error("the core refuses another size");
      };
      for (const size of [0, 1, content.length - 1, content.length + 1]) {
        if (size !== content.length) expect(() => strict(data, size)).toThrow();
      }
      for (const end of [0, 1, 5, data.length >> 1, data.length - 1]) {
        expect(() => strict(data.subarray(0, end), content.length)).toThrow();
      }
      expect(() => strict(Buffer.concat([data, new Uint8Array(1)]), content.length)).toThrow();
      expect(() => strict(Buffer.concat([data, data]), content.length)).toThrow();
    },
  );

  it.each(FORMS)("%s: throws an Error, or returns no more than was announced, for any change of a byte", (form) => {
    const { data, content } = packed.find((one) => one.form === form && one.content.length === 70_000) as Packed;
    fc.assert(
      fc.property(fc.nat(Math.min(data.length - 1, 400)), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const damaged = Uint8Array.from(data);
        damaged[at] = (damaged[at] as number) ^ change;
        try {
          expect(decompress(form, damaged, content.length).length).toBeLessThanOrEqual(content.length);
        } catch (error) {
          if ((error as Error).name === "AssertionError") throw error;
          expect(error).toBeInstanceOf(Error);
        }
      }),
      { numRuns: 150 },
    );
  });

  it.each(FORMS)("%s: ends with an Error or few bytes for random bytes", (form) => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(1000), (data, size) => {
        try {
          expect(decompress(form, data, size).length).toBeLessThanOrEqual(size);
        } catch (error) {
          if ((error as Error).name === "AssertionError") throw error;
          expect(error).toBeInstanceOf(Error);
        }
      }),
    );
  });
});

describe("a bomb", () => {
  const huge = new Uint8Array(256 * 2 ** 20);

  it("of zstd is given up at the first byte too many", () => {
    const bomb = zstdCompressSync(huge);
    expect(() => inNode("zstd", bomb, 1000)).toThrow();
    expect(() => inPage("zstd", bomb, 1000)).toThrow();
    expect(() => unpackZstd(bomb, 1000)).toThrow();
  });

  it("of gzip is given up at the first byte too many", () => {
    const bomb = gzipSync(huge);
    new DataView(bomb.buffer, bomb.byteOffset).setUint32(bomb.length - 4, 1000, true);
    expect(() => inNode("gzip", bomb, 1000)).toThrow();
    expect(() => inPage("gzip", bomb, 1000)).toThrow();
  });
});

it("inflates what node:zlib deflates, at every level and strategy", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 5000 }),
      fc.integer({ min: 0, max: 9 }),
      fc.nat(4),
      (raw, level, strategy) => {
        const repeated = Buffer.concat([raw, raw, raw]);
        const data = deflateRawSync(repeated, { level, strategy });
        expect(Buffer.from(inflate(data, repeated.length)).equals(repeated)).toBe(true);
      },
    ),
  );
});
