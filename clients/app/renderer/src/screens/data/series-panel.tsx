import type { SeriesFacts, SeriesInfo } from "@backtestr/client/page";
import { createResource, createSignal, For, type JSX, lazy, Match, onMount, Show, Suspense, Switch } from "solid-js";
import { useApp } from "../../app-context";
import { Button } from "../../components/button";
import { Dialog } from "../../components/dialog";
import { ErrorPanel, messageOf } from "../../components/error-panel";
import { Select } from "../../components/field";
import { Waiting } from "../../components/states";
import { compact, count, price } from "../../format/numbers";
import { duration, moment, range, timeframeMs } from "../../format/times";
import { UNDO_MS } from "../../stores/postponed";
import { chooseSeries } from "../run/run-draft";
import { arrowOf, csvOf } from "./export-bars";
import { courseTimeframe, type Preview, seriesName } from "./previews";

// The charts come with the first series that is looked at.
const PricePreview = lazy(async () => ({ default: (await import("../../charts/price-preview")).PricePreview }));

const LONGER = ["1m", "5m", "15m", "30m", "1h", "2h", "4h", "1d", "1w", "1M"] as const;
/** The most bars of the chart; a longer series is drawn in a longer timeframe. */
const CHART_BARS = 300_000;

export interface SeriesPanelProps {
  readonly series: SeriesInfo;
  /** The whole catalogue. */
  readonly all: readonly SeriesInfo[];
  readonly preview: Preview;
}

/** One series: its prices, facts and gaps, and what can be done with it. */
export function SeriesPanel(props: SeriesPanelProps): JSX.Element {
  const app = useApp();
  const [asking, setAsking] = createSignal(false);
  const name = (): string => seriesName(props.series);
  let panel: HTMLElement | undefined;
  onMount(() => {
    // In a narrow window it stands below the catalogue.
    const top = panel?.getBoundingClientRect().top ?? 0;
    if (top > 0.8 * window.innerHeight) panel?.scrollIntoView({ block: "start" });
  });
  function remove(): void {
    const { symbol, timeframe } = props.series;
    const what = name();
    app.deletions.start([what], what, async () => {
      try {
        await app.client.request("DeleteMarketData", { symbol, timeframe });
      } catch (error) {
        app.notices.show(`${what} was not deleted: ${messageOf(error)}`, { kind: "error" });
      }
      await app.catalogue.refresh();
    });
    app.go({ screen: "data" });
  }
  function backtest(): void {
    chooseSeries(app.drafts, props.series);
    app.go({ screen: "run" });
  }
  return (
    <section ref={panel} class="panel series-panel" aria-label={name()}>
      <header class="panel-header">
        <h2>{props.series.symbol}</h2>
        <span class="muted">{props.series.timeframe}</span>
        <div class="actions">
          <Button kind="primary" onClick={backtest}>
            Backtest it
          </Button>
          <Button kind="danger" onClick={() => setAsking(true)}>
            Delete
          </Button>
        </div>
      </header>
      <div class="panel-body series-body">
        <Prices series={props.series} all={props.all} />
        <Switch>
          <Match when={props.preview.state === "there" ? props.preview : undefined}>
            {(preview) => <Facts series={props.series} facts={preview().facts} />}
          </Match>
          <Match when={props.preview.state === "failed" ? props.preview : undefined}>
            {(preview) => <ErrorPanel error={preview().error} title="The facts of this series could not be read" />}
          </Match>
          <Match when={true}>
            <Waiting what={`the facts of ${name()}`} />
          </Match>
        </Switch>
        <Resample series={props.series} />
        <Export series={props.series} />
      </div>
      <Dialog
        title={`Delete ${name()}?`}
        open={asking()}
        onClose={() => setAsking(false)}
        actions={
          <>
            <Button onClick={() => setAsking(false)}>Keep it</Button>
            <Button
              kind="danger"
              onClick={() => {
                setAsking(false);
                remove();
              }}
            >
              Delete
            </Button>
          </>
        }
      >
        <p>
          {count(props.series.bars)} {props.series.timeframe === "tick" ? "ticks" : "bars"} will be removed from the
          catalogue in {UNDO_MS / 1000} seconds. Until then it can be undone; closing the page undoes it too. Results of
          backtests stay.
        </p>
      </Dialog>
    </section>
  );
}

function Prices(props: { readonly series: SeriesInfo; readonly all: readonly SeriesInfo[] }): JSX.Element {
  const { client } = useApp();
  const shown = (): string =>
    props.series.timeframe !== "tick" && props.series.bars <= CHART_BARS
      ? props.series.timeframe
      : courseTimeframe(props.series, props.all);
  const [bars] = createResource(
    () => props.series,
    (series) => client.marketData(series.symbol, shown()),
  );
  return (
    <Switch>
      <Match when={bars.error}>
        <ErrorPanel error={bars.error} title="The prices could not be read" />
      </Match>
      <Match when={bars.state === "ready" ? bars() : undefined}>
        {(table) => (
          <Suspense fallback={<Waiting what="the chart" />}>
            <PricePreview
              title={`Closes of ${props.series.symbol}, ${shown()}`}
              times={table().columns.timestamp as Float64Array}
              closes={table().columns.close as Float64Array}
            />
          </Suspense>
        )}
      </Match>
      <Match when={true}>
        <Waiting what={`the prices of ${props.series.symbol}`} />
      </Match>
    </Switch>
  );
}

