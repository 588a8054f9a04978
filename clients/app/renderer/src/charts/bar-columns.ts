/**
 * The bars of one symbol as columns with a place for each bar of the backtest, filled slice by slice, and the candles of
 * longer spans that are made of them. Pure.
 *
 * A place without a bar is NaN: not loaded yet, or the symbol has no bar at that time.
 */

import { barsPerCandle } from "./candle-window";
import { lowerBound } from "./search";

/** Bars that are loaded together: 4^7, so that a candle of up to level 7 lies within a slice. */
export const SLICE_BARS = 16_384;

/** Bars of an answer: columns of one length, times ascending. */
export interface LoadedBars {
  readonly times: ArrayLike<number>;
  readonly open: ArrayLike<number>;
  readonly high: ArrayLike<number>;
  readonly low: ArrayLike<number>;
  readonly close: ArrayLike<number>;
}

/** The columns of a level. */
export interface Candles {
  readonly open: Float64Array;
  readonly high: Float64Array;
  readonly low: Float64Array;
  readonly close: Float64Array;
}

/** The bars of one symbol at the times of a backtest. */
export class BarColumns {
  /** The times of all bars of the backtest, ascending milliseconds. */
  readonly times: Float64Array;
  readonly #levels: Candles[] = [];
  readonly #loaded: Uint8Array;

  constructor(times: Float64Array) {
    this.times = times;
    this.#loaded = new Uint8Array(Math.ceil(times.length / SLICE_BARS));
  }

  /** The number of slices. */
  get slices(): number {
    return this.#loaded.length;
  }

  /** Whether a slice was put. */
  isLoaded(slice: number): boolean {
    return this.#loaded[slice] === 1;
  }

  /** Whether every slice was put. */
  get isComplete(): boolean {
    return !this.#loaded.includes(0);
  }

  /** Returns the times of a slice: from that of its first bar up to, not including, `to`, which is null behind the last. */
  spanOf(slice: number): { readonly from: number; readonly to: number | null } {
    const end = (slice + 1) * SLICE_BARS;
    return {
      from: this.times[slice * SLICE_BARS] as number,
      to: end < this.times.length ? (this.times[end] as number) : null,
    };
  }

  /** Returns the slices of candles of a window that were not put, in order. */
  missing(level: number, first: number, end: number): number[] {
    const size = barsPerCandle(level);
    const last = Math.min(this.slices - 1, Math.floor((end * size - 1) / SLICE_BARS));
    const found: number[] = [];
    for (let slice = Math.floor((first * size) / SLICE_BARS); slice <= last; slice += 1) {
      if (!this.isLoaded(slice)) found.push(slice);
    }
    return found;
  }

  /** Puts the bars of a slice. Bars at other times than those of the backtest are left out. */
  put(slice: number, bars: LoadedBars): void {
    const begin = slice * SLICE_BARS;
    const end = Math.min(this.times.length, begin + SLICE_BARS);
    const into = this.candles(0);
    const count = bars.times.length;
    let row = lowerBound(bars.times, this.times[begin] as number, count);
    for (let at = begin; at < end && row < count; at += 1) {
      const time = this.times[at] as number;
      while (row < count && (bars.times[row] as number) < time) row += 1;
      if (row >= count || bars.times[row] !== time) continue;
      into.open[at] = bars.open[row] as number;
      into.high[at] = bars.high[row] as number;
      into.low[at] = bars.low[row] as number;
      into.close[at] = bars.close[row] as number;
      row += 1;
    }
    this.#loaded[slice] = 1;
    for (let level = 1; level < this.#levels.length; level += 1) this.#fold(level, begin, end);
  }

  /** Returns the candles of a level; those of slices that were not put are NaN. */
  candles(level: number): Candles {
    while (this.#levels.length <= level) {
      const next = this.#levels.length;
      this.#levels.push(emptyCandles(Math.ceil(this.times.length / barsPerCandle(next))));
      if (next > 0) this.#fold(next, 0, this.times.length);
    }
    return this.#levels[level] as Candles;
  }

  /** Makes the candles of a level that have the bars from `begin` to `end` of those of the level below. */
  #fold(level: number, begin: number, end: number): void {
    const size = barsPerCandle(level);
    const below = this.#levels[level - 1] as Candles;
    const into = this.#levels[level] as Candles;
    const each = barsPerCandle(1);
    for (let candle = Math.floor(begin / size); candle * size < end; candle += 1) {
      const stop = Math.min(below.open.length, (candle + 1) * each);
      let [open, high, low, close] = [Number.NaN, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, Number.NaN];
      for (let at = candle * each; at < stop; at += 1) {
        if (Number.isNaN(below.close[at])) continue;
        if (Number.isNaN(open)) open = below.open[at] as number;
        high = Math.max(high, below.high[at] as number);
        low = Math.min(low, below.low[at] as number);
        close = below.close[at] as number;
      }
      const isEmpty = Number.isNaN(close);
      into.open[candle] = open;
      into.high[candle] = isEmpty ? Number.NaN : high;
      into.low[candle] = isEmpty ? Number.NaN : low;
      into.close[candle] = close;
    }
  }
}

function emptyCandles(length: number): Candles {
  const column = (): Float64Array => new Float64Array(length).fill(Number.NaN);
  return { open: column(), high: column(), low: column(), close: column() };
}
