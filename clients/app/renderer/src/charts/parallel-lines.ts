/** Chooses the rows that parallel coordinates draw as lines, and their order. Pure. */

import { stepOf } from "./colour-scale";

/** Lines in colour at most: of more rows the best ones, and every so many of the others. */
export const MOST_LINES = 2_500;
/** Lines of rows outside of the ranges, and of those without a value. */
const MOST_OTHERS = 1_000;
/** Groups of colours: to change the colour of a canvas costs more than a line. */
const GROUPS = 24;

/** Rows as columns. */
export interface LineColumns {
  /** The place of every row on each axis, from 0 to 1, NaN for none. */
  readonly shares: readonly Float64Array[];
  /** The quality of every row, from 0, the worst, to 1; NaN for a row without a value. */
  readonly quality: Float64Array;
  /** Tells whether a row lies in all ranges. */
  admits(row: number): boolean;
}

export interface Lines {
  /** The rows of each colour, the worst first, so that the best are drawn over them. */
  readonly steps: readonly { readonly step: number; readonly rows: readonly number[] }[];
  /** Rows outside of the ranges, and rows without a value. */
  readonly others: readonly number[];
  /** The rows in colour. */
  readonly count: number;
  /** True where some rows within the ranges are not drawn. */
  readonly isPart: boolean;
}

/** Chooses the lines. */
export function linesOf({ quality, admits }: LineColumns): Lines {
  const within: number[] = [];
  const beyond: number[] = [];
  for (let row = 0; row < quality.length; row += 1) {
    (admits(row) && !Number.isNaN(quality[row]) ? within : beyond).push(row);
  }
  const isPart = within.length > MOST_LINES;
  const chosen = isPart ? bestAndSome(within, quality) : within;
  const groups: number[][] = Array.from({ length: GROUPS }, () => []);
  for (const row of chosen) groups[Math.round((quality[row] as number) * (GROUPS - 1))]?.push(row);
  const stride = Math.ceil(beyond.length / MOST_OTHERS);
  return {
    steps: groups.flatMap((rows, at) => (rows.length === 0 ? [] : [{ step: stepOf(at / (GROUPS - 1)), rows }])),
    others: beyond.filter((_, at) => at % stride === 0),
    count: chosen.length,
    isPart,
  };
}

function bestAndSome(rows: readonly number[], quality: Float64Array): readonly number[] {
  const sorted = Float64Array.from(rows, (row) => quality[row] as number).sort();
  const half = MOST_LINES / 2;
  const least = sorted[sorted.length - half] as number;
  const stride = Math.ceil(rows.length / half);
  let best = 0;
  return rows.filter((row, at) => {
    if ((quality[row] as number) > least || ((quality[row] as number) === least && best < half)) {
      best += 1;
      return best <= half;
    }
    return at % stride === 0;
  });
}
