/** MessagePack: what is encoded is decoded as it was, and hostile bytes raise one type of error. */

import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BacktestrError, MessageError, SerializationError, ValidationError } from "../../src/core/errors.js";
import { decode, unpack } from "../../src/core/msgpack-decoder.js";
import { byCodePoint, Extension, encode, Packed } from "../../src/core/msgpack-encoder.js";
import { fromUtf8, utf8, utf8Length } from "../../src/core/utf8.js";

function hex(value: unknown): string {
  return Buffer.from(encode(value)).toString("hex");
}

function of(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "hex"));
}

const scalars = fc.oneof(
  fc.constant(null),
  fc.boolean(),
  fc.integer(),
  fc.maxSafeInteger(),
  fc.double(),
  fc.string({ unit: "grapheme" }),
  fc.string({ unit: "binary" }).filter((text) => text.isWellFormed()),
  fc.uint8Array({ maxLength: 300 }),
  fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n }),
  fc.bigInt({ min: -(2n ** 63n), max: -(2n ** 53n) }),
  fc
    .tuple(fc.integer({ min: -128, max: 127 }), fc.uint8Array({ maxLength: 20 }))
    .map(([type, data]) => new Extension(type, data)),
);
const names = fc.oneof(fc.string(), fc.constantFrom("__proto__", "constructor", "toString", "", "é", "😀", "0", "1"));
const { value } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small" },
    scalars,
    fc.array(tie("value"), { maxLength: 20 }),
    fc.array(fc.tuple(names, tie("value")), { maxLength: 20 }).map((entries) => {
      const map = {};
      for (const [name, one] of entries) {
        Object.defineProperty(map, name, { value: one, enumerable: true, configurable: true, writable: true });
      }
      return map;
    }),
  ),
}));

test("what is encoded is decoded as it was", () => {
  fc.assert(
    fc.property(value, (one) => {
      expect(isDeepStrictEqual(decode(encode(one)), one)).toBe(true);
      expect(isDeepStrictEqual(decode(Buffer.from(encode(one))), one)).toBe(true);
    }),
  );
});

test("bytes that are no value raise a MessageError", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      try {
        decode(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(MessageError);
      }
      try {
        decode(bytes, ["payload", "data"]);
      } catch (error) {
        expect(error).toBeInstanceOf(MessageError);
      }
    }),
    { numRuns: 2000 },
  );
});

