/** The Sharpe ratio over a moving window of bars, by the engine's formula (`sharpeRatio`). Pure. */

/** The engine takes returns that deviate less than this for returns that do not vary. */
const NO_SPREAD = 4 * Number.EPSILON;
const MIN_WINDOW = 20;

/** The formula, for readers. */
export const ROLLING_SHARPE_FORMULA =
  "mean(r − f) / σ(r − f) · √A over the last n bars: rᵢ = eᵢ / eᵢ₋₁ − 1 are returns per bar, f the risk-free rate per bar, " +
  "σ has n − 1 degrees of freedom, A the bars per year of the result. Undefined before n bars, and where returns do not vary.";

/** Returns the window in bars for a backtest: a quarter of a year, but at most a fourth of all bars; 20 at least. */
export function rollingWindow(barsPerYear: number, bars: number): number {
  return Math.max(MIN_WINDOW, Math.min(Math.round(barsPerYear / 4), Math.floor(bars / 4)));
}

/** Returns the rate per bar that compounds to a yearly rate, as the engine has it. */
export function ratePerBar(yearly: number, barsPerYear: number): number {
  return Math.expm1(Math.log1p(yearly) / barsPerYear);
}

/**
 * Returns the Sharpe ratio at each bar over the last `window` bars; NaN where it is undefined.
 *
 * `equity` is that at the close of each bar, `initial` that before the first.
 */
export function rollingSharpe(
  equity: ArrayLike<number>,
  initial: number,
  window: number,
  barsPerYear: number,
  yearlyRiskFree: number,
): Float64Array {
  const length = equity.length;
  const ratios = new Float64Array(length).fill(Number.NaN);
  const n = Math.floor(window);
  if (n < 2 || n > length) return ratios;
  const riskFree = ratePerBar(yearlyRiskFree, barsPerYear);
  const year = Math.sqrt(barsPerYear);
  const excess = new Float64Array(length);
  let before = initial;
  for (let bar = 0; bar < length; bar += 1) {
    excess[bar] = (equity[bar] as number) / before - 1 - riskFree;
    before = equity[bar] as number;
  }
  // A window is the end of one stretch of n bars and the beginning of the next: figures of both are built up by adding
  // alone and then joined. Sums that move, by adding and subtracting, would keep the rounding errors of large returns
  // that have left, and those are no spread.
  const endMean = new Float64Array(n);
  const endSquares = new Float64Array(n);
  for (let first = 0; first + n <= length; first += n) {
    let mean = 0;
    let squares = 0;
    for (let count = 1; count <= n; count += 1) {
      const apart = (excess[first + n - count] as number) - mean;
      mean += apart / count;
      squares += apart * ((excess[first + n - count] as number) - mean);
      endMean[n - count] = mean;
      endSquares[n - count] = squares;
    }
    [mean, squares] = [0, 0];
    // `begun` bars of the next stretch are in the window that ends there.
    for (let begun = 0; begun < n && first + n - 1 + begun < length; begun += 1) {
      if (begun > 0) {
        const x = excess[first + n - 1 + begun] as number;
        const apart = x - mean;
        mean += apart / begun;
        squares += apart * (x - mean);
      }
      const between = mean - (endMean[begun] as number);
      const spread = (endSquares[begun] as number) + squares + between * between * ((begun * (n - begun)) / n);
      const deviation = Math.sqrt(spread / (n - 1));
      if (deviation >= NO_SPREAD) {
        ratios[first + n - 1 + begun] = (((endMean[begun] as number) + between * (begun / n)) / deviation) * year;
      }
    }
  }
  return ratios;
}
