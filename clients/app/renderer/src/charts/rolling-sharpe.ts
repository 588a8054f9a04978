/** The Sharpe ratio over a moving window of bars, by the engine's formula (`sharpeRatio`). Pure. */

/** The engine takes returns that deviate less than this for returns that do not vary. */
const NO_SPREAD = 4 * Number.EPSILON;
/** Sums are made anew after so many bars, so that no rounding adds up. */
const ANEW = 4096;
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
  let sum = Number.NaN;
  let squares = Number.NaN;
  let shift = 0;
  // Bars up to this one with one and the same return: sums that move have rounding errors, which are no spread.
  let same = 1;
  for (let bar = 1; bar < n - 1; bar += 1) same = excess[bar] === excess[bar - 1] ? same + 1 : 1;
  for (let bar = n - 1; bar < length; bar += 1) {
    same = bar > 0 && excess[bar] === excess[bar - 1] ? same + 1 : 1;
    if (same >= n) {
      sum = Number.NaN;
      continue;
    }
    if ((bar - n + 1) % ANEW === 0 || !Number.isFinite(sum)) {
      // Powers of what is near the mean, so that nothing cancels.
      shift = 0;
      for (let at = bar - n + 1; at <= bar; at += 1) shift += excess[at] as number;
      shift /= n;
      [sum, squares] = [0, 0];
      for (let at = bar - n + 1; at <= bar; at += 1) {
        const x = (excess[at] as number) - shift;
        sum += x;
        squares += x * x;
      }
    } else {
      const came = (excess[bar] as number) - shift;
      const left = (excess[bar - n] as number) - shift;
      sum += came - left;
      squares += came * came - left * left;
    }
    const mean = sum / n;
    const deviation = Math.sqrt(Math.max(0, squares / n - mean * mean) * (n / (n - 1)));
    if (deviation >= NO_SPREAD) ratios[bar] = ((shift + mean) / deviation) * year;
  }
  return ratios;
}
