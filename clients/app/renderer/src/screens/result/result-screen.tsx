/** The screen of a backtest that has ended. */

import type { Metrics, RemoteResults } from "@backtestr/client/page";
import { createMemo, For, type JSX, lazy, Match, Show, Suspense, Switch } from "solid-js";
import { useApp } from "../../app-context";
import { Button, LinkButton } from "../../components/button";
import { Waiting } from "../../components/states";
import { Tabs } from "../../components/tabs";
import { fileName, saveArrow } from "../../exports/save";
import { saveReport } from "../../exports/save-report";
import { range } from "../../format/times";
import { formatRoute } from "../../routes";
import { thereOf } from "../../stores/loadable";
import { Configuration } from "./configuration";
import { Overview } from "./overview";
import { titleOf, verdictsOf } from "./result-data";
import { createRunModel } from "./run-model";
import "./result.css";

// Candles are drawn by a library of their own, which a look at the figures does not need.
const TradesView = lazy(async () => ({ default: (await import("./trades-view")).TradesView }));

const VIEWS = [
  { id: "overview", label: "Overview" },
  { id: "trades", label: "Trades" },
  { id: "configuration", label: "Configuration" },
];

export interface ResultScreenProps {
  readonly results: RemoteResults;
  readonly metrics: Metrics;
  readonly view?: string | undefined;
}

/** Shows a result. */
export function ResultScreen(props: ResultScreenProps): JSX.Element {
  const app = useApp();
  const model = createRunModel(app.client, props.results, props.metrics);
  const { config, id } = model;
  const view = (): string => (VIEWS.some((one) => one.id === props.view) ? (props.view as string) : "overview");
  const trades = createMemo(() => thereOf(model.deals.state())?.trades.rows);
  const verdicts = createMemo(() =>
    verdictsOf(props.metrics, props.results.status, props.results.warmupBars, trades()),
  );
  const times = createMemo(() => {
    const found = thereOf(model.curve.state())?.times;
    if (found === undefined || found.length === 0) return "";
    return `${range(found[0] as number, found.at(-1) as number)}, ${found.length.toLocaleString("en-US")} bars`;
  });
  const name = fileName(config.algorithm, ...config.symbols.slice(0, 2), id.slice(0, 8));
  const tell = (saving: Promise<void>): void => {
    saving.catch((error: Error) => app.notices.show(error.message, { kind: "error" }));
  };
  return (
    <div class="screen" data-testid="result-screen">
      <header class="screen-header">
        <h1>{titleOf(config)}</h1>
        <span class={`status-word ${props.results.status}`}>{props.results.status}</span>
        <span class="muted">{times()}</span>
        <div class="actions">
          <LinkButton href={formatRoute({ screen: "run", copyOf: id })} title="Open the form with this configuration">
            Run again …
          </LinkButton>
          <LinkButton href={formatRoute({ screen: "compare", ids: [id] })}>Compare …</LinkButton>
          <Button
            title="One file with figures, charts, trades and configuration, which needs no network"
            disabled={thereOf(model.curve.state()) === undefined || thereOf(model.deals.state()) === undefined}
            onClick={() => tell(saveReport(app.host, name, model))}
          >
            Report (HTML)
          </Button>
          <Button
            title="Equity, drawdown and return at each bar as an Arrow IPC stream: polars.read_ipc_stream(file)"
            disabled={thereOf(model.curve.state()) === undefined}
            onClick={() => {
              const curve = thereOf(model.curve.state());
              if (curve !== undefined) tell(saveArrow(app.host, `${name}-equity`, curve.table));
            }}
          >
            Equity (Arrow)
          </Button>
        </div>
      </header>
      <Show when={verdicts().length > 0}>
        <ul class="verdicts" aria-label="What a reader of the figures must know" data-testid="verdicts">
          <For each={verdicts()}>{(one) => <li class={`verdict ${one.kind}`}>{one.text}</li>}</For>
        </ul>
      </Show>
      <Tabs
        label="Views of the result"
        tabs={VIEWS}
        selected={view()}
        onSelect={(next) => app.go({ screen: "backtest", id, ...(next === "overview" ? {} : { view: next }) })}
      >
        <Switch>
          <Match when={view() === "overview"}>
            <Overview model={model} />
          </Match>
          <Match when={view() === "trades"}>
            <Suspense fallback={<Waiting what="the code of this view" />}>
              <TradesView model={model} />
            </Suspense>
          </Match>
          <Match when={view() === "configuration"}>
            <Configuration config={props.results.config} />
          </Match>
        </Switch>
      </Tabs>
    </div>
  );
}
