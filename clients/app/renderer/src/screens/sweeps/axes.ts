/** The values of each swept parameter as places of an axis. Pure. */

import { price } from "../../format/numbers";

/** Fields along an axis at most; of more values several share a field. */
export const MOST_FIELDS = 400;
/** Fields along an axis at most where charts have every nth cell: of more, some would have no cell by chance. */
const SPARSE_FIELDS = 128;
/** Fields of an axis whose values are drawn from a range. */
const DRAWN_FIELDS = 48;

/** An axis of the space. Values are numbers: of a text its place in the list, of true and false 1 and 0. */
export interface Axis {
  readonly name: string;
  /** The number of values; of a distribution, that of the fields which its range is parted into. */
  readonly count: number;
  readonly fields: number;
  /** Returns the place of a value, from 0 to 1. */
  share(value: number): number;
  /** Returns the value at a place; of listed values the nearest one. */
  valueAt(share: number): number;
  text(value: number): string;
  /** False where rows cannot be filtered by it, since the broker compares no texts. */
  readonly isNumeric: boolean;
  /** True where lower values are above. */
  readonly isFalling?: boolean;
}

/** Returns the field of a value along its axis. */
export function fieldOf(axis: Axis, value: number): number {
  const { count, fields } = axis;
  const share = axis.share(value);
  const field = fields < count ? Math.floor(share * fields + 1e-9) : Math.round(share * (fields - 1));
  return Math.max(0, Math.min(fields - 1, field || 0));
}

/** Returns the words of a field: its value, or the first and the last of its values. */
export function fieldText(axis: Axis, field: number): string {
  const { count, fields } = axis;
  const last = Math.max(1, count - 1);
  const first = (of: number): number => Math.ceil((of * last) / fields - 1e-9); // the place of a field's first value
  const ends =
    fields < count
      ? [first(field) / last, field === fields - 1 ? 1 : (first(field + 1) - 1) / last]
      : [-0.499, 0.499].map((off) => (field + off) / Math.max(1, fields - 1));
  const [from, to] = ends.map((share) => axis.text(axis.valueAt(share))) as [string, string];
  return from === to ? from : `${from} to ${to}`;
}

/** Returns the label of a field: its value, or the one in its middle. */
export function fieldLabel(axis: Axis, field: number): string {
  const { count, fields } = axis;
  return axis.text(axis.valueAt(fields < count ? (field + 0.5) / fields : field / Math.max(1, fields - 1)));
}

/**
 * Returns the axes of a request's space; parameters of one value are none. Where every `stride`th cell is known, an axis has
 * few fields enough that each has some.
 */
export function axesOf(space: { readonly [name: string]: unknown }, stride = 1): readonly Axis[] {
  return Object.entries(space).flatMap(([name, given], place, all) => {
    const axis = axisOf(name, given);
    if (axis === undefined || axis.count < 2) return [];
    if (stride === 1) return [axis];
    // The last parameter varies first: of its values those are known that the stride meets.
    const met = place === all.length - 1 ? axis.count / commonDivisor(stride, axis.count) / 1.5 : axis.count;
    return [{ ...axis, fields: Math.max(1, Math.min(axis.fields, SPARSE_FIELDS, Math.floor(met))) }];
  });
}

function commonDivisor(one: number, other: number): number {
  return other === 0 ? one : commonDivisor(other, one % other);
}

interface Range {
  readonly low: number;
  readonly high: number;
  readonly step?: number;
  readonly distribution?: "uniform" | "log_uniform";
}

function axisOf(name: string, given: unknown): Axis | undefined {
  if (Array.isArray(given)) return listed(name, given);
  if (typeof given !== "object" || given === null) return undefined;
  const { low, high, step, distribution } = given as Range;
  const log = distribution === "log_uniform";
  if (typeof step === "number") {
    const count = Math.floor((high - low) / step + 1e-9) + 1;
    return evenly(name, count, low, step);
  }
  const [from, to] = log ? [Math.log(low), Math.log(high)] : [low, high];
  return {
    name,
    count: DRAWN_FIELDS,
    fields: DRAWN_FIELDS,
    share: (value) => ((log ? Math.log(value) : value) - from) / (to - from || 1),
    valueAt: (share) => {
      const at = from + Math.max(0, Math.min(1, share)) * (to - from);
      return log ? Math.exp(at) : at;
    },
    text: numberText,
    isNumeric: true,
  };
}

function evenly(name: string, count: number, low: number, step: number): Axis {
  const last = Math.max(1, count - 1);
  return {
    name,
    count,
    fields: Math.min(count, MOST_FIELDS),
    share: (value) => (value - low) / step / last,
    valueAt: (share) => Number((low + step * Math.round(Math.max(0, Math.min(1, share)) * last)).toPrecision(12)),
    text: numberText,
    isNumeric: true,
  };
}

function listed(name: string, given: readonly unknown[]): Axis {
  const isNumeric = given.every((one) => typeof one === "number");
  const values = given.map((one, place) => (typeof one === "string" ? place : Number(one)));
  const sorted = Float64Array.from(values).sort();
  const places = new Map(Array.from(sorted, (value, place) => [value, place]));
  const words = new Map(values.map((value, place) => [value, isNumeric ? numberText(value) : String(given[place])]));
  const last = Math.max(1, sorted.length - 1);
  return {
    name,
    count: sorted.length,
    fields: Math.min(sorted.length, MOST_FIELDS),
    share: (value) => (places.get(value) ?? 0) / last,
    valueAt: (share) => sorted[Math.round(Math.max(0, Math.min(1, share)) * last)] ?? Number.NaN,
    text: (value) => words.get(value) ?? String(value),
    isNumeric,
  };
}

/** Returns a number as it is written in a space: whole, or with the digits that it needs. */
export function numberText(value: number): string {
  if (Number.isInteger(value)) return String(value).replace("-", "−");
  return Math.abs(value) >= 1e-4 ? price(value).replace(/(\.\d*?[1-9])0+$|\.0+$/, "$1") : value.toPrecision(3);
}

/** Returns the axis of the objective over the range of its values; lower values are above where less is better. */
export function objectiveAxis(
  name: string,
  { worst, best }: { readonly worst: number; readonly best: number },
  text: (value: number) => string,
): Axis {
  return {
    name,
    count: DRAWN_FIELDS,
    fields: DRAWN_FIELDS,
    share: (value) => (worst === best ? value - worst + 1 : (value - worst) / (best - worst)),
    valueAt: (share) => worst + Math.max(0, Math.min(1, share)) * (best - worst),
    text,
    isNumeric: true,
    isFalling: best < worst,
  };
}