function Facts(props: { readonly series: SeriesInfo; readonly facts: SeriesFacts }): JSX.Element {
  const { facts, series } = props;
  const unit = series.timeframe === "tick" ? "Ticks" : "Bars";
  return (
    <>
      <dl class="facts series-facts">
        <dt>Range</dt>
        <dd>{range(facts.startTime, facts.endTime)}</dd>
        <dt>{unit}</dt>
        <dd>{count(facts.bars)}</dd>
        <dt>Lowest, highest</dt>
        <dd>
          {price(facts.low)} – {price(facts.high)}
        </dd>
        <dt>Volume</dt>
        <dd>{compact(facts.volume)}</dd>
        <dt>Zone of days</dt>
        <dd>{facts.timeZone ?? "UTC"}</dd>
        <Show when={(facts.columns?.length ?? 0) > 0}>
          <dt>Columns</dt>
          <dd>{facts.columns?.join(", ")}</dd>
        </Show>
        <dt>Gaps</dt>
        <dd>
          {count(facts.gaps)}
          <Show when={facts.missingBars > 0}>, {count(facts.missingBars)} bars missing</Show>
        </dd>
      </dl>
      <Show when={facts.longestGaps.length > 0}>
        <details>
          <summary>
            The longest gaps <span class="muted">(weekends and holidays count)</span>
          </summary>
          <ul class="gap-list small">
            <For each={facts.longestGaps}>
              {(gap) => (
                <li>
                  <span>{moment(gap.startTime)}</span>
                  <span>{duration(gap.endTime - gap.startTime)}</span>
                  <span class="muted">{count(gap.missingBars)} bars</span>
                </li>
              )}
            </For>
          </ul>
        </details>
      </Show>
    </>
  );
}

function Resample(props: { readonly series: SeriesInfo }): JSX.Element {
  const { client, catalogue, notices } = useApp();
  const longer = (): readonly string[] =>
    LONGER.filter((one) => (timeframeMs(one) ?? 0) > (timeframeMs(props.series.timeframe) ?? 0));
  const [chosen, setChosen] = createSignal<string>();
  const [busy, setBusy] = createSignal(false);
  const [error, setError] = createSignal<unknown>();
  const target = (): string => chosen() ?? longer()[0] ?? "";
  async function resample(): Promise<void> {
    setBusy(true);
    setError(undefined);
    try {
      const { symbol, timeframe } = props.series;
      const request = { symbol, fromTimeframe: timeframe, toTimeframe: target() };
      const stored = await client.request("ResampleMarketData", request, { timeoutMs: 600_000 });
      notices.show(
        [`${stored.symbol} ${stored.timeframe} is stored: ${count(stored.bars)} bars.`, ...stored.warnings].join(" "),
      );
      await catalogue.refresh();
    } catch (failure) {
      setError(failure);
    }
    setBusy(false);
  }
  return (
    <Show when={longer().length > 0}>
      <div class="series-action">
        <Select
          label="Resample to"
          value={target()}
          choices={longer().map((one) => ({ value: one, label: one }))}
          onChange={setChosen}
        />
        <Button busy={busy()} onClick={() => void resample()}>
          Store {target()}
        </Button>
      </div>
      <Show when={error()}>{(failure) => <ErrorPanel error={failure()} title="It was not resampled" />}</Show>
    </Show>
  );
}

function Export(props: { readonly series: SeriesInfo }): JSX.Element {
  const { client, host } = useApp();
  const [busy, setBusy] = createSignal("");
  const [error, setError] = createSignal("");
  async function save(kind: "csv" | "arrow"): Promise<void> {
    setError("");
    setBusy("Reading");
    try {
      const { symbol, timeframe } = props.series;
      const table = await client.marketData(symbol, timeframe, { timeoutMs: 600_000 });
      const written = (share: number): void => {
        setBusy(`Writing, ${Math.round(100 * share)} %`);
      };
      const blob = kind === "csv" ? await csvOf(table, written) : arrowOf(table);
      await host.save(`${symbol.replace(/[^\w.-]+/g, "_")}_${timeframe}.${kind}`, blob);
    } catch (failure) {
      setError(messageOf(failure));
    }
    setBusy("");
  }
  return (
    <div class="series-action">
      <span class="field-label">Export all of it</span>
      <div class="import-actions">
        <Button busy={busy() !== ""} onClick={() => void save("csv")}>
          CSV
        </Button>
        <Button busy={busy() !== ""} onClick={() => void save("arrow")}>
          Arrow
        </Button>
        <span class="muted small" role="status">
          {busy()}
        </span>
      </div>
      <Show when={error()}>
        <p class="field-error">{error()}</p>
      </Show>
    </div>
  );
}
