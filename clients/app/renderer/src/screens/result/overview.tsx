/** The overview of a result: key figures, curves, months, the distribution of trades, and all metrics. */

import { createMemo, For, type JSX, onCleanup, Show } from "solid-js";
import { useApp } from "../../app-context";
import { numberLabel, percentLabel } from "../../charts/axis-labels";
import type { ChartAction, ChartState } from "../../charts/chart-frame";
import { HeatMap } from "../../charts/heat-map";
import { Histogram } from "../../charts/histogram";
import { BUY_AND_HOLD_FORMULA } from "../../charts/market-curve";
import { monthlyReturns } from "../../charts/monthly";
import { ROLLING_SHARPE_FORMULA } from "../../charts/rolling-sharpe";
import { SeriesChart } from "../../charts/series-chart";
import type { PlotSeries } from "../../charts/series-plot";
import { ErrorPanel } from "../../components/error-panel";
import { Waiting } from "../../components/states";
import { fileName, savePng } from "../../exports/save";
import { count, fixed, percent } from "../../format/numbers";
import type { Loadable } from "../../stores/loadable";
import { thereOf } from "../../stores/loadable";
import { definitionOf, whyUndefined } from "./metric-text";
import { MetricName, MetricsPanel, MetricValue } from "./metrics-panel";
import { closedReturns, titleOf } from "./result-data";
import { type Curve, MAX_LOADED_BARS, type RunModel } from "./run-model";

const KEY_FIGURES = [
  "totalReturn",
  "finalEquity",
  "sharpeRatio",
  "maxDrawdown",
  "totalTrades",
  "winRate",
  "buyAndHoldReturn",
];

/** Shows what a result is at a glance. */
export function Overview(props: { readonly model: RunModel }): JSX.Element {
  const app = useApp();
  const { model } = props;
  const isDaily = model.config.options.statistics === "daily_geometric";
  const curve = (): Curve | undefined => thereOf(model.curve.state());
  const picture =
    (title: string) =>
    (plot: () => HTMLCanvasElement | undefined): readonly ChartAction[] => [
      {
        label: "PNG",
        title: `Save as PNG: ${title}`,
        run: () => {
          const canvas = plot();
          if (canvas === undefined) return;
          const name = fileName(model.config.algorithm, model.id.slice(0, 8), title);
          savePng(app.host, name, canvas, `${titleOf(model.config)}: ${title}`).catch((error: Error) =>
            app.notices.show(error.message, { kind: "error" }),
          );
        },
      },
    ];

  return (
    <div class="result-overview">
      <dl class="panel figures" data-testid="key-figures">
        <For each={KEY_FIGURES}>
          {(name) => (
            <div>
              <dt>
                <MetricName definition={definitionOf(name)} isDaily={isDaily} why={whyUndefined(model.metrics, name)} />
              </dt>
              <dd>
                <MetricValue definition={definitionOf(name)} metrics={model.metrics} />
              </dd>
            </div>
          )}
        </For>
      </dl>
      <Show when={curve()} fallback={<CurveState state={model.curve.state()} again={model.curve.again} />}>
        {(found) => <Curves model={model} curve={found()} picture={picture} />}
      </Show>
      <div class="result-pair">
        <Show when={curve()}>
          {(found) => (
            <HeatMap
              years={monthlyReturns(found().times, found().equity.values, model.config.initialCapital)}
              testId="chart-months"
            />
          )}
        </Show>
        <TradeHistogram model={model} />
      </div>
      <MetricsPanel metrics={model.metrics} isDaily={isDaily} />
    </div>
  );
}

function CurveState(props: { readonly state: Loadable<Curve>; readonly again: () => void }): JSX.Element {
  const failed = (): unknown => (props.state.state === "failed" ? props.state.error : undefined);
  return (
    <Show when={failed()} fallback={<Waiting what="the equity curve" />}>
      {(error) => (
        <ErrorPanel
          title="The equity curve could not be read"
          error={error()}
          actions={[{ label: "Read it again", run: props.again }]}
        />
      )}
    </Show>
  );
}

interface CurvesProps {
  readonly model: RunModel;
  readonly curve: Curve;
  readonly picture: (title: string) => (plot: () => HTMLCanvasElement | undefined) => readonly ChartAction[];
}

