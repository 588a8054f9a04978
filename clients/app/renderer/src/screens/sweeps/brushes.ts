/** Brushes: ranges along the axes of parallel coordinates that rows must lie in. Pure. */

import type { AxisRange } from "../../charts/parallel-chart";
import type { Axis } from "./axes";
import { columnOf, type SweepCells } from "./cells";

/** Shares from 0 to 1, by the name of an axis. */
export type Brushes = { readonly [axis: string]: AxisRange };

/** A rounding error of a place must not leave its value out. */
const SLACK = 1e-9;

/** Returns brushes with another one of an axis; one that is the whole axis is none. */
export function withBrush(brushes: Brushes, axis: string, brush: AxisRange | undefined): Brushes {
  const { [axis]: _, ...others } = brushes;
  if (brush === undefined || (brush.from <= 0 && brush.to >= 1)) return others;
  return { ...others, [axis]: { from: Math.max(0, brush.from), to: Math.min(1, brush.to) } };
}

/** Returns what tells whether the cell at a place lies in all brushes. A brush up to an end takes all beyond it. */
export function admitted(brushes: Brushes, axes: readonly Axis[], cells: SweepCells): (place: number) => boolean {
  const tests = axes.flatMap((axis) => {
    const brush = brushes[axis.name];
    if (brush === undefined) return [];
    const column = columnOf(cells, axis.name);
    return [
      (place: number): boolean => {
        const share = Math.max(0, Math.min(1, axis.share(column[place] as number)));
        return share >= brush.from - SLACK && share <= brush.to + SLACK; // false for NaN
      },
    ];
  });
  return (place) => tests.every((test) => test(place));
}

/** Returns the brushes as a filter of rows in the broker's words; undefined where there is none. */
export function whereOf(brushes: Brushes, axes: readonly Axis[]): string | undefined {
  const parts = axes.flatMap((axis) => {
    const brush = brushes[axis.name];
    if (brush === undefined || !axis.isNumeric) return [];
    const ends = [
      ...(brush.from <= 0 ? [] : [[inward(axis, brush.from, 1), axis.isFalling ? "<=" : ">="]]),
      ...(brush.to >= 1 ? [] : [[inward(axis, brush.to, -1), axis.isFalling ? ">=" : "<="]]),
    ];
    return ends.map(([value, sign]) => `${axis.name} ${sign} ${value}`);
  });
  return parts.length === 0 ? undefined : parts.join(" and ");
}

/** The value at a share, or the next one inside of the brush where that lies outside. */
function inward(axis: Axis, share: number, way: 1 | -1): number {
  const value = axis.valueAt(share);
  const off = axis.share(value) - share;
  return way * off >= -SLACK ? value : axis.valueAt(share + way / Math.max(1, axis.count - 1));
}
