/** Returns by calendar month, from the equity curve. Pure. */

/** The formula, for readers. */
export const MONTHLY_FORMULA =
  "The last equity of a month / the last equity before it − 1, months in UTC; the first month counts from the initial " +
  "capital. A year is the same over its months.";

/** A year with the returns of its months, as fractions; NaN for a month without a bar. */
export interface YearOfReturns {
  readonly year: number;
  /** January first. */
  readonly months: Float64Array;
  /** The return over all months of the year. */
  readonly total: number;
}

/**
 * Returns the years from the first to the last bar, the earliest first.
 *
 * `times` are ascending milliseconds, `equity` that at the close of each bar; both have one length. Equity that is not
 * above zero ends the table: no return is defined from there on.
 */
export function monthlyReturns(
  times: ArrayLike<number>,
  equity: ArrayLike<number>,
  initial: number,
): readonly YearOfReturns[] {
  const years: { year: number; months: Float64Array; total: number }[] = [];
  let start = initial;
  let startOfYear = initial;
  let bar = 0;
  const length = equity.length;
  while (bar < length && start > 0) {
    const date = new Date(times[bar] as number);
    const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
    const next = Date.UTC(year, month + 1, 1);
    while (bar < length && (times[bar] as number) < next) bar += 1;
    const end = equity[bar - 1] as number;
    while (years.length > 0 && (years.at(-1)?.year ?? year) < year - 1) {
      years.push({ year: (years.at(-1)?.year ?? year) + 1, months: emptyYear(), total: Number.NaN });
    }
    let own = years.at(-1);
    if (own?.year !== year) {
      startOfYear = start;
      own = { year, months: emptyYear(), total: Number.NaN };
      years.push(own);
    }
    own.months[month] = end / start - 1;
    own.total = end / startOfYear - 1;
    start = end;
  }
  return years;
}

function emptyYear(): Float64Array {
  return new Float64Array(12).fill(Number.NaN);
}

/** Returns the largest absolute return of a month, by which colours are scaled; 0 if there is none. */
export function largestMonth(years: readonly YearOfReturns[]): number {
  let largest = 0;
  for (const { months } of years) {
    for (const one of months) if (Math.abs(one) > largest) largest = Math.abs(one);
  }
  return largest;
}
