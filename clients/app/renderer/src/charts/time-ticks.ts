/** The places of labels on an axis of times, and their texts. Pure. */

import { lowerBound } from "./search";

/** A label of the x axis. */
export interface Tick {
  /** In the unit of the axis. */
  readonly at: number;
  readonly text: string;
}

const [SECOND, MINUTE, HOUR, DAY] = [1_000, 60_000, 3_600_000, 86_400_000];
/** Steps of labels that are fixed spans. */
const SPANS = [1, 5, 15, 30]
  .map((one) => one * SECOND)
  .concat([1, 5, 15, 30].map((one) => one * MINUTE))
  .concat([1, 3, 6, 12].map((one) => one * HOUR))
  .concat([1, 2, 7].map((one) => one * DAY));
/** Steps of labels in months. */
const MONTHS = [1, 3, 6, 12, 24, 60, 120];
const MONTHS_MS = 30.44 * DAY;
const MONTH_NAMES = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Translates between the places of an x axis and times. */
export interface Axis {
  /** Returns the time of a place, in milliseconds; the nearest there is for places outside. */
  timeAt(place: number): number;
  /** Returns the place of a time: of axes of bars that of the first bar at or after it. */
  placeOf(time: number): number;
}

/** An axis whose places are times. */
export const TIME_AXIS: Axis = { timeAt: (place) => place, placeOf: (time) => time };

/** Returns an axis whose places are the numbers of bars, 0 for the first. `times` gives the present column, ascending. */
export function barAxis(times: () => Float64Array): Axis {
  return {
    timeAt: (place) => {
      const column = times();
      return column[Math.max(0, Math.min(column.length - 1, Math.round(place)))] ?? Number.NaN;
    },
    placeOf: (time) => lowerBound(times(), time),
  };
}

/**
 * Returns at most `most` labels for the places from `from` to `to`, at round times in UTC.
 *
 * On an axis of bars a round time without a bar is labelled at the next bar, once.
 */
export function timeTicks(axis: Axis, from: number, to: number, most: number): Tick[] {
  const [start, end] = [axis.timeAt(from), axis.timeAt(to)];
  if (!(end > start) || most < 1) return [];
  const least = (to - from) / (most * 1.6);
  const wanted = (end - start) / most;
  const span = SPANS.find((one) => one >= wanted);
  const boundaries = span === undefined ? monthly(start, end, wanted) : spaced(start, end, span);
  const ticks: Tick[] = [];
  for (const time of boundaries) {
    const at = axis.placeOf(time);
    if (at < from || at > to) continue;
    const last = ticks.at(-1);
    if (last !== undefined && at - last.at < least) continue;
    ticks.push({ at, text: label(time, span ?? MONTHS_MS) });
  }
  return ticks;
}

function spaced(start: number, end: number, span: number): number[] {
  const found: number[] = [];
  for (let time = Math.ceil(start / span) * span; time <= end; time += span) found.push(time);
  return found;
}

function monthly(start: number, end: number, wanted: number): number[] {
  const step = MONTHS.find((one) => one * MONTHS_MS >= wanted) ?? Math.ceil(wanted / MONTHS_MS / 120) * 120;
  const first = new Date(start);
  let month = Math.floor((first.getUTCFullYear() * 12 + first.getUTCMonth()) / step) * step;
  const found: number[] = [];
  for (; ; month += step) {
    const time = Date.UTC(Math.floor(month / 12), month % 12, 1);
    if (time > end) return found;
    if (time >= start) found.push(time);
  }
}

function label(time: number, step: number): string {
  const date = new Date(time);
  const [month, day] = [MONTH_NAMES[date.getUTCMonth()] as string, date.getUTCDate()];
  if (step >= DAY) {
    if (day === 1) return date.getUTCMonth() === 0 ? String(date.getUTCFullYear()) : month;
    return `${day} ${month}`;
  }
  const clock = date.toISOString().slice(11, step < MINUTE ? 19 : 16);
  return clock === "00:00" ? `${day} ${month}` : clock;
}
