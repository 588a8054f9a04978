import fc from "fast-check";
import { expect, test } from "vitest";
import { type SortValue, sortedRows } from "../../renderer/src/components/sorting";

function expected(values: readonly SortValue[], descending: boolean): number[] {
  const has = (value: SortValue): boolean => value !== null && value !== undefined && !Number.isNaN(value);
  const rows = values.map((_, row) => row);
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  return rows.sort((left, right) => {
    const [one, other] = [values[left], values[right]];
    if (!has(one) || !has(other)) return has(one) === has(other) ? left - right : has(one) ? -1 : 1;
    const order = typeof one === "number" ? one - (other as number) : compare(String(one), String(other));
    return order === 0 || Number.isNaN(order) ? left - right : descending ? -order : order;
  });
}

const rowsOf = (values: readonly unknown[]): Uint32Array => Uint32Array.from(values.keys());

test("numbers come in order, equal ones as they were, and those that are none last", () => {
  const number = fc.oneof(
    fc.double({ noNaN: false }),
    fc.integer({ min: -3, max: 3 }),
    fc.constant(-0),
    fc.constant(null),
  );
  fc.assert(
    fc.property(fc.array(number), fc.boolean(), (values, descending) => {
      const sorted = sortedRows(rowsOf(values), (row) => values[row], descending);
      expect([...sorted]).toEqual(expected(values, descending));
    }),
  );
});

test("texts come in order, and none last", () => {
  const text = fc.oneof(fc.string(), fc.constant(null), fc.constantFrom("run 2", "run 10"));
  fc.assert(
    fc.property(fc.array(text), fc.boolean(), (values, descending) => {
      const sorted = sortedRows(rowsOf(values), (row) => values[row], descending);
      expect([...sorted]).toEqual(expected(values, descending));
    }),
  );
});

test("a part of the rows is sorted by itself", () => {
  const values = [5, 1, 4, 2];
  expect([...sortedRows(Uint32Array.of(0, 2, 3), (row) => values[row], false)]).toEqual([3, 2, 0]);
});
