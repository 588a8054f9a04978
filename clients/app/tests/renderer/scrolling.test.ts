import fc from "fast-check";
import { expect, test } from "vitest";
import {
  contentHeight,
  offsetOf,
  revealed,
  scrollTopOf,
  sight,
  TALLEST,
} from "../../renderer/src/components/scrolling";

const tables = fc.record({
  rows: fc.integer({ min: 1, max: 2_000_000 }),
  rowHeight: fc.integer({ min: 16, max: 60 }),
  viewHeight: fc.integer({ min: 100, max: 1500 }),
  share: fc.double({ min: 0, max: 1, noNaN: true }),
});

test("both ends of the scroll bar are both ends of the rows, however many there are", () => {
  fc.assert(
    fc.property(tables, ({ rows, rowHeight, viewHeight }) => {
      const way = Math.max(0, contentHeight(rows, rowHeight) - viewHeight);
      expect(contentHeight(rows, rowHeight)).toBeLessThanOrEqual(TALLEST);
      expect(offsetOf(0, rows, rowHeight, viewHeight)).toBe(0);
      expect(offsetOf(way, rows, rowHeight, viewHeight)).toBeCloseTo(Math.max(0, rows * rowHeight - viewHeight), 3);
    }),
  );
});

test("the rows in sight fill the view, and an offset comes back from its scroll position", () => {
  fc.assert(
    fc.property(tables, ({ rows, rowHeight, viewHeight, share }) => {
      const scrollTop = share * Math.max(0, contentHeight(rows, rowHeight) - viewHeight);
      const offset = offsetOf(scrollTop, rows, rowHeight, viewHeight);
      const seen = sight(offset, scrollTop, rows, rowHeight, viewHeight);
      expect(seen.top).toBeLessThanOrEqual(scrollTop + 1e-6);
      const bottom = seen.top + (seen.end - seen.first) * rowHeight;
      const content = contentHeight(rows, rowHeight);
      expect(bottom).toBeGreaterThanOrEqual(Math.min(content, scrollTop + viewHeight) - 1e-3);
      expect(scrollTopOf(offset, rows, rowHeight, viewHeight)).toBeCloseTo(scrollTop, 3);
    }),
  );
});

test("a row is brought into sight with the least movement", () => {
  expect(revealed(3, 0, 20, 100)).toBe(0);
  expect(revealed(7, 0, 20, 100)).toBe(60);
  expect(revealed(1, 60, 20, 100)).toBe(20);
});
