/** Keeps what is typed on the screen Run. Every field is kept as text, so that nothing typed is lost while it is no value yet. */

import type { SeriesInfo } from "@backtestr/client/page";
import type { Draft, DraftsStore } from "../../stores/drafts";

export interface RunDraft {
  /** The name of an algorithm, or the id of one version. */
  readonly algorithm: string;
  readonly symbols: readonly string[];
  readonly timeframe: string;
  readonly start: string;
  readonly end: string;
  readonly price: string;
  readonly warmup: string;
  readonly capital: string;
  /** In percent of traded value. */
  readonly commission: string;
  /** In percent of price. */
  readonly slippage: string;
  readonly preset: string;
  readonly pace: string;
  readonly publishPrices: boolean;
  /** By algorithm and parameter, so that another algorithm is tried without losing what was typed for this one. */
  readonly parameters: { readonly [algorithm: string]: { readonly [name: string]: string } };
  /** By option, such as `stopLoss`; fractions are in percent. An empty one has its default. */
  readonly options: { readonly [name: string]: string };
}

export const EMPTY_DRAFT: RunDraft = {
  algorithm: "",
  symbols: [],
  timeframe: "",
  start: "",
  end: "",
  price: "",
  warmup: "",
  capital: "100000",
  commission: "",
  slippage: "",
  preset: "",
  pace: "",
  publishPrices: true,
  parameters: {},
  options: {},
};

/** Opens the draft of this screen, which all pages share. */
export function openRunDraft(drafts: DraftsStore): Draft<RunDraft> {
  return drafts.open("run", EMPTY_DRAFT, checkedDraft);
}

/** Chooses a series for the next backtest; the range begins anew where the series is another. */
export function chooseSeries(drafts: DraftsStore, series: Pick<SeriesInfo, "symbol" | "timeframe">): void {
  openRunDraft(drafts).change((now) => {
    const timeframe = series.timeframe === "tick" ? "1m" : series.timeframe;
    const same = now.symbols[0] === series.symbol && now.timeframe === timeframe;
    return { ...now, symbols: [series.symbol], timeframe, ...(same ? {} : { start: "", end: "", price: "" }) };
  });
}

/** Returns `next` with what was typed on the way from `before` to `now`, which must not be lost. */
export function withTyped<Value>(next: Value, before: Value, now: Value): Value {
  if (JSON.stringify(before) === JSON.stringify(now)) return next;
  if (!isMap(next) || !isMap(before) || !isMap(now)) return now;
  const joined: { [name: string]: unknown } = { ...next };
  for (const [name, value] of Object.entries(now)) {
    if (JSON.stringify(value) === JSON.stringify(before[name])) continue;
    joined[name] = isMap(value) ? withTyped(next[name] ?? {}, before[name] ?? {}, value) : value;
  }
  return joined as Value;
}

/** Makes a whole draft of what was kept, by this version of the app or another; undefined where it is none. */
export function checkedDraft(kept: unknown): RunDraft | undefined {
  if (typeof kept !== "object" || kept === null || Array.isArray(kept)) return undefined;
  const given = kept as { [name: string]: unknown };
  const found: { [name: string]: unknown } = { ...EMPTY_DRAFT };
  for (const [name, initial] of Object.entries(EMPTY_DRAFT)) {
    const value = given[name];
    if (name === "symbols") {
      if (Array.isArray(value)) found[name] = value.filter((one) => typeof one === "string");
    } else if (name === "parameters") {
      if (isMap(value)) found[name] = Object.fromEntries(Object.entries(value).map(([key, one]) => [key, texts(one)]));
    } else if (name === "options") found[name] = texts(value);
    else if (typeof value === typeof initial) found[name] = value;
  }
  return found as unknown as RunDraft;
}

function isMap(value: unknown): value is { readonly [name: string]: unknown } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function texts(value: unknown): { readonly [name: string]: string } {
  if (!isMap(value)) return {};
  return Object.fromEntries(
    Object.entries(value).flatMap(([name, one]) => (typeof one === "string" ? [[name, one]] : [])),
  );
}
