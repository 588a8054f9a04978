/** A chart of candles with fills, with its frame. */

import { createEffect, createMemo, createSignal, type JSX, on, onCleanup, onMount } from "solid-js";
import { price as priceText } from "../format/numbers";
import { moment as momentText } from "../format/times";
import type { CandleSource } from "./candle-plot";
import { CandlePlot } from "./candle-plot";
import { barsPerCandle, levelFor } from "./candle-window";
import { type ChartAction, ChartFrame, type ChartState } from "./chart-frame";
import type { ChartGroup } from "./chart-group";
import { type FillColumns, NO_FILLS } from "./fill-columns";
import { Coalesced } from "./frame";

export interface CandleChartProps {
  readonly title: string;
  readonly group: ChartGroup;
  /** Another source is drawn anew. */
  readonly source: CandleSource;
  readonly fills?: FillColumns | undefined;
  /** Changes whenever candles were loaded or added. */
  readonly revision?: unknown;
  /** Bars are only ever added at the end. */
  readonly isGrowing?: boolean | undefined;
  /** The row of the trade whose fills are marked; -1 of none. */
  readonly selected?: number | undefined;
  readonly onFill?: ((fill: number) => void) | undefined;
  readonly state?: ChartState | undefined;
  readonly size?: "middle" | "large" | undefined;
  readonly testId: string;
  /** Returns further buttons; `picture` gives what is in view. */
  readonly actions?: ((picture: () => HTMLCanvasElement | undefined) => readonly ChartAction[]) | undefined;
}

/** Draws candles, and fills as arrows: up for what was bought, down for what was sold. */
export function CandleChart(props: CandleChartProps): JSX.Element {
  let plot: CandlePlot | undefined;
  const [cursor, setCursor] = createSignal<number | null>(null);
  const [level, setLevel] = createSignal(0);
  const state = createMemo((): ChartState => {
    if (props.state !== undefined && props.state.kind !== "ready") return props.state;
    void props.revision;
    return props.source.bars() === 0 ? { kind: "empty", why: "There is no bar." } : { kind: "ready" };
  });
  const reading = new Coalesced(() => setCursor(props.group.cursor));
  createEffect(() => {
    const { group } = props;
    const note = (): void => void setLevel(levelFor(group.range));
    note();
    const ends = [group.onCursor(() => reading.request()), group.onRange(note)];
    onCleanup(() => {
      for (const end of ends) end();
      reading.cancel();
    });
  });

  function Plot(): JSX.Element {
    let host: HTMLDivElement | undefined;
    onMount(() => {
      createEffect(() => {
        const { source, group, onFill } = props;
        if (host === undefined) return;
        plot = new CandlePlot(host, { group, source, label: priceText, onFill });
        onCleanup(() => {
          plot?.destroy();
          plot = undefined;
        });
      });
      createEffect(() => {
        void props.source;
        plot?.setFills(props.fills ?? NO_FILLS);
      });
      createEffect(() => {
        void props.source;
        plot?.select(props.selected ?? -1);
      });
      createEffect(
        on(
          () => props.revision,
          () => (props.isGrowing === true ? plot?.grown() : plot?.changed()),
          { defer: true },
        ),
      );
    });
    return <div ref={host} class="chart-plot" />;
  }

  const bar = createMemo(() => {
    void props.revision;
    const { source } = props;
    const last = source.bars() - 1;
    const at = Math.max(0, Math.min(last, Math.round(cursor() ?? last)));
    const { open, high, low, close } = source.candles(0);
    return { open: open[at], high: high[at], low: low[at], close: close[at] };
  });
  const entry = (name: string, value: () => number | undefined) => ({ name, value: () => priceText(value()) });
  return (
    <ChartFrame
      title={props.title}
      definition={
        <>
          <p>
            The bars that the backtest has seen. Blue arrows up are fills that bought, orange arrows down such that
            sold.
          </p>
          <p>A click on a fill selects its trade.</p>
        </>
      }
      group={props.group}
      moment={() => {
        const place = cursor();
        return place === null ? "Last bar" : momentText(props.group.axis.timeAt(place));
      }}
      legend={[
        entry("O", () => bar().open),
        entry("H", () => bar().high),
        entry("L", () => bar().low),
        entry("C", () => bar().close),
      ]}
      actions={props.actions?.(() => plot?.picture()) ?? []}
      state={state()}
      summary={`${props.source.bars()} bars, ${props.fills?.times.length ?? 0} fills. The trades table has each fill with its trade.`}
      step={(place, steps) => Math.max(0, Math.min(props.source.bars() - 1, Math.round(place) + steps))}
      note={
        <>
          <span>
            {level() > 0 ? `A candle is ${barsPerCandle(level())} bars; zoom in to see each.` : "A candle is one bar."}
          </span>
          <a href="https://www.tradingview.com/" target="_blank" rel="noreferrer">
            TradingView Lightweight Charts™, © 2026 TradingView, Inc.
          </a>
        </>
      }
      size={props.size ?? "large"}
      testId={props.testId}
    >
      <Plot />
    </ChartFrame>
  );
}
