/** Lines over one x axis, drawn by uPlot from what is in view: at most two points a pixel, once a frame. */

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { ColourName } from "../design/palette";
import { onColours } from "../design/theme";
import type { ChartGroup } from "./chart-group";
import { chartColour, faint } from "./colours";
import { type Envelope, envelope } from "./envelope";
import { Coalesced } from "./frame";
import { followPointer } from "./pointer";
import type { Pyramid } from "./pyramid";
import { lowerBound, upperBound } from "./search";
import { timeTicks } from "./time-ticks";

/** The pixels of the price axis of every chart, so that their x axes stand below each other. */
export const AXIS_PIXELS = 84;
/** The pixels between labels of the x axis. */
const TICK_PIXELS = 90;
/** The pixels of a line. Hairlines are drawn several times as fast, and look the same where points are dense. */
const [WIDTH, DENSE_WIDTH] = [1.25, 1];
/** Half of a label's width. */
const EDGE_PIXELS = 20;

/** A line of a chart. */
export interface PlotSeries {
  readonly name: string;
  /** Ascending places of the values on the group's axis; lines with the same column share their points. */
  readonly xs: () => ArrayLike<number>;
  readonly values: Pyramid;
  readonly colour: ColourName;
  /** Fills the area between the line and zero. */
  readonly isFilled?: boolean | undefined;
  readonly isDashed?: boolean | undefined;
}

/** The content of a plot. */
export interface PlotOptions {
  readonly group: ChartGroup;
  readonly series: readonly PlotSeries[];
  /** The text of a label of the y axis; `step` is the difference between two labels. */
  readonly label: (value: number, step: number) => string;
  /** Keeps zero in view. */
  readonly isFromZero?: boolean | undefined;
}

/** Draws series into an element, as large as that. */
export class SeriesPlot {
  readonly #host: HTMLElement;
  readonly #options: PlotOptions;
  readonly #plot: uPlot;
  readonly #drawing: Coalesced;
  readonly #ends: (() => void)[] = [];

