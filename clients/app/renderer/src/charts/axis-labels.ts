/** Labels of a y axis: as many digits as the step between them needs. Pure. */

import { fixed } from "../format/numbers";

const [THOUSAND, MILLION, BILLION] = [1e3, 1e6, 1e9];
const MOST_DIGITS = 8;

/** Returns the digits behind the point that tell values apart that differ by `step`. */
export function digitsFor(step: number): number {
  if (!(step > 0)) return 0;
  for (let digits = 0; digits < MOST_DIGITS; digits += 1) {
    const scaled = step * 10 ** digits;
    if (Math.abs(scaled - Math.round(scaled)) < 1e-6 * scaled && Math.round(scaled) > 0) return digits;
  }
  return MOST_DIGITS;
}

/** Returns `1,250`, `12.5k` or `1.25M`. */
export function numberLabel(value: number, step: number): string {
  const size = Math.abs(value);
  const [unit, letter] =
    size >= BILLION
      ? [BILLION, "G"]
      : size >= MILLION
        ? [MILLION, "M"]
        : size >= 10 * THOUSAND
          ? [THOUSAND, "k"]
          : [1, ""];
  return `${fixed(value / unit, digitsFor(step / unit))}${letter}`;
}

/** Returns a fraction as `12.5 %`. */
export function percentLabel(value: number, step: number): string {
  return `${fixed(100 * value, digitsFor(100 * step))} %`;
}
