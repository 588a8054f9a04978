/** The stored series that a draft's backtest reads, as far as the catalogue tells. */

import type { SeriesInfo } from "@backtestr/client/page";
import { timeframeMs } from "../../format/times";
import type { RunDraft } from "./run-draft";

/** Milliseconds since 1970 of the first bar, and of the end of the last one. */
export interface StoredRange {
  readonly start: number;
  readonly end: number;
}

/** Returns the series of which the bars of the first symbol are made: the stored one, or the finest shorter one. */
export function sourceOf(
  draft: Pick<RunDraft, "symbols" | "timeframe">,
  series: readonly SeriesInfo[],
): SeriesInfo | undefined {
  const own = series.filter((one) => one.symbol === draft.symbols[0]);
  const wanted = timeframeMs(draft.timeframe.trim()) ?? Number.POSITIVE_INFINITY;
  const length = (one: SeriesInfo): number => timeframeMs(one.timeframe) ?? 0;
  return (
    own.find((one) => one.timeframe === draft.timeframe.trim()) ??
    own
      .filter((one) => length(one) < wanted)
      .sort(
        (left, right) => Number(length(left) === 0) - Number(length(right) === 0) || length(left) - length(right),
      )[0]
  );
}

/** Returns the range of the stored bars; undefined while no series is chosen. */
export function rangeOf(
  draft: Pick<RunDraft, "symbols" | "timeframe">,
  series: readonly SeriesInfo[],
): StoredRange | undefined {
  const source = sourceOf(draft, series);
  if (source === undefined) return undefined;
  return { start: source.startTime, end: source.endTime + Math.max(1, timeframeMs(source.timeframe) ?? 0) };
}
