/** Which candles are handed to the chart: those in view with margins, at the level that the view needs. Pure. */

/** A candle of level k is made of 4^k bars. */
export const LEVEL_FACTOR = 4;
/** So many candles may be in view; beyond it a candle is made of four times as many bars. */
export const MAX_IN_VIEW = 6_000;
/** The share of the view that is handed over on either side of it. */
const MARGIN = 0.5;
/** A margin has at least so many candles, so that small views do not ask for others at each step. */
const MIN_MARGIN = 200;

/** Candles `first` up to, not including, `end` of a level, which counts all candles of the series. */
export interface CandleWindow {
  readonly level: number;
  readonly first: number;
  readonly end: number;
}

/** Bars from `from` up to, not including, `to`; both may lie outside the series, and between bars. */
export interface BarRange {
  readonly from: number;
  readonly to: number;
}

/** Returns the bars that a candle of a level is made of. */
export function barsPerCandle(level: number): number {
  return LEVEL_FACTOR ** level;
}

/** Returns the level at which a view has at most `most` candles. */
export function levelFor(view: BarRange, most = MAX_IN_VIEW): number {
  let level = 0;
  while ((view.to - view.from) / barsPerCandle(level) > most) level += 1;
  return level;
}

/** Returns the window for a view of a series of `bars`. It has candles, if the series has any. */
export function windowFor(view: BarRange, bars: number): CandleWindow {
  const level = levelFor(view);
  const size = barsPerCandle(level);
  const candles = Math.ceil(bars / size);
  const margin = Math.max(MIN_MARGIN, Math.ceil(((view.to - view.from) / size) * MARGIN));
  const first = Math.floor(view.from / size) - margin;
  const end = Math.ceil(view.to / size) + margin;
  return {
    level,
    first: Math.min(Math.max(0, first), Math.max(0, candles - 1)),
    end: Math.max(Math.min(candles, end), Math.min(1, candles)),
  };
}

/** Returns whether `present` does not serve a view any more: another level, or the view reaches beyond it. */
export function isOutgrown(present: CandleWindow | undefined, view: BarRange, bars: number): boolean {
  if (present === undefined) return true;
  const level = levelFor(view);
  if (level !== present.level) return true;
  const size = barsPerCandle(level);
  const candles = Math.ceil(bars / size);
  const first = Math.max(0, Math.floor(view.from / size));
  const end = Math.min(candles, Math.ceil(view.to / size));
  return (first < present.first && present.first > 0) || (end > present.end && present.end < candles);
}

/** So many candles are added one by one; for more all are handed over anew. */
const MAX_ADDED = 200;

/**
 * Returns the window that the chart has once the candles at the end of `wanted` are added to `present`; undefined where
 * that does not give what is wanted, or would leave too many behind.
 */
export function grownWindow(present: CandleWindow | undefined, wanted: CandleWindow): CandleWindow | undefined {
  if (present === undefined || present.level !== wanted.level || present.first > wanted.first) return undefined;
  const added = wanted.end - present.end;
  if (added < 0 || added > MAX_ADDED || wanted.end - present.first > 2.5 * MAX_IN_VIEW) return undefined;
  return { level: present.level, first: present.first, end: wanted.end };
}
