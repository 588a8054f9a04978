/** The fills of a backtest as columns, and which of them are where. Pure. */

/** Fills as columns of one length, in the order of their times. */
export interface FillColumns {
  /** Milliseconds, ascending. */
  readonly times: Float64Array;
  readonly prices: Float64Array;
  /** 1 bought, -1 sold. */
  readonly sides: Int8Array;
  readonly quantities: Float64Array;
  /** The row of the trade that each opened or added to; -1 of none. */
  readonly opens: Int32Array;
  /** The row of the trade that each closed; -1 of none. A reversal closes one and opens another. */
  readonly closes: Int32Array;
  /** The number of the bar in which each lies, where it is known already. */
  readonly places?: Float64Array | undefined;
}

/** Fills without a place in a chart. */
export const NO_FILLS: FillColumns = {
  times: new Float64Array(0),
  prices: new Float64Array(0),
  sides: new Int8Array(0),
  quantities: new Float64Array(0),
  opens: new Int32Array(0),
  closes: new Int32Array(0),
};

/** Where the fills of a range were drawn, in pixels: the place `index - first` has the fill `index`. */
export interface DrawnFills {
  first: number;
  count: number;
  xs: Float32Array;
  ys: Float32Array;
}

/**
 * Returns the fill that was drawn nearest to a place and within `radius` pixels of it; -1 if none was.
 *
 * The last of those that are equally near is drawn on top, and is taken.
 */
export function fillAt(drawn: DrawnFills, x: number, y: number, radius: number): number {
  let found = -1;
  let least = radius * radius;
  for (let place = 0; place < drawn.count; place += 1) {
    const dx = (drawn.xs[place] as number) - x;
    if (dx > radius || dx < -radius) continue;
    const dy = (drawn.ys[place] as number) - y;
    const distance = dx * dx + dy * dy;
    if (distance <= least) {
      least = distance;
      found = drawn.first + place;
    }
  }
  return found;
}

/** Returns the fills of a trade, in the order of their times. */
export function fillsOfTrade(fills: FillColumns, trade: number): number[] {
  const found: number[] = [];
  for (let index = 0; index < fills.times.length; index += 1) if (isOfTrade(fills, index, trade)) found.push(index);
  return found;
}

/** Returns whether a fill opened, added to or closed a trade. */
export function isOfTrade(fills: FillColumns, fill: number, trade: number): boolean {
  return fills.opens[fill] === trade || fills.closes[fill] === trade;
}

/** Returns the trade that a click on a fill selects: the one it opened, else the one it closed; -1 of none. */
export function tradeOfFill(fills: FillColumns, fill: number): number {
  const opened = fills.opens[fill] ?? -1;
  return opened >= 0 ? opened : (fills.closes[fill] ?? -1);
}
