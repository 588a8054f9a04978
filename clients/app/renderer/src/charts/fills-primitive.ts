/** Fills over candles, as a primitive of lightweight-charts: those in view are found by binary search and drawn as arrows, or as strokes where they are many. */

import type {
  IPrimitivePaneRenderer,
  IPrimitivePaneView,
  ISeriesPrimitive,
  Logical,
  SeriesAttachedParameter,
  Time,
} from "lightweight-charts";
import { barsPerCandle, type CandleWindow } from "./candle-window";
import { chartColour } from "./colours";
import { type DrawnFills, type FillColumns, fillAt, isOfTrade, NO_FILLS } from "./fill-columns";
import { lowerBound, upperBound } from "./search";

/** Beyond so many fills in view each is a stroke instead of an arrow. */
const MANY = 400;
/** Pixels within which a fill is hit. */
const HIT_RADIUS = 8;
const ARROW = { width: 9, height: 8, gap: 3 };
/** Where a fill has fewer pixels of the width than this, arrows are smaller, so that the candles are seen. */
const ROOM = 14;
const SMALL_ARROW = { width: 5, height: 5, gap: 2 };
const STROKE = { width: 2, height: 6, step: 3 };
/** Cells of strokes in a row and in a column: 2,048 by 3,072 pixels. */
const CELLS = 1_024;

type Target = Parameters<IPrimitivePaneRenderer["draw"]>[0];

