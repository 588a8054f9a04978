/** The comparison of any number of results: their curves, their metrics side by side, what differs in their configurations. */

import type { BacktestStatus, RemoteResults } from "@backtestr/client/page";
import { createMemo, createSignal, For, type JSX, mapArray, Show } from "solid-js";
import { useApp } from "../../app-context";
import { percentLabel } from "../../charts/axis-labels";
import { ChartGroup } from "../../charts/chart-group";
import { SeriesChart } from "../../charts/series-chart";
import type { PlotSeries } from "../../charts/series-plot";
import { TIME_AXIS } from "../../charts/time-ticks";
import { Button } from "../../components/button";
import { ErrorPanel } from "../../components/error-panel";
import { Select, Switch } from "../../components/field";
import { EmptyState, Waiting } from "../../components/states";
import type { ColourName } from "../../design/palette";
import { csvText } from "../../exports/csv";
import { savePng } from "../../exports/save";
import { change } from "../../format/numbers";
import { moment } from "../../format/times";
import { formatRoute } from "../../routes";
import { thereOf } from "../../stores/loadable";
import { createReading, type Reading } from "../result/loading";
import { bestOf, METRIC_GROUPS, metricText, metricValue, whyUndefined } from "../result/metric-text";
import { MetricName } from "../result/metrics-panel";
import { configOf } from "../result/result-data";
import { configRows, extentOf, namesOf, type ReturnCurve, returnCurve } from "./compare-data";
import "./compare.css";

/** The results that a list offers at once. */
const OFFERED = 200;
const COLOURS = 8;
const DAY_MS = 86_400_000;

interface Entry {
  readonly id: string;
  readonly reading: Reading<{ readonly results: RemoteResults; readonly curve: ReturnCurve }>;
}

type There = { readonly id: string; readonly results: RemoteResults; readonly curve: ReturnCurve };

/** Compares the results of these ids. */
export function CompareScreen(props: { readonly ids: readonly string[] }): JSX.Element {
  const app = useApp();
  const ids = createMemo(() => [...new Set(props.ids)]);
  const entries = createMemo(
    mapArray(
      ids,
      (id): Entry => ({
        id,
        reading: createReading("a result", async () => {
          const results = await app.client.results(id, { tables: ["equity"] });
          return { results, curve: returnCurve(results) };
        }),
      }),
    ),
  );
  const there = createMemo((): readonly There[] =>
    entries().flatMap(({ id, reading }) => {
      const found = thereOf(reading.state());
      return found === undefined ? [] : [{ id, ...found }];
    }),
  );
  const show = (next: readonly string[]): void => app.go({ screen: "compare", ids: next });
  return (
    <div class="screen" data-testid="compare-screen">
      <header class="screen-header">
        <h1>Compare</h1>
        <span class="muted">{ids().length === 0 ? "" : `${ids().length} results`}</span>
        <div class="actions">
          <Adder ids={ids()} onAdd={(id) => show([...ids(), id])} />
        </div>
      </header>
      <Show
        when={ids().length > 0}
        fallback={
          <EmptyState title="Nothing is compared yet">
            Choose results above, or mark several in the <a href={formatRoute({ screen: "runs" })}>list of results</a>.
          </EmptyState>
        }
      >
        <For each={entries()}>
          {(entry) => <NotThere entry={entry} onRemove={() => show(ids().filter((one) => one !== entry.id))} />}
        </For>
        <Show when={there().length > 0}>
          <Comparison found={there()} onRemove={(id) => show(ids().filter((one) => one !== id))} />
        </Show>
      </Show>
    </div>
  );
}

function Adder(props: { readonly ids: readonly string[]; onAdd(id: string): void }): JSX.Element {
  const app = useApp();
  const offered = createMemo(() =>
    (thereOf(app.backtests.state()) ?? [])
      .filter((one) => hasResult(one) && !props.ids.includes(one.backtestId))
      .slice(0, OFFERED),
  );
  return (
    <Show when={offered().length > 0} fallback={<span class="muted small">There is no other result.</span>}>
      <Select
        label="Add a result"
        hideLabel
        value=""
        choices={[
          { value: "", label: "Add a result …" },
          ...offered().map((one) => ({ value: one.backtestId, label: wordsOf(one) })),
        ]}
        onChange={(id) => {
          if (id !== "") props.onAdd(id);
        }}
      />
    </Show>
  );
}

