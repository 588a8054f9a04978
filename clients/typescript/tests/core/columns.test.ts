/** Columns of numbers: those that were sent, or a refusal with a reason. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { columnsByName } from "../../src/core/columns.js";
import { SerializationError } from "../../src/core/errors.js";

const CELLS = { dtype: "<i8", data: new Uint8Array(BigInt64Array.of(0n, 2n ** 40n, -1n).buffer) };
const VALUES = { dtype: "<f8", data: new Uint8Array(Float64Array.of(1.5, Number.NaN, -0).buffer) };

test("columns are numbers by name, of one length", () => {
  const found = columnsByName({ cell: CELLS, value: VALUES, ["__proto__"]: CELLS }, "cells");
  expect(Object.keys(found)).toEqual(["cell", "value", "__proto__"]);
  expect(found.cell).toEqual(Float64Array.of(0, 2 ** 40, -1));
  expect(found.value).toEqual(Float64Array.of(1.5, Number.NaN, -0));
  expect(columnsByName({}, "cells")).toEqual({});
});

test("numbers are those that were sent, wherever their bytes lie", () => {
  fc.assert(
    fc.property(fc.array(fc.double()), fc.array(fc.maxSafeInteger()), fc.nat(7), (floats, wholes, at) => {
      const sent = [Float64Array.from(floats), BigInt64Array.from(wholes.map(BigInt))].map(({ buffer }) => {
        const bytes = new Uint8Array(at + buffer.byteLength);
        bytes.set(new Uint8Array(buffer), at);
        return bytes.subarray(at);
      });
      const { value } = columnsByName({ value: { dtype: "<f8", data: sent[0] } }, "cells");
      const { cell } = columnsByName({ cell: { dtype: "<i8", data: sent[1] } }, "cells");
      expect(value).toEqual(Float64Array.from(floats));
      expect(cell).toEqual(Float64Array.from(wholes));
      expect(value?.buffer).not.toBe(sent[0]?.buffer);
    }),
  );
});

test.each([
  ["no map", [CELLS]],
  ["no column", { cell: 5 }],
  ["no bytes", { cell: { dtype: "<i8", data: [1] } }],
  ["another type", { cell: { ...CELLS, dtype: "<f4" } }],
  ["a part of a value", { cell: { ...CELLS, data: CELLS.data.subarray(1) } }],
  ["another length", { cell: CELLS, value: { ...VALUES, data: VALUES.data.subarray(8) } }],
])("what is %s is refused", (_what, columns) => {
  expect(() => columnsByName(columns, "the cells of a sweep")).toThrow(SerializationError);
  expect(() => columnsByName(columns, "the cells of a sweep")).toThrow("the cells of a sweep");
});
