/** Figures of the app with what they have to reach, as a table. */

import { loadavg } from "node:os";

export interface Figure {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  /** The most or the least that is wanted; none where it is only stated. */
  readonly target?: number;
  /** Whether a smaller or a larger value is better. */
  readonly better: "less" | "more";
}

/** True if a figure reaches its target, or has none. */
export function reaches({ value, target, better }: Figure): boolean {
  if (target === undefined) return true;
  return better === "less" ? value <= target : value >= target;
}

/** Returns the share-th quantile of values, without interpolation; NaN without values. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

/** The load of the machine over the last minute: processes that ran or waited. */
export function load(): string {
  return loadavg()[0]?.toFixed(1) ?? "?";
}

/** Returns one line of the table. */
export function line(figure: Figure): string {
  const target =
    figure.target === undefined ? "" : `${figure.better === "less" ? "≤" : "≥"} ${text(figure.target)} ${figure.unit}`;
  const verdict = figure.target === undefined ? "" : reaches(figure) ? "reached" : "MISSED";
  return `${figure.what.padEnd(52)} ${`${text(figure.value)} ${figure.unit}`.padStart(20)}   ${target.padEnd(20)} ${verdict}`;
}

function text(value: number): string {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString("en-US", { maximumFractionDigits: digits, minimumFractionDigits: digits });
}