function hasResult({ status }: BacktestStatus): boolean {
  return status === "completed" || status === "stopped";
}

function wordsOf(one: BacktestStatus): string {
  return `${one.algorithmId.split("@")[0]} on ${one.symbol}, ${moment(one.submitTime).slice(0, 16)}, ${one.backtestId.slice(0, 8)}`;
}

function NotThere(props: { readonly entry: Entry; onRemove(): void }): JSX.Element {
  const failed = (): unknown => {
    const state = props.entry.reading.state();
    return state.state === "failed" ? state.error : undefined;
  };
  return (
    <Show
      when={failed()}
      fallback={
        <Show when={props.entry.reading.state().state === "waiting"}>
          <Waiting what={`the result ${props.entry.id.slice(0, 8)}`} />
        </Show>
      }
    >
      {(error) => (
        <ErrorPanel
          title={`The result ${props.entry.id.slice(0, 8)} could not be read`}
          error={error()}
          actions={[
            { label: "Read it again", run: props.entry.reading.again },
            { label: "Leave it out", run: () => props.onRemove() },
          ]}
        />
      )}
    </Show>
  );
}

interface ComparisonProps {
  readonly found: readonly There[];
  onRemove(id: string): void;
}

function Comparison(props: ComparisonProps): JSX.Element {
  const app = useApp();
  const names = createMemo(() => namesOf(props.found.map(({ results }) => configOf(results.config))));
  const group = createMemo(() => {
    const bounds = extentOf(props.found.map(({ curve }) => curve)) ?? { from: 0, to: DAY_MS };
    return new ChartGroup(TIME_AXIS, bounds, Math.min(DAY_MS, (bounds.to - bounds.from) / 10));
  });
  const series = createMemo((): readonly PlotSeries[] =>
    props.found.map(({ curve }, index) => ({
      name: names()[index] as string,
      xs: () => curve.times,
      values: curve.returns,
      colour: colourOf(index),
      isDashed: index >= COLOURS,
    })),
  );
  return (
    <>
      <SeriesChart
        title="Return since the start"
        definition="Equity / initial capital − 1 at the close of every bar, each result over its own time. Curves of accounts of any size can so be laid over each other."
        group={group()}
        series={series()}
        format={(value) => change(value, 1)}
        label={percentLabel}
        size="large"
        testId="chart-compare"
        state={
          props.found.every(({ curve }) => curve.times.length === 0)
            ? { kind: "empty", why: "None of these results has a bar." }
            : undefined
        }
        actions={(plot) => [
          {
            label: "PNG",
            title: "Save as PNG: the curves",
            run: () => {
              const canvas = plot();
              if (canvas === undefined) return;
              savePng(app.host, "comparison", canvas, names().join("   ")).catch((error: Error) =>
                app.notices.show(error.message, { kind: "error" }),
              );
            },
          },
        ]}
      />
      <Metrics found={props.found} names={names()} onRemove={props.onRemove} />
      <Configurations found={props.found} names={names()} />
    </>
  );
}

function colourOf(index: number): ColourName {
  return `series-${((index % COLOURS) + 1) as 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8}`;
}

interface SideBySideProps {
  readonly found: readonly There[];
  readonly names: readonly string[];
}

