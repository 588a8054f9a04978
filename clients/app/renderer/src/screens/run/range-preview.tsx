import type { SeriesInfo, Table } from "@backtestr/client/page";
import { createMemo, createResource, type JSX, lazy, Match, Suspense, Switch } from "solid-js";
import { useApp } from "../../app-context";
import { ErrorPanel } from "../../components/error-panel";
import { Waiting } from "../../components/states";
import { timeframeMs } from "../../format/times";
import { courseTimeframe } from "../data/previews";
import { timeOf } from "./run-config";
import type { RunDraft } from "./run-draft";
import { sourceOf } from "./series-range";

// The charts come with the first series that is looked at.
const PricePreview = lazy(async () => ({ default: (await import("../../charts/price-preview")).PricePreview }));

/** The bars that are drawn at most; a longer series is drawn in a longer timeframe. */
const MOST_BARS = 200_000;

/** The prices of the first symbol, with the chosen range in colour. */
export function RangePreview(props: { readonly draft: RunDraft; readonly series: readonly SeriesInfo[] }): JSX.Element {
  const { client } = useApp();
  const wanted = createMemo(
    () => {
      const source = sourceOf(props.draft, props.series);
      if (source === undefined) return undefined;
      const timeframe = props.draft.timeframe.trim();
      const bars = (source.endTime - source.startTime) / (timeframeMs(timeframe) || Number.POSITIVE_INFINITY);
      const shown = bars > MOST_BARS ? courseTimeframe(source, props.series) : timeframe;
      return timeframeMs(shown) === undefined ? undefined : { symbol: source.symbol, timeframe: shown };
    },
    undefined,
    { equals: (one, other) => one?.symbol === other?.symbol && one?.timeframe === other?.timeframe },
  );
  const [bars] = createResource(wanted, ({ symbol, timeframe }) => client.marketData(symbol, timeframe));
  const table = (): Table | undefined =>
    bars.state === "ready" || bars.state === "refreshing" ? bars.latest : undefined;
  return (
    <div class="panel run-preview">
      <Switch>
        <Match when={wanted() === undefined}>
          <p class="panel-body muted">Choose a symbol and a timeframe to see its prices.</p>
        </Match>
        <Match when={bars.error}>
          <ErrorPanel error={bars.error} title="The prices could not be read" mild />
        </Match>
        <Match when={table()}>
          {(found) => (
            <Suspense fallback={<Waiting what="the chart" />}>
              <PricePreview
                title={`${wanted()?.symbol} ${wanted()?.timeframe}`}
                times={found().columns.timestamp as Float64Array}
                closes={found().columns.close as Float64Array}
                from={timeOf(props.draft.start)}
                to={timeOf(props.draft.end)}
              />
            </Suspense>
          )}
        </Match>
        <Match when={true}>
          <Waiting what={`the prices of ${wanted()?.symbol}`} />
        </Match>
      </Switch>
    </div>
  );
}
