/** Lays out the fields of a heat map and the words at its sides. Pure. */

import type { FieldSide } from "./field-map";

/** Pixels of CSS. Fields are counted from left to right, and from below. */
export interface FieldLayout {
  readonly across: number;
  readonly up: number;
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  /** The fields with a label: of the lowest row, and of the first column. */
  readonly columns: readonly number[];
  readonly rows: readonly number[];
}

const TOP_PX = 18;
const BOTTOM_PX = 36;
const RIGHT_PX = 10;
const ROW_PX = 16;
const GAP_PX = 14;
/** Labels whose widths are looked at. */
const LOOKED_AT = 24;

/** Lays a map out, so that no two labels of a side meet. */
export function layoutOf(
  context: Pick<CanvasRenderingContext2D, "measureText">,
  width: number,
  height: number,
  x: FieldSide,
  y: FieldSide,
): FieldLayout {
  const left = 12 + widest(context, y);
  const [inner, high] = [Math.max(1, width - left - RIGHT_PX), Math.max(1, height - TOP_PX - BOTTOM_PX)];
  return {
    across: x.fields,
    up: y.fields,
    left,
    top: TOP_PX,
    width: inner,
    height: high,
    columns: every(x.fields, (widest(context, x) + GAP_PX) / (inner / x.fields)),
    rows: every(y.fields, ROW_PX / (high / y.fields)),
  };
}

function widest(context: Pick<CanvasRenderingContext2D, "measureText">, side: FieldSide): number {
  return Math.max(...every(side.fields, side.fields / LOOKED_AT).map((at) => context.measureText(side.text(at)).width));
}

/** Returns every so many fields, in round steps. */
function every(fields: number, least: number): readonly number[] {
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((one) => one >= least) ?? 1_000;
  return Array.from({ length: Math.ceil(fields / step) }, (_, at) => at * step);
}

/** Returns left, top, width and height of a field; neighbours share their edge. */
export function rectOf(layout: FieldLayout, field: number): readonly [number, number, number, number] {
  const [column, row] = [field % layout.across, Math.floor(field / layout.across)];
  const edge = (at: number, of: number, size: number): number => Math.round((at / of) * size);
  const [from, to] = [edge(column, layout.across, layout.width), edge(column + 1, layout.across, layout.width)];
  const [high, low] = [layout.up - 1 - row, layout.up - row].map((at) => edge(at, layout.up, layout.height)) as [
    number,
    number,
  ];
  return [layout.left + from, layout.top + high, to - from, low - high];
}

/** Returns the field at a point; undefined outside of the map. */
export function fieldAt(layout: FieldLayout, x: number, y: number): number | undefined {
  const column = Math.floor(((x - layout.left) / layout.width) * layout.across);
  const row = Math.floor((1 - (y - layout.top) / layout.height) * layout.up);
  const isInside = column >= 0 && column < layout.across && row >= 0 && row < layout.up;
  return isInside ? row * layout.across + column : undefined;
}
