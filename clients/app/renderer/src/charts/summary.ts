/** The sentence that says what a chart shows, for those who hear it. Pure. */

/** How values and times are said. */
export interface Wording {
  readonly value: (value: number) => string;
  readonly time: (milliseconds: number) => string;
}

/** The facts of a series that its summary states. Values are finite; times are those of the x column. */
export interface SeriesFacts {
  readonly count: number;
  readonly missing: number;
  readonly first: Point;
  readonly last: Point;
  readonly lowest: Point;
  readonly highest: Point;
  readonly trend: "rises" | "falls" | "stays level";
}

/** A value and its time. */
export interface Point {
  readonly value: number;
  readonly time: number;
}

/** A change of less than this share of the series' spread is none. */
const LEVEL = 0.02;

/** Returns the facts of a series; undefined if no value is finite. */
export function factsOf(
  times: ArrayLike<number>,
  values: ArrayLike<number>,
  length = values.length,
): SeriesFacts | undefined {
  let [first, last, low, high, count] = [-1, -1, -1, -1, 0];
  for (let index = 0; index < length; index += 1) {
    const value = values[index] as number;
    if (!Number.isFinite(value)) continue;
    count += 1;
    if (first < 0) [first, low, high] = [index, index, index];
    last = index;
    if (value < (values[low] as number)) low = index;
    if (value > (values[high] as number)) high = index;
  }
  if (count === 0) return undefined;
  const at = (index: number): Point => ({ value: values[index] as number, time: times[index] as number });
  const facts = { first: at(first), last: at(last), lowest: at(low), highest: at(high) };
  return { count, missing: length - count, ...facts, trend: trendOf(facts) };
}

function trendOf(of: Pick<SeriesFacts, "first" | "last" | "lowest" | "highest">): SeriesFacts["trend"] {
  const spread = of.highest.value - of.lowest.value;
  const change = of.last.value - of.first.value;
  if (Math.abs(change) <= LEVEL * spread) return "stays level";
  return change > 0 ? "rises" : "falls";
}

/** Returns what a series is, in a sentence or two. */
export function summaryOf(name: string, facts: SeriesFacts | undefined, wording: Wording): string {
  if (facts === undefined) return `${name} has no values.`;
  const said = (point: Point): string => `${wording.value(point.value)} at ${wording.time(point.time)}`;
  if (facts.count === 1) return `${name} has one value: ${said(facts.first)}.`;
  const missing = facts.missing > 0 ? ` ${facts.missing} values are missing.` : "";
  return (
    `${name} ${facts.trend} from ${said(facts.first)} to ${said(facts.last)}. ` +
    `Lowest ${said(facts.lowest)}, highest ${said(facts.highest)}. ${facts.count} values.${missing}`
  );
}
