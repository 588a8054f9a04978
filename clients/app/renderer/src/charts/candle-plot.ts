/** Candles with fills, drawn by lightweight-charts, which is given only the candles in view with margins. */

import {
  type CandlestickData,
  CandlestickSeries,
  ColorType,
  createChart,
  type IChartApi,
  type ISeriesApi,
  type LogicalRange,
  type UTCTimestamp,
  type WhitespaceData,
} from "lightweight-charts";
import { onColours } from "../design/theme";
import type { Candles } from "./bar-columns";
import { barsPerCandle, type CandleWindow, grownWindow, isOutgrown, windowFor } from "./candle-window";
import type { ChartGroup } from "./chart-group";
import { chartColour } from "./colours";
import { type FillColumns, NO_FILLS } from "./fill-columns";
import { FillsPrimitive } from "./fills-primitive";
import { Coalesced } from "./frame";
import { followPointer } from "./pointer";
import { upperBound } from "./search";
import { AXIS_PIXELS } from "./series-plot";

/** Where candles come from. */
export interface CandleSource {
  /** The times of all bars, ascending milliseconds. */
  readonly times: () => Float64Array;
  /** The number of bars that are shown; it may grow. */
  readonly bars: () => number;
  /** The candles of a level; NaN where they are not loaded. */
  readonly candles: (level: number) => Candles;
  /** Has the candles of a window loaded; the plot is told by `changed` when they are there. */
  readonly want: (window: CandleWindow) => void;
}

/** The content of a plot of candles. */
export interface CandleOptions {
  readonly group: ChartGroup;
  readonly source: CandleSource;
  /** The text of a price. */
  readonly label: (price: number) => string;
  /** Called with the fill that was clicked. */
  readonly onFill?: ((fill: number) => void) | undefined;
}

type Candle = CandlestickData<UTCTimestamp> | WhitespaceData<UTCTimestamp>;

/** Draws candles into an element, as large as that. */
export class CandlePlot {
  readonly #host: HTMLElement;
  readonly #options: CandleOptions;
  readonly #chart: IChartApi;
  readonly #series: ISeriesApi<"Candlestick">;
  readonly #fills = new FillsPrimitive();
  readonly #drawing: Coalesced;
  readonly #area = document.createElement("div");
  readonly #ends: (() => void)[] = [];
  #window: CandleWindow | undefined;
  #isStale = false;
  #hasGrown = false;
  #height: number;
  #placed = "";