function Metrics(props: SideBySideProps & { onRemove(id: string): void }): JSX.Element {
  const app = useApp();
  const isDaily = (): boolean =>
    props.found.every(({ results }) => configOf(results.config).options.statistics === "daily_geometric");
  const save = (): void => {
    const rows = METRIC_GROUPS.flatMap(({ metrics }) =>
      metrics.map((one) => [
        one.name,
        ...props.found.map(({ results }) => (results.metrics === null ? null : metricValue(results.metrics, one.name))),
      ]),
    );
    const text = csvText([["metric", ...props.names], ...rows]);
    app.host
      .save("comparison.csv", new Blob([text], { type: "text/csv" }))
      .catch((error: Error) => app.notices.show(error.message, { kind: "error" }));
  };
  return (
    <section class="panel" data-testid="compare-metrics" aria-label="Metrics side by side">
      <div class="panel-header">
        <h2>Metrics</h2>
        <span class="muted small">★ is the best value, where more or less is better.</span>
        <div class="actions">
          <Button onClick={save}>CSV</Button>
        </div>
      </div>
      <div class="compare-scroll" role="group" aria-label="Table of metrics" tabindex={0}>
        <table class="compare-table" style={{ "--results": String(props.found.length) }}>
          <thead>
            <tr>
              <th scope="col">Metric</th>
              <For each={props.found}>
                {({ id }, index) => (
                  <th scope="col">
                    <span
                      class={`chart-swatch ${colourOf(index())}`}
                      classList={{ dashed: index() >= COLOURS }}
                      aria-hidden="true"
                    />
                    <a href={formatRoute({ screen: "backtest", id })}>{props.names[index()]}</a>
                    <Button
                      kind="quiet"
                      class="small"
                      aria-label={`Leave out ${props.names[index()]}`}
                      title="Leave out"
                      onClick={() => props.onRemove(id)}
                    >
                      ✕
                    </Button>
                  </th>
                )}
              </For>
            </tr>
          </thead>
          <For each={METRIC_GROUPS}>
            {(group) => (
              <tbody>
                <tr class="compare-group">
                  <th scope="rowgroup" colSpan={props.found.length + 1}>
                    {group.name}
                  </th>
                </tr>
                <For each={group.metrics}>
                  {(definition) => {
                    const values = createMemo(() =>
                      props.found.map(({ results }) =>
                        results.metrics === null ? undefined : metricValue(results.metrics, definition.name),
                      ),
                    );
                    const best = createMemo(() => bestOf(definition.name, values()));
                    return (
                      <tr>
                        <th scope="row">
                          <MetricName definition={definition} isDaily={isDaily()} />
                        </th>
                        <For each={props.found}>
                          {({ results }, index) => (
                            <td
                              classList={{ best: best()[index()] === true }}
                              title={
                                results.metrics === null ? undefined : whyUndefined(results.metrics, definition.name)
                              }
                            >
                              <Show when={best()[index()]}>
                                <span aria-hidden="true">★ </span>
                                <span class="visually-hidden">Best: </span>
                              </Show>
                              {metricText(definition, values()[index()])}
                            </td>
                          )}
                        </For>
                      </tr>
                    );
                  }}
                </For>
              </tbody>
            )}
          </For>
        </table>
      </div>
    </section>
  );
}

function Configurations(props: SideBySideProps): JSX.Element {
  const [hasAll, setHasAll] = createSignal(false);
  const rows = createMemo(() => configRows(props.found.map(({ results }) => results.config)));
  const differing = createMemo(() => rows().filter((one) => one.differs));
  const shown = (): ReturnType<typeof rows> => (hasAll() ? rows() : differing());
  return (
    <section class="panel" data-testid="compare-config" aria-label="Configurations side by side">
      <div class="panel-header">
        <h2>Configuration</h2>
        <span class="muted small">
          {differing().length} of {rows().length} values differ
        </span>
        <div class="actions">
          <Switch label="Show all values" checked={hasAll()} onChange={setHasAll} />
        </div>
      </div>
      <Show
        when={shown().length > 0}
        fallback={<p class="panel-body muted">These results have one and the same configuration.</p>}
      >
        <div class="compare-scroll" role="group" aria-label="Table of configurations" tabindex={0}>
          <table class="compare-table" style={{ "--results": String(props.found.length) }}>
            <thead>
              <tr>
                <th scope="col">Value</th>
                <For each={props.names}>{(name) => <th scope="col">{name}</th>}</For>
              </tr>
            </thead>
            <tbody>
              <For each={shown()}>
                {(row) => (
                  <tr classList={{ differs: row.differs && hasAll() }}>
                    <th scope="row">
                      <code>{row.path}</code>
                    </th>
                    <For each={row.values}>
                      {(value) => (
                        <td class="mono" title={value}>
                          {value ?? "—"}
                        </td>
                      )}
                    </For>
                  </tr>
                )}
              </For>
            </tbody>
          </table>
        </div>
      </Show>
    </section>
  );
}
