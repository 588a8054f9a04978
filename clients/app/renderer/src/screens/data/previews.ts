/** The course and the gaps of series, read a few at a time as their rows come into sight. */

import type { RemoteClient, SeriesFacts, SeriesInfo } from "@backtestr/client/page";
import { type Accessor, createSignal } from "solid-js";
import { timeframeMs } from "../../format/times";

/** The course and gaps of a series, beside the catalogue's line. */
export type Preview =
  | { readonly state: "waiting" }
  | { readonly state: "failed"; readonly error: unknown }
  | { readonly state: "there"; readonly closes: Float64Array; readonly facts: SeriesFacts };

/** Requests for previews that are under way at once; more would keep other requests from the workers. */
const AT_ONCE = 2;
/** Bars that are read for a course where no longer ones can be made. */
const READ_AS_IT_IS = 50_000;
/** The most values of a course. */
const VALUES = 400;
const TIMEFRAMES = ["1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1M"] as const;

/**
 * Returns the timeframe in which the course of a series is read: one in which it has a few hundred bars at most. The
 * broker makes longer bars of the symbol's finest series, so a series that is not the finest is read as it is.
 */
export function courseTimeframe(series: SeriesInfo, all: readonly SeriesInfo[]): string {
  const own = timeframeMs(series.timeframe) ?? 0;
  const span = series.endTime - series.startTime;
  if (own > 0 && span / own <= VALUES) return series.timeframe;
  const isFinest = all.every((one) => one.symbol !== series.symbol || (timeframeMs(one.timeframe) || own) >= own);
  if (own > 0 && !isFinest && series.bars <= READ_AS_IT_IS) return series.timeframe;
  return TIMEFRAMES.find((one) => span / (timeframeMs(one) ?? 1) <= VALUES && (timeframeMs(one) ?? 0) >= own) ?? "1M";
}

/** Names a series. */
export function seriesName(series: Pick<SeriesInfo, "symbol" | "timeframe">): string {
  return `${series.symbol} ${series.timeframe}`;
}

/** Names what a series has: another import of it has another key. */
export function previewKey(series: SeriesInfo): string {
  return [series.symbol, series.timeframe, series.startTime, series.endTime, series.bars].join("\n");
}

/** Makes the previews of a screen; `end` stops what is not read yet. */
export function createPreviews(
  client: RemoteClient,
  all: () => readonly SeriesInfo[],
): {
  of(series: SeriesInfo): Accessor<Preview>;
  end(): void;
} {
  const known = new Map<string, Accessor<Preview>>();
  const queue: (() => Promise<void>)[] = [];
  let running = 0;
  let ended = false;

  function next(): void {
    while (!ended && running < AT_ONCE) {
      const job = queue.pop(); // the latest to come into sight is looked at now
      if (job === undefined) return;
      running += 1;
      void job().finally(() => {
        running -= 1;
        next();
      });
    }
  }
  async function read(series: SeriesInfo): Promise<Preview> {
    try {
      const { symbol, timeframe } = series;
      const [bars, facts] = await Promise.all([
        client.marketData(symbol, courseTimeframe(series, all())),
        client.request("DescribeMarketData", { symbol, timeframe }),
      ]);
      return { state: "there", closes: bars.columns.close as Float64Array, facts };
    } catch (error) {
      return { state: "failed", error };
    }
  }
  return {
    of: (series) => {
      const key = previewKey(series);
      const before = known.get(key);
      if (before !== undefined) return before;
      const [preview, setPreview] = createSignal<Preview>({ state: "waiting" });
      known.set(key, preview);
      queue.push(async () => {
        setPreview(await read(series));
      });
      next();
      return preview;
    },
    end: () => {
      ended = true;
    },
  };
}