test("a cut or changed value raises a MessageError or is another value", () => {
  fc.assert(
    fc.property(value, fc.nat(), fc.nat(255), (one, at, byte) => {
      const bytes = encode(one);
      const place = at % bytes.length;
      if (place > 0) expect(() => decode(bytes.subarray(0, place))).toThrow(MessageError);
      bytes[place] = byte;
      try {
        decode(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(BacktestrError);
      }
    }),
  );
});

test.each([
  [0, "00"],
  [127, "7f"],
  [128, "cc80"],
  [255, "ccff"],
  [256, "cd0100"],
  [65_536, "ce00010000"],
  [4_294_967_295, "ceffffffff"],
  [4_294_967_296, "cf0000000100000000"],
  [Number.MAX_SAFE_INTEGER, "cf001fffffffffffff"],
  [2 ** 53, "cb4340000000000000"],
  [-1, "ff"],
  [-32, "e0"],
  [-33, "d0df"],
  [-128, "d080"],
  [-129, "d1ff7f"],
  [-32_769, "d2ffff7fff"],
  [-2_147_483_649, "d3ffffffff7fffffff"],
  [-0, "cb8000000000000000"],
  [0.5, "cb3fe0000000000000"],
  [Number.NaN, "cb7ff8000000000000"],
  [5n, "05"],
  [2n ** 63n, "cf8000000000000000"],
  [-(2n ** 63n), "d38000000000000000"],
  ["a".repeat(31), `bf${"61".repeat(31)}`],
  ["a".repeat(32), `d920${"61".repeat(32)}`],
  ["é", "a2c3a9"],
  ["€", "a3e282ac"],
  ["😀", "a4f09f9880"],
  [[], "90"],
  [{}, "80"],
  [new Uint8Array([1]), "c40101"],
  [new Extension(1, new Uint8Array([9])), "d40109"],
  [new Extension(-1, new Uint8Array(3)), "c703ff000000"],
  [new Packed(new Uint8Array([0xc3])), "c3"],
])("%s is encoded in its shortest form", (one, expected) => {
  expect(hex(one)).toBe(expected);
});

test("lengths that need more bytes have them", () => {
  for (const length of [48, 49, 300, 70_000]) {
    for (const one of ["x".repeat(length), "é".repeat(length), new Uint8Array(length), Array(length).fill(1)]) {
      expect(decode(encode(one))).toStrictEqual(one);
    }
    const map = Object.fromEntries(Array.from({ length }, (_, index) => [`k${index}`, index]));
    expect(decode(encode(map))).toStrictEqual(map);
    expect(decode(encode(new Extension(3, new Uint8Array(length))))).toStrictEqual(
      new Extension(3, new Uint8Array(length)),
    );
  }
  // A large message takes nothing from those after it.
  expect(hex([1])).toBe("9101");
});

test("fields that are undefined are left out, and keys are sorted by code point where that is asked for", () => {
  expect(hex({ a: undefined, b: 1 })).toBe("81a16201");
  const map = { "😀": 4, "\ue000": 3, é: 2, z: 1 };
  expect(Object.keys(decode(encode(map, "$", true)) as object)).toEqual(["z", "é", "\ue000", "😀"]);
  expect(byCodePoint("a", "ab")).toBeLessThan(0);
  expect(byCodePoint("😀", "😁")).toBeLessThan(0);
  expect(byCodePoint("\ue000", "😀")).toBeLessThan(0);
  expect(byCodePoint("😀", "\ue000")).toBeGreaterThan(0);
});

test("values that have no form on the wire are refused with their path", () => {
  const cyclic: { self?: unknown } = {};
  cyclic.self = cyclic;
  const cases: [unknown, string][] = [
    [{ a: [1, { b: () => 1 }] }, "$.a[1].b: a value of the type function"],
    [{ a: Symbol("x") }, "$.a: a value of the type symbol"],
    [[undefined], "$[0]: a value of the type undefined"],
    [{ a: new Date(0) }, "$.a: a Date cannot be sent"],
    [{ a: new Map() }, "$.a: a Map cannot be sent"],
    [{ a: "\ud800" }, "$.a: a text with half of a surrogate pair"],
    [{ a: `\udc00${"x".repeat(60)}` }, "$.a: a text with half of a surrogate pair"],
    [{ "\ud800": 1 }, "$: a text with half of a surrogate pair"],
    [{ a: 2n ** 64n }, "$.a: 18446744073709551616 is beyond the 64 bits"],
    [{ a: -(2n ** 63n) - 1n }, "beyond the 64 bits"],
    [new (class Odd {})(), "$: a Odd cannot be sent"],
    [new (class {})(), "$: a object of a class cannot be sent"],
    [cyclic, "go deeper than 512"],
  ];
  for (const [one, text] of cases) {
    expect(() => encode(one)).toThrow(TypeError);
    expect(() => encode(one)).toThrow(text);
  }
  expect(() => encode({ value: 1n << 70n }, "$.value")).toThrow("$.value.value");
  expect(hex(Object.assign(Object.create(null), { a: 1 }))).toBe("81a16101");
});

test("an exception of a getter is no mistake of the type, and a getter may encode", () => {
  const failing = {
    get a(): number {
      throw new RangeError("mine");
    },
  };
  expect(() => encode(failing)).toThrow("mine");
  const nesting = {
    get a(): number {
      return encode({ b: 1 }).length;
    },
  };
  expect(decode(encode(nesting))).toEqual({ a: 4 });
  expect(hex(1)).toBe("01");
});

describe("strictness", () => {
  test.each([
    ["nothing", "", SerializationError],
    ["a value after the value", "0101", SerializationError],
    ["the opcode that is never used", "c1", SerializationError],
    ["text that is not UTF-8", "a1ff", SerializationError],
    ["long text that is not UTF-8", `d930${"ff".repeat(48)}`, SerializationError],
    ["text that is cut", "a261", SerializationError],
    ["a list that claims too much", "dd7fffffff", SerializationError],
    ["a map that claims too much", "dfffffffff", SerializationError],
    ["a key that is no text", "810101", ValidationError],
    ["a list that is too deep", "91".repeat(600), SerializationError],
  ])("%s is refused", (_, bytes, kind) => {
    expect(() => decode(of(bytes))).toThrow(kind);
  });

  test("numbers beyond 2^53 are bigints, and float32 is widened", () => {
    expect(decode(of("cfffffffffffffffff"))).toBe(2n ** 64n - 1n);
    expect(decode(of("cf0020000000000000"))).toBe(2n ** 53n);
    expect(decode(of("d3ffdfffffffffffff"))).toBe(-(2n ** 53n) - 1n);
    expect(decode(of("d3ffe0000000000001"))).toBe(-(2 ** 53) + 1);
    expect(decode(of("d3ffe0000000000000"))).toBe(-(2n ** 53n));
    expect(decode(of("d3000000000000000a"))).toBe(10);
    expect(decode(of("ca3fc00000"))).toBe(1.5);
    expect(decode(of("d1ff38"))).toBe(-200);
    expect(decode(of("d2ffff0000"))).toBe(-65_536);
  });
});

test("what is at a path is left packed, of any type", () => {
  fc.assert(
    fc.property(value, (one) => {
      const bytes = encode({ first: 1, payload: { type: "t", data: one, after: [2] }, last: { payload: 3 } });
      const found = decode(bytes, ["payload", "data"]) as { payload: { data: unknown } };
      expect(found.payload.data).toBeInstanceOf(Packed);
      expect(isDeepStrictEqual(unpack(found.payload.data), one)).toBe(true);
      expect(unpack(7)).toBe(7);
      expect(isDeepStrictEqual(decode(bytes, ["nothing", "there"]), decode(bytes))).toBe(true);
    }),
  );
  expect(decode(encode([1]), ["payload"])).toEqual([1]);
  expect(decode(encode({ payload: 5 }), ["payload", "data"])).toEqual({ payload: 5 });
  expect(() => decode(of("82a77061796c6f6164c1"), ["payload"])).toThrow(SerializationError);
  const many = Object.fromEntries(Array.from({ length: 20 }, (_, index) => [`k${index}`, index]));
  expect(decode(encode({ ...many, data: 1 }), ["data"])).toMatchObject({ k19: 19 });
  const proto = JSON.parse('{"__proto__": 1, "data": 2}');
  expect(Object.keys(decode(encode(proto), ["data"]) as object)).toEqual(["__proto__", "data"]);
});

test("UTF-8 of any text is that of the platform", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      if (!text.isWellFormed()) {
        expect(utf8Length(text)).toBe(-1);
        expect(() => utf8(text)).toThrow(TypeError);
        return;
      }
      expect(Buffer.from(utf8(text)).toString("hex")).toBe(Buffer.from(text, "utf8").toString("hex"));
      expect(fromUtf8(utf8(text))).toBe(text);
    }),
  );
});