  constructor(host: HTMLElement, options: PlotOptions) {
    this.#host = host;
    this.#options = options;
    this.#plot = new uPlot(this.#uplotOptions(), empty(options.series.length), host);
    this.#drawing = new Coalesced(() => this.#draw());
    const { group } = options;
    const watch = new ResizeObserver(() => this.#resized());
    watch.observe(host);
    this.#ends.push(
      () => watch.disconnect(),
      group.onRange(() => this.#drawing.request()),
      onColours(() => this.#plot.redraw(false, true)),
      followPointer({ area: this.#plot.over, group }),
    );
    this.#draw();
  }

  /** Draws again in the next frame, after values were added. */
  changed(): void {
    this.#drawing.request();
  }

  /** The canvas, with what is in view. */
  get canvas(): HTMLCanvasElement {
    return this.#plot.ctx.canvas;
  }

  /** Removes the plot. */
  destroy(): void {
    this.#drawing.cancel();
    for (const end of this.#ends) end();
    this.#plot.destroy();
  }

  #size(): { width: number; height: number } {
    return { width: Math.max(160, this.#host.clientWidth), height: Math.max(60, this.#host.clientHeight) };
  }

  #resized(): void {
    const size = this.#size();
    if (size.width === this.#plot.width && size.height === this.#plot.height) return;
    this.#plot.setSize(size);
    this.#drawing.request();
  }

  #draw(): void {
    const { group, series } = this.#options;
    const { from, to } = group.range;
    const pixels = this.#plot.bbox.width > 0 ? this.#plot.bbox.width : this.#plot.width;
    const parts = byColumn(series).map(({ xs, own }) => ({
      own,
      shown: envelope(
        xs,
        own.map((index) => (series[index] as PlotSeries).values),
        { from, to, pixels },
      ),
    }));
    const data = joined(parts, series.length);
    for (const { own, shown } of parts) {
      for (const index of own)
        (this.#plot.series[index + 1] as uPlot.Series).width = shown.isExact ? WIDTH : DENSE_WIDTH;
    }
    this.#plot.batch(() => {
      this.#plot.setData(data, false);
      const [min, max] = this.#extremes(from, to);
      this.#plot.setScale("x", { min: from, max: to });
      this.#plot.setScale("y", { min, max });
    });
  }

  /** Returns the extremes of all values in view, with a margin. */
  #extremes(from: number, to: number): [number, number] {
    let [low, high] = this.#options.isFromZero === true ? [0, 0] : [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    for (const { xs, values } of this.#options.series) {
      const places = xs();
      const length = Math.min(places.length, values.length);
      const found = values.extremes(lowerBound(places, from, length), upperBound(places, to, length));
      low = Math.min(low, found.min);
      high = Math.max(high, found.max);
    }
    if (low > high) return [0, 1];
    const margin = high > low ? 0.05 * (high - low) : Math.max(1e-9, 0.05 * Math.abs(high));
    const isFlush = this.#options.isFromZero === true;
    return [isFlush && low === 0 ? 0 : low - margin, isFlush && high === 0 ? 0 : high + margin];
  }

  #uplotOptions(): uPlot.Options {
    const { group, series, label } = this.#options;
    const font = "11px system-ui, sans-serif";
    const axis = { stroke: () => chartColour("text-muted"), font, ticks: { show: false } } as const;
    const grid = { stroke: () => chartColour("grid"), width: 1 } as const;
    return {
      ...this.#size(),
      padding: [6, 0, 0, 0],
      legend: { show: false },
      cursor: { show: false },
      scales: {
        x: { time: false, auto: false, min: group.range.from, max: group.range.to },
        y: { auto: false, min: 0, max: 1 },
      },
      axes: [
        {
          ...axis,
          grid,
          size: 26,
          gap: 4,
          splits: (plot) => this.#ticks(plot).map(({ at }) => at),
          values: (plot) => this.#ticks(plot).map(({ text }) => text),
        },
        { ...axis, grid, side: 1, size: AXIS_PIXELS, gap: 6, space: 28, values: (_, splits) => labels(splits, label) },
      ],
      series: [{}, ...series.map((one) => this.#uplotSeries(one))],
    };
  }

  #uplotSeries(one: PlotSeries): uPlot.Series {
    return {
      label: one.name,
      stroke: () => chartColour(one.colour),
      width: WIDTH,
      points: { show: false },
      ...(one.isDashed === true ? { dash: [5, 4] } : {}),
      ...(one.isFilled === true ? { fill: () => faint(one.colour, 0.14), fillTo: 0 } : {}),
    };
  }

  #ticks(plot: uPlot): ReturnType<typeof timeTicks> {
    const { axis, range } = this.#options.group;
    const ticks = timeTicks(axis, range.from, range.to, Math.max(2, Math.floor(plot.width / TICK_PIXELS)));
    // A label that would be cut at the left edge is left out.
    return ticks.filter(({ at }) => plot.valToPos(at, "x") >= EDGE_PIXELS);
  }
}

function labels(splits: readonly number[], label: PlotOptions["label"]): string[] {
  const step = splits.length > 1 ? Math.abs((splits[1] as number) - (splits[0] as number)) : Math.abs(splits[0] ?? 1);
  return splits.map((value) => label(value, step));
}

function empty(series: number): uPlot.AlignedData {
  return [[], ...Array.from({ length: series }, () => [])] as unknown as uPlot.AlignedData;
}

/** Returns the series that share a column of places, by that column. */
function byColumn(series: readonly PlotSeries[]): { xs: ArrayLike<number>; own: number[] }[] {
  const found = new Map<ArrayLike<number>, number[]>();
  for (const [index, one] of series.entries()) {
    const xs = one.xs();
    const own = found.get(xs);
    if (own === undefined) found.set(xs, [index]);
    else own.push(index);
  }
  return [...found].map(([xs, own]) => ({ xs, own }));
}

function joined(parts: readonly { own: number[]; shown: Envelope }[], count: number): uPlot.AlignedData {
  const [only] = parts;
  if (parts.length === 1 && only !== undefined) return [only.shown.xs, ...only.shown.series] as uPlot.AlignedData;
  const tables = parts.map(({ shown }) => [shown.xs, ...shown.series] as uPlot.AlignedData);
  // A null of one series is a gap, and stays one among the places of others.
  const all = uPlot.join(
    tables,
    tables.map((table) => table.map(() => 2)),
  );
  const data: unknown[] = new Array(count + 1);
  data[0] = all[0];
  let next = 1;
  for (const { own } of parts) for (const index of own) data[index + 1] = all[next++];
  return data as uPlot.AlignedData;
}
