/** The bins of a histogram. Pure. */

/** A bin: values from `from` up to, not including, `to`. */
export interface Bin {
  readonly from: number;
  readonly to: number;
  readonly count: number;
}

const MAX_BINS = 60;
/** No bin is narrower: what differs by less is rounding. */
const LEAST_WIDTH = 1e-12;

/** The formula, for readers. */
export const HISTOGRAM_FORMULA =
  "The number of values in each bin. Bins have one width, near that of Freedman and Diaconis (2 · interquartile range / ∛n), and zero is an edge of bins, so none mixes gains with losses.";

/**
 * Returns bins of one width that hold every finite value; zero is an edge of them. Empty without a finite value.
 */
export function binned(values: ArrayLike<number>): readonly Bin[] {
  const sorted = Float64Array.from({ length: values.length }, (_, index) => values[index] as number)
    .filter((one) => Number.isFinite(one))
    .sort();
  const count = sorted.length;
  if (count === 0) return [];
  const [low, high] = [sorted[0] as number, sorted[count - 1] as number];
  const width = widthOf(sorted, low, high);
  const first = Math.floor(low / width);
  const last = Math.max(first, Math.floor(high / width));
  const counts = new Array<number>(last - first + 1).fill(0);
  for (const value of sorted) {
    const bin = Math.min(counts.length - 1, Math.max(0, Math.floor(value / width) - first));
    counts[bin] = (counts[bin] as number) + 1;
  }
  return counts.map((one, index) => ({ from: (first + index) * width, to: (first + index + 1) * width, count: one }));
}

/** Returns 1, 2 or 5 times a power of ten, near the width of Freedman and Diaconis. */
function widthOf(sorted: Float64Array, low: number, high: number): number {
  const spread = high - low;
  const largest = Math.max(Math.abs(low), Math.abs(high));
  if (spread === 0 || spread < largest * 1e-9) return nice(largest === 0 ? 1 : Math.max(LEAST_WIDTH, largest));
  const quartile = (share: number): number => sorted[Math.floor(share * (sorted.length - 1))] as number;
  const wanted = (2 * (quartile(0.75) - quartile(0.25))) / Math.cbrt(sorted.length);
  // Two bins are cut at the edges, and the rounding to a nice width may halve it.
  return nice(Math.max(wanted, spread / (MAX_BINS - 2), LEAST_WIDTH));
}

/** Returns the least of 1, 2, 5 and 10 times a power of ten that is at least `width`. */
function nice(width: number): number {
  const power = 10 ** Math.floor(Math.log10(width));
  for (const times of [1, 2, 5]) if (times * power >= width) return times * power;
  return 10 * power;
}