  constructor(host: HTMLElement, options: CandleOptions) {
    this.#host = host;
    this.#options = options;
    this.#height = host.clientHeight;
    this.#chart = createChart(host, {
      width: host.clientWidth,
      height: host.clientHeight,
      handleScroll: false,
      handleScale: false,
      ...looks(options.label),
    });
    this.#series = this.#chart.addSeries(CandlestickSeries, { priceLineVisible: false, lastValueVisible: false });
    this.#series.attachPrimitive(this.#fills);
    this.#area.className = "chart-area";
    host.append(this.#area);
    this.#drawing = new Coalesced(() => this.#draw());
    const { group } = options;
    const watch = new ResizeObserver(() => this.#resized());
    watch.observe(host);
    this.#recolour();
    this.#ends.push(
      () => watch.disconnect(),
      group.onRange(() => this.#drawing.request()),
      onColours(() => this.#recolour()),
      followPointer({
        area: this.#area,
        group,
        onClick: (x, y) => {
          const fill = this.#fills.at(x, y);
          if (fill >= 0) options.onFill?.(fill);
        },
        onHover: (x, y) => (options.onFill !== undefined && this.#fills.at(x, y) >= 0 ? "pointer" : "crosshair"),
      }),
    );
    this.#draw();
  }

  /** Draws again in the next frame, after candles were loaded anywhere. */
  changed(): void {
    this.#isStale = true;
    this.#drawing.request();
  }

  /** Draws again in the next frame, after bars were added at the end alone. */
  grown(): void {
    this.#hasGrown = true;
    this.#drawing.request();
  }

  /** Takes other fills, in the order of their times. */
  setFills(fills: FillColumns = NO_FILLS): void {
    const times = this.#options.source.times();
    this.#fills.setFills(fills, fills.places ?? fills.times.map((time) => upperBound(times, time) - 1));
  }

  /** Marks the fills of a trade; -1 of none. */
  select(trade: number): void {
    this.#fills.select(trade);
  }

  /** Returns a picture of what is in view. */
  picture(): HTMLCanvasElement {
    return this.#chart.takeScreenshot();
  }

  /** Removes the plot. */
  destroy(): void {
    this.#drawing.cancel();
    for (const end of this.#ends) end();
    this.#area.remove();
    this.#chart.remove();
  }

  #resized(): void {
    this.#height = Math.max(80, this.#host.clientHeight);
    this.#chart.resize(Math.max(160, this.#host.clientWidth), this.#height);
    this.#drawing.request();
  }

  #draw(): void {
    const { group, source } = this.#options;
    const { range } = group;
    // Bar 0 reaches from -0.5 to 0.5 of the axis.
    const view = { from: range.from + 0.5, to: range.to + 0.5 };
    const bars = source.bars();
    if (bars === 0) return;
    const added = this.#hasGrown && !this.#isStale ? grownWindow(this.#window, windowFor(view, bars)) : undefined;
    if (added !== undefined) this.#add(added);
    else if (this.#isStale || isOutgrown(this.#window, view, bars)) this.#handOver(windowFor(view, bars));
    this.#isStale = false;
    this.#hasGrown = false;
    const window = this.#window as CandleWindow;
    this.#fills.setView(window, range);
    const size = barsPerCandle(window.level);
    const logical = { from: view.from / size - window.first, to: view.to / size - window.first - 1 };
    // A candle has its middle at its number, and is one wide.
    this.#chart.timeScale().setVisibleLogicalRange(logical as LogicalRange);
    this.#place();
  }

  /** Gives the chart the candles of a window. */
  #handOver(window: CandleWindow): void {
    const { source } = this.#options;
    const size = barsPerCandle(window.level);
    const present = source.candles(window.level);
    const data: Candle[] = [];
    for (let at = window.first; at < window.end; at += 1) data.push(candleAt(source.times(), present, at, size));
    this.#series.setData(data);
    this.#window = window;
    source.want(window);
  }

  /** Gives the chart the candles that a window has more at its end, and its last one anew. */
  #add(window: CandleWindow): void {
    const { source } = this.#options;
    const size = barsPerCandle(window.level);
    const present = source.candles(window.level);
    const before = this.#window?.end ?? window.end;
    for (let at = Math.max(window.first, before - 1); at < window.end; at += 1) {
      this.#series.update(candleAt(source.times(), present, at, size));
    }
    this.#window = window;
  }

  /** Lays the area that takes the pointer over the candles; the element is asked for its size only when that changes. */
  #place(): void {
    const scale = this.#chart.timeScale();
    const size = `${scale.width()} ${this.#height - scale.height()}`;
    if (size === this.#placed) return;
    this.#placed = size;
    this.#area.style.width = `${scale.width()}px`;
    this.#area.style.height = `${Math.max(0, this.#height - scale.height())}px`;
  }

  #recolour(): void {
    this.#chart.applyOptions(looks(this.#options.label));
    const [up, down] = [chartColour("gain"), chartColour("loss")];
    this.#series.applyOptions({
      upColor: up,
      downColor: down,
      borderVisible: false,
      wickUpColor: up,
      wickDownColor: down,
    });
  }
}

function candleAt(times: Float64Array, { open, high, low, close }: Candles, at: number, size: number): Candle {
  const time = Math.floor((times[at * size] as number) / 1000) as UTCTimestamp;
  if (Number.isNaN(close[at])) return { time };
  return {
    time,
    open: open[at] as number,
    high: high[at] as number,
    low: low[at] as number,
    close: close[at] as number,
  };
}

function looks(label: (price: number) => string): Parameters<IChartApi["applyOptions"]>[0] {
  return {
    layout: {
      background: { type: ColorType.Solid, color: "transparent" },
      textColor: chartColour("text-muted"),
      fontSize: 11,
      fontFamily: "system-ui, sans-serif",
      // The logo needs a style that a strict policy of content refuses; the chart has a link instead.
      attributionLogo: false,
    },
    grid: { vertLines: { color: chartColour("grid") }, horzLines: { color: chartColour("grid") } },
    localization: { priceFormatter: label },
    rightPriceScale: { borderVisible: false, minimumWidth: AXIS_PIXELS, entireTextOnly: true },
    timeScale: {
      borderVisible: false,
      timeVisible: true,
      minBarSpacing: 0.001,
      enableConflation: true,
      shiftVisibleRangeOnNewBar: false,
      minimumHeight: 26,
    },
    crosshair: { vertLine: { visible: false, labelVisible: false }, horzLine: { visible: false, labelVisible: false } },
  };
}