/** Draws fills, and finds them by their places. */
export class FillsPrimitive implements ISeriesPrimitive<Time> {
  #fills: FillColumns = NO_FILLS;
  /** The number of the bar in which each fill lies. */
  #places: Float64Array = new Float64Array(0);
  #window: CandleWindow = { level: 0, first: 0, end: 0 };
  #range = { from: 0, to: 0 };
  #selected = -1;
  /** The number of the drawing that has filled each cell last. */
  readonly #cells = new Int32Array(CELLS * CELLS);
  #stamp = 0;
  #width = 0;
  #attached: SeriesAttachedParameter<Time> | undefined;
  readonly #drawn: DrawnFills = { first: 0, count: 0, xs: new Float32Array(0), ys: new Float32Array(0) };
  readonly #views: readonly IPrimitivePaneView[] = [
    { zOrder: () => "top", renderer: () => ({ draw: (target) => this.#draw(target) }) },
  ];

  attached(param: SeriesAttachedParameter<Time>): void {
    this.#attached = param;
  }

  detached(): void {
    this.#attached = undefined;
  }

  paneViews(): readonly IPrimitivePaneView[] {
    return this.#views;
  }

  /** Takes other fills, with the numbers of their bars, ascending. */
  setFills(fills: FillColumns, places: Float64Array): void {
    this.#fills = fills;
    this.#places = places;
    this.#attached?.requestUpdate();
  }

  /** Takes the candles that the chart has, and the bars in view. */
  setView(window: CandleWindow, range: { readonly from: number; readonly to: number }): void {
    this.#window = window;
    this.#range = range;
  }

  /** Marks the fills of a trade; -1 of none. */
  select(trade: number): void {
    this.#selected = trade;
    this.#attached?.requestUpdate();
  }

  /** Returns the fill at a place of the pane, in pixels; -1 if there is none. */
  at(x: number, y: number): number {
    return fillAt(this.#drawn, x, y, HIT_RADIUS);
  }

  #draw(target: Target): void {
    const attached = this.#attached;
    if (attached === undefined) return;
    const first = lowerBound(this.#places, Math.floor(this.#range.from));
    const end = upperBound(this.#places, Math.ceil(this.#range.to));
    this.#locate(first, end, attached);
    target.useBitmapCoordinateSpace(({ context, horizontalPixelRatio, verticalPixelRatio }) => {
      context.save();
      context.scale(horizontalPixelRatio, verticalPixelRatio);
      const isMany = end - first > MANY;
      for (const side of [1, -1]) {
        context.fillStyle = chartColour(side === 1 ? "series-1" : "series-4");
        if (isMany) this.#strokes(context, first, side);
        else this.#arrows(context, first, side);
      }
      if (this.#selected >= 0) this.#mark(context, first);
      context.restore();
    });
  }

  #arrows(context: CanvasRenderingContext2D, first: number, side: number): void {
    const size = this.#drawn.count * ROOM > this.#width ? SMALL_ARROW : ARROW;
    context.beginPath();
    for (let place = 0; place < this.#drawn.count; place += 1) {
      if (this.#fills.sides[first + place] !== side) continue;
      arrow(context, this.#drawn.xs[place] as number, this.#drawn.ys[place] as number, side, size);
    }
    if (size === ARROW) {
      // An outline of the surface's colour lifts it off the candle.
      context.strokeStyle = chartColour("surface");
      context.lineWidth = 2.5;
      context.stroke();
    }
    context.fill();
  }

  /** Draws a stroke for each cell of a few pixels that has a fill: many fills of one place look as one does. */
  #strokes(context: CanvasRenderingContext2D, first: number, side: number): void {
    this.#stamp += 1;
    for (let place = 0; place < this.#drawn.count; place += 1) {
      if (this.#fills.sides[first + place] !== side) continue;
      const x = Math.round((this.#drawn.xs[place] as number) / STROKE.width);
      const y = Math.round((this.#drawn.ys[place] as number) / STROKE.step);
      if (x < 0 || x >= CELLS || y < 0 || y >= CELLS) continue;
      const cell = y * CELLS + x;
      if (this.#cells[cell] === this.#stamp) continue;
      this.#cells[cell] = this.#stamp;
      const top = y * STROKE.step - (side === 1 ? 0 : STROKE.height);
      context.fillRect(x * STROKE.width - STROKE.width / 2, top, STROKE.width, STROKE.height);
    }
  }

  /** Notes where the fills are drawn. Both scales are linear, so two points of each give all. */
  #locate(first: number, end: number, { chart, series }: SeriesAttachedParameter<Time>): void {
    const drawn = this.#drawn;
    const count = end - first;
    if (drawn.xs.length < count) {
      drawn.xs = new Float32Array(2 * count);
      drawn.ys = new Float32Array(2 * count);
    }
    const scale = chart.timeScale();
    const [left, right] = [scale.logicalToCoordinate(0 as Logical), scale.logicalToCoordinate(1000 as Logical)];
    const top = series.coordinateToPrice(0);
    const below = series.coordinateToPrice(1000);
    drawn.first = first;
    drawn.count = left === null || right === null || top === null || below === null || top === below ? 0 : count;
    if (drawn.count === 0) return;
    const size = barsPerCandle(this.#window.level);
    const pixels = ((right as number) - (left as number)) / 1000;
    this.#width = scale.width();
    const perPrice = 1000 / ((below as number) - (top as number));
    for (let place = 0; place < count; place += 1) {
      const logical = ((this.#places[first + place] as number) + 0.5) / size - 0.5 - this.#window.first;
      drawn.xs[place] = (left as number) + logical * pixels;
      drawn.ys[place] = ((this.#fills.prices[first + place] as number) - (top as number)) * perPrice;
    }
  }

  /** Draws a line through the fills of the selected trade, and rings around them. */
  #mark(context: CanvasRenderingContext2D, first: number): void {
    const own: number[] = [];
    for (let place = 0; place < this.#drawn.count; place += 1) {
      if (isOfTrade(this.#fills, first + place, this.#selected)) own.push(place);
    }
    context.strokeStyle = chartColour("text");
    context.lineWidth = 1.5;
    context.setLineDash([4, 3]);
    context.beginPath();
    for (const [index, place] of own.entries()) {
      const [x, y] = [this.#drawn.xs[place] as number, this.#drawn.ys[place] as number];
      if (index === 0) context.moveTo(x, y);
      else context.lineTo(x, y);
    }
    context.stroke();
    context.setLineDash([]);
    for (const place of own) {
      context.beginPath();
      context.arc(this.#drawn.xs[place] as number, this.#drawn.ys[place] as number, HIT_RADIUS, 0, 2 * Math.PI);
      context.stroke();
    }
  }
}

/** Adds an arrow that points at a price: from below for what was bought, from above for what was sold. */
function arrow(context: CanvasRenderingContext2D, x: number, y: number, side: number, size: typeof ARROW): void {
  const tip = y + side * size.gap;
  const base = tip + side * size.height;
  context.moveTo(x, tip);
  context.lineTo(x - size.width / 2, base);
  context.lineTo(x + size.width / 2, base);
  context.closePath();
}
