/** Bars that come page by page in the order of their times, with the candles of longer spans. Pure. */

import type { Candles, LoadedBars } from "../../charts/bar-columns";
import { barsPerCandle, LEVEL_FACTOR } from "../../charts/candle-window";

const MIN_CAPACITY = 16_384;
const NAMES = ["open", "high", "low", "close"] as const;

interface Level {
  open: Float64Array;
  high: Float64Array;
  low: Float64Array;
  close: Float64Array;
}

/** Columns of bars that grow at their end. */
export class GrowingBars {
  #times = new Float64Array(MIN_CAPACITY);
  readonly #levels: Level[] = [made(MIN_CAPACITY)];
  #length = 0;

  /** The number of bars. */
  get length(): number {
    return this.#length;
  }

  /** The times of all bars, ascending milliseconds. */
  get times(): Float64Array {
    return this.#times.subarray(0, this.#length);
  }

  /** Adds bars that follow on those that are there; earlier ones are left out. */
  append(bars: LoadedBars): void {
    const last = this.#length === 0 ? Number.NEGATIVE_INFINITY : (this.#times[this.#length - 1] as number);
    const begin = this.#length;
    const count = bars.times.length;
    this.#reserve(begin + count);
    const own = this.#levels[0] as Level;
    for (let row = 0; row < count; row += 1) {
      const time = bars.times[row] as number;
      if (time <= last) continue;
      this.#times[this.#length] = time;
      for (const name of NAMES) own[name][this.#length] = bars[name][row] as number;
      this.#length += 1;
    }
    for (let level = 1; level < this.#levels.length; level += 1) this.#fold(level, begin);
  }

  /** Returns the candles of a level. */
  candles(level: number): Candles {
    while (this.#levels.length <= level) {
      this.#levels.push(made(Math.ceil(this.#times.length / barsPerCandle(this.#levels.length))));
      this.#fold(this.#levels.length - 1, 0);
    }
    return this.#levels[level] as Level;
  }

  #reserve(bars: number): void {
    if (bars <= this.#times.length) return;
    const capacity = Math.max(bars, 2 * this.#times.length);
    const times = new Float64Array(capacity);
    times.set(this.#times);
    this.#times = times;
    for (const [level, present] of this.#levels.entries()) {
      const larger = made(Math.ceil(capacity / barsPerCandle(level)));
      for (const name of NAMES) larger[name].set(present[name]);
      this.#levels[level] = larger;
    }
  }

  /** Makes the candles of a level from the one that has the bar `begin` on. */
  #fold(level: number, begin: number): void {
    const [below, into] = [this.#levels[level - 1] as Level, this.#levels[level] as Level];
    const size = barsPerCandle(level);
    const candles = Math.ceil(this.#length / barsPerCandle(level - 1));
    for (let candle = Math.floor(begin / size); candle * size < this.#length; candle += 1) {
      const first = candle * LEVEL_FACTOR;
      const end = Math.min(candles, first + LEVEL_FACTOR);
      let [high, low] = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
      for (let at = first; at < end; at += 1) {
        high = Math.max(high, below.high[at] as number);
        low = Math.min(low, below.low[at] as number);
      }
      into.open[candle] = below.open[first] as number;
      into.high[candle] = high;
      into.low[candle] = low;
      into.close[candle] = below.close[end - 1] as number;
    }
  }
}

function made(length: number): Level {
  const column = (): Float64Array => new Float64Array(length).fill(Number.NaN);
  return { open: column(), high: column(), low: column(), close: column() };
}