function Curves(props: CurvesProps): JSX.Element {
  const { model, curve } = props;
  const line = (name: string, values: PlotSeries["values"], colour: PlotSeries["colour"]): PlotSeries => ({
    name,
    xs: () => curve.places,
    values,
    colour,
  });
  const equity = createMemo((): readonly PlotSeries[] => {
    const market = model.market();
    const own = line("Equity", curve.equity, "series-1");
    return market === undefined ? [own] : [own, line("Buy and hold", market, "series-2")];
  });
  const drawdown = [{ ...line("Drawdown", curve.drawdown, "loss"), isFilled: true }];
  const sharpe = createMemo((): readonly PlotSeries[] => {
    const values = model.sharpe();
    return values === undefined ? [] : [line("Rolling Sharpe ratio", values, "series-3")];
  });
  const sharpeState = createMemo((): ChartState => {
    if (model.metrics.annualisation == null) return { kind: "empty", why: "The result has no bars per year." };
    if (model.sharpe() === undefined) return { kind: "waiting", what: "the rolling Sharpe ratio" };
    const bars = curve.times.length;
    if (bars < model.sharpeWindow()) {
      return {
        kind: "empty",
        why: `A window has ${count(model.sharpeWindow())} bars, and the backtest has ${count(bars)}.`,
      };
    }
    const { min, max } = (model.sharpe() as PlotSeries["values"]).extremes(0, bars);
    return min > max ? { kind: "empty", why: "Returns do not vary in any window of bars." } : { kind: "ready" };
  });
  // What follows from the curve, and all prices, for buying and holding, come once the curve is drawn.
  const timer = setTimeout(goOn, 100);
  onCleanup(() => clearTimeout(timer));
  function goOn(): void {
    model.drawn();
    if (curve.times.length * model.config.symbols.length > MAX_LOADED_BARS || model.whyNoMarket() !== undefined) return;
    for (const one of model.bars()) one.wantAll();
  }
  const note = (): string | undefined => {
    if (model.whyNoMarket() !== undefined) return model.whyNoMarket();
    if (model.market() !== undefined) return undefined;
    return "Buying and holding is drawn once all prices are loaded …";
  };
  return (
    <>
      <SeriesChart
        title="Equity"
        definition={
          <>
            <p>Equity at the close of every bar: cash plus the value of all positions.</p>
            <p>Buy and hold: {BUY_AND_HOLD_FORMULA}</p>
          </>
        }
        group={curve.group}
        series={equity()}
        format={(value) => fixed(value, 2)}
        label={numberLabel}
        note={note()}
        testId="chart-equity"
        size="large"
        actions={props.picture("Equity")}
        state={curve.times.length === 0 ? { kind: "empty", why: "No bar was simulated." } : undefined}
      />
      <SeriesChart
        title="Drawdown"
        definition={`${definitionOf("maxDrawdown").formula} At each bar: 1 − eᵢ / pᵢ, drawn downwards.`}
        group={curve.group}
        series={drawdown}
        format={(value) => percent(value, 2)}
        label={percentLabel}
        isFromZero
        testId="chart-drawdown"
        size="small"
        actions={props.picture("Drawdown")}
      />
      <SeriesChart
        title="Rolling Sharpe ratio"
        definition={
          <>
            <p>{ROLLING_SHARPE_FORMULA}</p>
            <p>
              n is {count(model.sharpeWindow())} bars here: a quarter of a year, or of all bars where those are fewer. A
              is {count(model.metrics.annualisation?.barsPerYear)}.
            </p>
          </>
        }
        group={curve.group}
        series={sharpe()}
        format={(value) => fixed(value, 2)}
        label={numberLabel}
        testId="chart-sharpe"
        size="small"
        actions={props.picture("Rolling Sharpe ratio")}
        state={sharpeState()}
      />
    </>
  );
}

function TradeHistogram(props: { readonly model: RunModel }): JSX.Element {
  const { deals } = props.model;
  const returns = createMemo(() => {
    const found = thereOf(deals.state());
    return found === undefined ? undefined : closedReturns(found.trades);
  });
  const failed = (): unknown => {
    const state = deals.state();
    return state.state === "failed" ? state.error : undefined;
  };
  return (
    <Show
      when={returns()}
      fallback={
        <Show when={failed()} fallback={<Waiting what="the trades" />}>
          {(error) => (
            <ErrorPanel
              title="The trades could not be read"
              error={error()}
              actions={[{ label: "Read them again", run: deals.again }]}
            />
          )}
        </Show>
      }
    >
      {(values) => (
        <Histogram
          title="Returns of trades"
          values={values()}
          format={(value) => percent(value, 2)}
          why="There is no closed trade."
          testId="chart-trades"
        />
      )}
    </Show>
  );
}
