/** The result of a backtest as its screen has it: figures first, then the curve, then trades and prices. */

import type { Metrics, RemoteClient, RemoteResults, Table } from "@backtestr/client/page";
import { type Accessor, createEffect, createMemo, createSignal, onCleanup } from "solid-js";
import { ChartGroup } from "../../charts/chart-group";
import { buyAndHold } from "../../charts/market-curve";
import { Pyramid } from "../../charts/pyramid";
import { rollingSharpe, rollingWindow } from "../../charts/rolling-sharpe";
import { barAxis } from "../../charts/time-ticks";
import { thereOf } from "../../stores/loadable";
import { BarLoader } from "./bar-loader";
import { createReading, type Reading } from "./loading";
import { configOf, numbers, type RunConfig } from "./result-data";

/** Beyond so many bars those of all symbols together are not loaded as a whole; candles load what is in view. */
export const MAX_LOADED_BARS = 2_000_000;
/** Beyond so many symbols buying and holding is not drawn. */
export const MAX_LOADED_SYMBOLS = 12;

/** The equity curve with what follows from it; every column has a value for each bar. */
export interface Curve {
  readonly times: Float64Array;
  /** The number of each bar: the places of the x axis. */
  readonly places: Float64Array;
  readonly equity: Pyramid;
  /** Negative fractions, so that the curve falls as the account does. */
  readonly drawdown: Pyramid;
  readonly group: ChartGroup;
  readonly table: Table;
}

/** The trades and orders of a backtest. */
export interface Deals {
  readonly trades: Table;
  readonly orders: Table;
}

/** The readings of the screen of a result. */
export interface RunModel {
  readonly id: string;
  readonly results: RemoteResults;
  readonly config: RunConfig;
  readonly metrics: Metrics;
  readonly curve: Reading<Curve>;
  readonly deals: Reading<Deals>;
  /** The bars of the symbols, once the curve is there. */
  readonly bars: Accessor<readonly BarLoader[]>;
  /** Changes whenever bars have come. */
  readonly barsRevision: Accessor<number>;
  /** The reason why buying and holding is not drawn; undefined where it is, or will be. */
  readonly whyNoMarket: Accessor<string | undefined>;
  /** Buying and holding, once all bars are loaded. */
  readonly market: Accessor<Pyramid | undefined>;
  readonly sharpeWindow: Accessor<number>;
  /** Undefined until `drawn` was called. */
  readonly sharpe: Accessor<Pyramid | undefined>;
  /** Tells that the curve is in sight: what follows from it is computed from then on. */
  readonly drawn: () => void;
}

/** Makes the model of a backtest that has ended, and begins to read. Called under an owner. */
export function createRunModel(client: RemoteClient, results: RemoteResults, metrics: Metrics): RunModel {
  const id = results.backtestId;
  const config = configOf(results.config);
  const curve = createReading("the equity curve", async () => {
    const { tables } = await client.results(id, { tables: ["equity"] });
    return curveOf(there(tables.equity, "equity"));
  });
  // The curve is what is looked at first, so trades do not share its way.
  const isCurveRead = untilRead(curve);
  const deals = createReading("trades and orders", async () => {
    await isCurveRead;
    const { tables } = await client.results(id, { tables: ["trades", "orders"] });
    return { trades: there(tables.trades, "trades"), orders: there(tables.orders, "orders") };
  });

  const [barsRevision, setBarsRevision] = createSignal(0);
  const loaders = createMemo((): readonly BarLoader[] => {
    const found = thereOf(curve.state());
    if (found === undefined || found.times.length === 0) return [];
    const made = config.symbols.map(
      (symbol) => new BarLoader(client, config, symbol, found.times, () => setBarsRevision((last) => last + 1)),
    );
    onCleanup(() => {
      for (const one of made) one.stop();
    });
    return made;
  });
  const whyNoMarket = createMemo(() => {
    const bars = (thereOf(curve.state())?.times.length ?? 0) * config.symbols.length;
    if (config.symbols.length > MAX_LOADED_SYMBOLS) {
      return `Buying and holding is not drawn: the backtest has more than ${MAX_LOADED_SYMBOLS} symbols.`;
    }
    if (bars > MAX_LOADED_BARS) {
      return `Buying and holding is not drawn: the backtest has more than ${MAX_LOADED_BARS.toLocaleString("en-US")} bars.`;
    }
    const error = barsRevision() >= 0 ? loaders().find((one) => one.error !== undefined)?.error : undefined;
    return error === undefined ? undefined : `Buying and holding is not drawn: ${(error as Error).message}`;
  });
  const isComplete = createMemo(
    () => barsRevision() >= 0 && loaders().length > 0 && loaders().every((one) => one.columns.isComplete),
  );
  const market = createMemo(() => {
    if (!isComplete()) return undefined;
    const closes = loaders().map((one) => one.columns.candles(0).close);
    return new Pyramid(buyAndHold(closes, config.initialCapital, closes[0]?.length ?? 0));
  });

  const yearly = (): number => metrics.annualisation?.barsPerYear ?? Number.NaN;
  const sharpeWindow = createMemo(() => rollingWindow(yearly(), thereOf(curve.state())?.times.length ?? 0));
  const [isDrawn, setIsDrawn] = createSignal(false);
  const sharpe = createMemo(() => {
    const found = thereOf(curve.state());
    if (found === undefined || !isDrawn() || Number.isNaN(yearly())) return undefined;
    const equity = found.equity.values;
    const riskFree = metrics.annualisation?.riskFree ?? 0;
    return new Pyramid(rollingSharpe(equity, config.initialCapital, sharpeWindow(), yearly(), riskFree));
  });
  return {
    id,
    results,
    config,
    metrics,
    curve,
    deals,
    bars: loaders,
    barsRevision,
    whyNoMarket,
    market,
    sharpeWindow,
    sharpe,
    drawn: () => setIsDrawn(true),
  };
}

/** Resolves once a reading has its value, or has failed. */
function untilRead(reading: Reading<unknown>): Promise<void> {
  return new Promise((resolve) => {
    createEffect(() => {
      if (reading.state().state !== "waiting") resolve();
    });
    onCleanup(resolve);
  });
}

function there(table: Table | undefined, name: string): Table {
  if (table === undefined) throw new RangeError(`this result has no table of its ${name}: no bar was simulated`);
  return table;
}

/** Returns the columns of an equity table for charts. */
export function curveOf(table: Table): Curve {
  const times = numbers(table, "timestamp");
  const bars = times.length;
  const falls = numbers(table, "drawdown");
  const [places, drawdown] = [new Float64Array(bars), new Float64Array(bars)];
  for (let bar = 0; bar < bars; bar += 1) {
    places[bar] = bar;
    drawdown[bar] = -(falls[bar] as number);
  }
  return {
    times,
    places,
    equity: new Pyramid(numbers(table, "equity")),
    drawdown: new Pyramid(drawdown),
    group: new ChartGroup(
      barAxis(() => times),
      { from: -0.5, to: Math.max(1, bars) - 0.5 },
      Math.min(8, Math.max(1, bars)),
    ),
    table,
  };
}
