/** Candles with every fill, above the trades: a click on a fill selects its trade, and a trade shows its fills. */

import { createEffect, createMemo, createSignal, type JSX, on, onCleanup, Show } from "solid-js";
import { useApp } from "../../app-context";
import { CandleChart } from "../../charts/candle-chart";
import type { CandleSource } from "../../charts/candle-plot";
import type { ChartAction, ChartState } from "../../charts/chart-frame";
import { fillsOfTrade, NO_FILLS, tradeOfFill } from "../../charts/fill-columns";
import { nearestIndex } from "../../charts/search";
import { ErrorPanel } from "../../components/error-panel";
import { Select } from "../../components/field";
import { Waiting } from "../../components/states";
import { fileName, savePng } from "../../exports/save";
import { price, profit } from "../../format/numbers";
import { moment } from "../../format/times";
import { thereOf } from "../../stores/loadable";
import type { BarLoader } from "./bar-loader";
import { fillsOf, numbers, texts, titleOf } from "./result-data";
import type { Curve, Deals, RunModel } from "./run-model";
import { TradeTable } from "./trade-table";

/** Bars that are in view at first: candles that can be told apart. */
const FIRST_VIEW = 400;
/** The share of a view that is free on either side of a trade that is shown. */
const FREE = 1.5;

/** Shows the trades of a result in their prices. */
export function TradesView(props: { readonly model: RunModel }): JSX.Element {
  const { model } = props;
  const both = createMemo(() => {
    const [curve, deals] = [thereOf(model.curve.state()), thereOf(model.deals.state())];
    return curve === undefined || deals === undefined ? undefined : { curve, deals };
  });
  const failed = (): unknown => {
    const states = [model.curve.state(), model.deals.state()];
    for (const one of states) if (one.state === "failed") return one.error;
    return undefined;
  };
  const again = (): void => {
    for (const one of [model.curve, model.deals]) if (one.state().state === "failed") one.again();
  };
  return (
    <Show
      when={both()}
      fallback={
        <Show when={failed()} fallback={<Waiting what="trades and orders" />}>
          {(error) => (
            <ErrorPanel
              title="The trades could not be read"
              error={error()}
              actions={[{ label: "Read them again", run: again }]}
            />
          )}
        </Show>
      }
    >
      {(found) => <Joined model={model} curve={found().curve} deals={found().deals} />}
    </Show>
  );
}

function Joined(props: { readonly model: RunModel; readonly curve: Curve; readonly deals: Deals }): JSX.Element {
  const app = useApp();
  const { model, curve, deals } = props;
  const { group } = curve;
  const [symbol, setSymbol] = createSignal(model.config.symbols[0] as string);
  const [selected, setSelected] = createSignal<number>();
  const loader = createMemo(() => model.bars().find((one) => one.symbol === symbol()));
  const fills = createMemo(() => fillsOf(deals.orders, deals.trades, symbol()));
  const name = fileName(model.config.algorithm, model.id.slice(0, 8));
  const before = group.range;
  if (group.isWhole)
    group.show({ from: group.bounds.to - Math.min(FIRST_VIEW, curve.times.length), to: group.bounds.to });
  onCleanup(() => group.show(before));

  function select(trade: number): void {
    const own = texts(deals.trades, "symbol")?.at(trade);
    if (own !== null && own !== undefined && model.config.symbols.includes(own)) setSymbol(own);
    setSelected(trade);
  }
  // A trade that was chosen in the table comes into view.
  createEffect(
    on(
      selected,
      (trade) => {
        if (trade === undefined) return;
        const places = fillsOfTrade(fills(), trade).map((fill) =>
          nearestIndex(curve.times, fills().times[fill] as number),
        );
        if (places.length === 0) return;
        const [first, last] = [Math.min(...places), Math.max(...places)];
        const { from, to } = group.range;
        const span = Math.max(to - from, (last - first) * FREE, group.least);
        if (first >= from && last <= to && last - first > 0.02 * (to - from)) return;
        const middle = (first + last) / 2;
        const wanted = last - first > 0.02 * span ? span : Math.max(40, (last - first) * 4);
        group.show({ from: middle - wanted / 2, to: middle + wanted / 2 });
      },
      { defer: true },
    ),
  );
  const picture = (canvas: () => HTMLCanvasElement | undefined): readonly ChartAction[] => [
    {
      label: "PNG",
      title: "Save as PNG: Prices",
      run: () => {
        const found = canvas();
        if (found === undefined) return;
        savePng(app.host, `${name}-prices`, found, `${titleOf(model.config)}: ${symbol()}`).catch((error: Error) =>
          app.notices.show(error.message, { kind: "error" }),
        );
      },
    },
  ];
  return (
    <div class="result-trades">
      <Show when={model.config.symbols.length > 1}>
        <Select
          label="Prices of"
          value={symbol()}
          choices={model.config.symbols.map((one) => ({ value: one, label: one }))}
          onChange={setSymbol}
        />
      </Show>
      <Show when={loader()} fallback={<Waiting what="the prices" />} keyed>
        {(bars) => (
          <CandleChart
            title={`Prices of ${symbol()}`}
            group={group}
            source={sourceOf(bars)}
            revision={model.barsRevision()}
            fills={bars.symbol === symbol() ? fills() : NO_FILLS}
            selected={selected()}
            onFill={(fill) => {
              const trade = tradeOfFill(fills(), fill);
              if (trade >= 0) setSelected(trade);
            }}
            state={stateOf(bars, model.barsRevision())}
            testId="chart-candles"
            actions={picture}
          />
        )}
      </Show>
      <p class="small muted selected-trade" role="status" data-testid="selected-trade">
        {selected() === undefined
          ? "Click a fill, or choose a row: they show each other."
          : wordsOf(deals, selected() as number)}
      </p>
      <TradeTable trades={deals.trades} selected={selected()} onSelect={select} name={name} />
    </div>
  );
}

function sourceOf(bars: BarLoader): CandleSource {
  return {
    times: () => bars.columns.times,
    bars: () => bars.columns.times.length,
    candles: (level) => bars.columns.candles(level),
    want: ({ level, first, end }) => bars.want(level, first, end),
  };
}

function stateOf(bars: BarLoader, _revision: number): ChartState {
  if (bars.error === undefined) return { kind: "ready" };
  return { kind: "failed", error: bars.error, retry: () => bars.retry() };
}

function wordsOf(deals: Deals, row: number): string {
  const { trades } = deals;
  const side = texts(trades, "side")?.at(row) === "buy" ? "Long" : "Short";
  const at = (name: string): number => numbers(trades, name)[row] as number;
  const isOpen = texts(trades, "status")?.at(row) === "open";
  const end = isOpen ? "still open" : `out at ${price(at("exit_price"))} on ${moment(at("exit_time"))}`;
  return `Trade ${row + 1}: ${side}, in at ${price(at("entry_price"))} on ${moment(at("entry_time"))}, ${end}; PnL ${profit(at("pnl"))}.`;
}
