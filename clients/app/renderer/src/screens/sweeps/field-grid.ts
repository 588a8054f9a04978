/** The fields of a heat map: of the cells that fall into one, the best. Pure. */

import { type Axis, fieldOf } from "./axes";
import { columnOf, type SweepCells } from "./cells";

/** No cell has come. */
export const NOT_RUN = -1;

/** The fields from left to right and from below, with the place of the best cell of each, or `NOT_RUN`. */
export interface FieldGrid {
  readonly across: number;
  readonly up: number;
  readonly best: Int32Array;
  /** The cells of each field. */
  readonly counts: Uint32Array;
}

export interface GridOf {
  readonly cells: SweepCells;
  readonly x: Axis;
  readonly y: Axis;
  readonly isLessBetter: boolean;
  /** Leaves out the cells for which it is false. */
  admits(place: number): boolean;
}

/** Returns the grid of two axes. A cell without a value stands for a field only where there is no other. */
export function fieldGrid({ cells, x, y, isLessBetter, admits }: GridOf): FieldGrid {
  const [across, up] = [x.fields, y.fields];
  const best = new Int32Array(across * up).fill(NOT_RUN);
  const counts = new Uint32Array(across * up);
  const [xs, ys] = [columnOf(cells, x.name), columnOf(cells, y.name)];
  const { values } = cells;
  for (let place = 0; place < values.length; place += 1) {
    if (!admits(place)) continue;
    const field = fieldOf(y, ys[place] as number) * across + fieldOf(x, xs[place] as number);
    counts[field] = (counts[field] as number) + 1;
    const had = best[field] as number;
    if (had === NOT_RUN || isBetter(values[place] as number, values[had] as number, isLessBetter)) best[field] = place;
  }
  return { across, up, best, counts };
}

/** Returns whether a value is better than another one; any value is better than none. */
export function isBetter(value: number, other: number, isLessBetter: boolean): boolean {
  if (Number.isNaN(value)) return false;
  return Number.isNaN(other) || (isLessBetter ? value < other : value > other);
}
