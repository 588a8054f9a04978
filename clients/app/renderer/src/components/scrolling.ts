/**
 * The rows of a table that are in sight, by how far it is scrolled.
 *
 * Browsers bound the height of an element (Firefox to 17.8 million pixels), so a table of a million rows is lower than
 * its rows: the whole way of the scroll bar stands for all rows then.
 */

/** Pixels; below the bounds of all browsers. */
export const TALLEST = 8_000_000;

/** The rows to draw: from `first` up to, but not including, `end`; the first one stands at `top` pixels. */
export interface Sight {
  readonly first: number;
  readonly end: number;
  readonly top: number;
}

/** Returns the pixels of the scrolled content. */
export function contentHeight(rows: number, rowHeight: number): number {
  return Math.min(TALLEST, rows * rowHeight);
}

/** Returns the pixels above the first row in sight, of all rows' height, for a scroll position. */
export function offsetOf(scrollTop: number, rows: number, rowHeight: number, viewHeight: number): number {
  const all = rows * rowHeight;
  const ways = contentHeight(rows, rowHeight) - viewHeight;
  if (ways <= 0) return 0;
  return Math.max(0, Math.min(all - viewHeight, (scrollTop / ways) * (all - viewHeight)));
}

/** Returns the scroll position of an offset; the inverse of `offsetOf`. */
export function scrollTopOf(offset: number, rows: number, rowHeight: number, viewHeight: number): number {
  const all = rows * rowHeight;
  if (all <= viewHeight) return 0;
  return (offset / (all - viewHeight)) * (contentHeight(rows, rowHeight) - viewHeight);
}

/** Returns the rows in sight with `margin` rows before and behind, placed in the scrolled content. */
export function sight(
  offset: number,
  scrollTop: number,
  rows: number,
  rowHeight: number,
  viewHeight: number,
  margin = 6,
): Sight {
  const first = Math.max(0, Math.floor(offset / rowHeight) - margin);
  const end = Math.min(rows, Math.ceil((offset + viewHeight) / rowHeight) + margin);
  return { first, end, top: scrollTop + (first * rowHeight - offset) };
}

/** Returns the offset at which a row is wholly in sight, nearest to the present one. */
export function revealed(row: number, offset: number, rowHeight: number, viewHeight: number): number {
  const top = row * rowHeight;
  if (top < offset) return top;
  return top + rowHeight > offset + viewHeight ? top + rowHeight - viewHeight : offset;
}
