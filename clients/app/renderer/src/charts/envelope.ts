/** The points of columns that a chart of a width needs to draw: all of them, or the extremes at each pixel. */

import type { Extremes, Pyramid } from "./pyramid";
import { lowerBound, upperBound } from "./search";

/** The part of the x axis that is shown, in the unit of the x column, and the pixels it is drawn on. */
export interface View {
  readonly from: number;
  readonly to: number;
  readonly pixels: number;
}

/** Points to draw: one x for all series; null draws a gap. */
export interface Envelope {
  readonly xs: number[];
  readonly series: (number | null)[][];
  /** True if these are all points of the view, and not their extremes at each pixel. */
  readonly isExact: boolean;
}

/** Up to so many points a pixel are drawn as they are. */
const POINTS_PER_PIXEL = 2;

/**
 * Returns the points of several columns over one ascending x column.
 *
 * Beyond two points a pixel, each pixel has two: its extremes, in the order in which the line goes. They equal those of
 * all values there. One point on either side of the view lets lines run to the edges.
 */
export function envelope(xs: ArrayLike<number>, columns: readonly Pyramid[], view: View): Envelope {
  const length = columns.reduce((least, one) => Math.min(least, one.length), xs.length);
  const first = Math.max(0, lowerBound(xs, view.from, length) - 1);
  const last = Math.min(length, upperBound(xs, view.to, length) + 1);
  const pixels = Math.max(1, Math.floor(view.pixels));
  if (last - first <= POINTS_PER_PIXEL * pixels) return exact(xs, columns, first, last);
  return reduced(xs, columns, first, last, { ...view, pixels });
}

function exact(xs: ArrayLike<number>, columns: readonly Pyramid[], first: number, last: number): Envelope {
  const shown: number[] = [];
  for (let index = first; index < last; index += 1) shown.push(xs[index] as number);
  const series = columns.map((column) => {
    const values: (number | null)[] = [];
    for (let index = first; index < last; index += 1) values.push(orGap(column.values[index] as number));
    return values;
  });
  return { xs: shown, series, isExact: true };
}

function reduced(
  xs: ArrayLike<number>,
  columns: readonly Pyramid[],
  first: number,
  last: number,
  view: View,
): Envelope {
  const shown: number[] = [];
  const series: (number | null)[][] = columns.map(() => []);
  const width = (view.to - view.from) / view.pixels;
  const found: Extremes = { min: 0, max: 0 };
  let begin = first;
  while (begin < last) {
    const pixel = Math.floor(((xs[begin] as number) - view.from) / width);
    const end = Math.max(begin + 1, Math.min(last, lowerBound(xs, view.from + (pixel + 1) * width, last)));
    shown.push(xs[begin] as number);
    if (end - begin > 1) shown.push(xs[end - 1] as number);
    for (const [index, column] of columns.entries()) {
      const into = series[index] as (number | null)[];
      if (end - begin === 1) into.push(orGap(column.values[begin] as number));
      else pushExtremes(into, column, begin, end, found);
    }
    begin = end;
  }
  return { xs: shown, series, isExact: false };
}

function pushExtremes(into: (number | null)[], column: Pyramid, begin: number, end: number, found: Extremes): void {
  column.extremes(begin, end, found);
  if (found.min > found.max) into.push(null, null);
  else if ((column.values[begin] as number) <= (column.values[end - 1] as number)) into.push(found.min, found.max);
  else into.push(found.max, found.min);
}

function orGap(value: number): number | null {
  return Number.isNaN(value) ? null : value;
}
