/** Parallel coordinates: a line for each row through its place on every axis. Ranges of the axes choose rows. */

import { createMemo, createSignal, createUniqueId, type JSX, onCleanup } from "solid-js";
import { Button } from "../components/button";
import { Definition } from "../components/definition";
import { Canvas, type Draw } from "./canvas";
import { colourOfStep } from "./colour-scale";
import { chartColour, faint } from "./colours";
import { type LineColumns, linesOf, MOST_LINES } from "./parallel-lines";

/** An axis: the places of its values, from 0 at its foot to 1. */
export interface ParallelAxis {
  readonly name: string;
  /** The steps along it that a key goes. */
  readonly steps: number;
  /** Returns the words of the value at a place. */
  text(share: number): string;
}

export interface AxisRange {
  readonly from: number;
  readonly to: number;
}

export interface ParallelChartProps {
  readonly title: string;
  readonly definition: JSX.Element;
  readonly axes: readonly ParallelAxis[];
  readonly lines: LineColumns;
  /** The chosen range of each axis that has one, by the axis' name. */
  readonly ranges: { readonly [axis: string]: AxisRange };
  onRange(axis: string, range: AxisRange | undefined): void;
  /** The row that is marked. */
  readonly marked: number | undefined;
  readonly summary: string;
  /** The rows that the ranges choose, in words. */
  readonly chosen: string;
  readonly testId: string;
}

const TOP_PX = 40;
const BOTTOM_PX = 24;
const SIDE_PX = 44;
/** A drag of so many pixels chooses a range; a shorter one is a click, which lets it go. */
const CLICK_PX = 4;
const GRIP_PX = 7;

/** Shows the chart. Drags along an axis, and keys, choose the rows of a range. */
export function ParallelChart(props: ParallelChartProps): JSX.Element {
  const id = createUniqueId();
  const [focus, setFocus] = createSignal<number>();
  const [said, setSaid] = createSignal("");
  let body: HTMLDivElement | undefined;
  let drag: { axis: number; from: number; y: number } | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  onCleanup(() => clearTimeout(timer));

  const drawn = createMemo(() => linesOf(props.lines));
  const picture = createMemo((): Draw => {
    const { axes, ranges, marked, lines } = props;
    const groups = drawn();
    const focused = focus();
    return (context, width, height) => {
      const place = placing(axes.length, width, height);
      context.lineWidth = 1;
      context.strokeStyle = faint("text-faint", 0.18);
      stroke(context, groups.others, lines, place);
      context.globalAlpha = Math.max(0.25, Math.min(0.9, 12 / Math.sqrt(groups.count)));
      for (const { step, rows } of groups.steps) {
        context.strokeStyle = colourOfStep(step);
        stroke(context, rows, lines, place);
      }
      context.globalAlpha = 1;
      if (marked !== undefined) {
        for (const [name, wide] of [
          ["surface", 5],
          ["text", 2.5],
        ] as const) {
          context.strokeStyle = chartColour(name);
          context.lineWidth = wide;
          stroke(context, [marked], lines, place);
        }
      }
      axes.forEach((axis, at) => {
        drawAxis(context, axis, at, place, ranges[axis.name], at === focused);
      });
    };
  });

  function at(event: PointerEvent): { axis: number; share: number; y: number } {
    const box = (body as HTMLDivElement).getBoundingClientRect();
    const place = placing(props.axes.length, box.width, box.height);
    const axis = Math.round((event.clientX - box.left - SIDE_PX) / place.gap || 0);
    const y = event.clientY - box.top;
    const share = Math.max(0, Math.min(1, (place.foot - y) / place.length));
    return { axis: Math.max(0, Math.min(props.axes.length - 1, axis)), share, y };
  }
  function moved(event: PointerEvent): void {
    if (drag === undefined) return;
    const now = at(event);
    if (Math.abs(now.y - drag.y) < CLICK_PX) return;
    const range = { from: Math.min(drag.from, now.share), to: Math.max(drag.from, now.share) };
    props.onRange((props.axes[drag.axis] as ParallelAxis).name, range);
  }
  function ended(event: PointerEvent): void {
    if (drag !== undefined && Math.abs(at(event).y - drag.y) < CLICK_PX) {
      props.onRange((props.axes[drag.axis] as ParallelAxis).name, undefined);
    }
    drag = undefined;
  }
  function keyed(event: KeyboardEvent): void {
    const present = Math.min(focus() ?? 0, props.axes.length - 1);
    const axis = props.axes[present] as ParallelAxis;
    const way = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    const { from, to } = props.ranges[axis.name] ?? { from: 0, to: 1 };
    if (event.key === "ArrowLeft") setFocus(Math.max(0, present - 1));
    else if (event.key === "ArrowRight")
      setFocus(focus() === undefined ? 0 : Math.min(props.axes.length - 1, present + 1));
    else if (way !== undefined) {
      setFocus(present);
      const by = way / Math.max(1, axis.steps - 1);
      const range = event.shiftKey
        ? { from: Math.max(0, Math.min(to, from + by)), to }
        : { from, to: Math.min(1, Math.max(from, to + by)) };
      props.onRange(axis.name, range);
    } else if (event.key === "Delete" || event.key === "Backspace") props.onRange(axis.name, undefined);
    else if (event.key === "Escape") clear();
    else return;
    event.preventDefault();
    clearTimeout(timer);
    timer = setTimeout(() => setSaid(`${axisWords()}. ${props.chosen}`), 250);
  }
  function axisWords(): string {
    const axis = props.axes[Math.min(focus() ?? 0, props.axes.length - 1)] as ParallelAxis;
    const range = props.ranges[axis.name];
    return range === undefined
      ? `${axis.name}, all values`
      : `${axis.name} from ${axis.text(range.from)} to ${axis.text(range.to)}`;
  }
  function clear(): void {
    for (const axis of Object.keys(props.ranges)) props.onRange(axis, undefined);
  }
  const hasRanges = (): boolean => Object.keys(props.ranges).length > 0;
  return (
    <figure class="chart panel" data-testid={props.testId} aria-labelledby={`${id}-title`}>
      <div class="panel-header chart-header">
        <h2 id={`${id}-title`}>{props.title}</h2>
        <Definition term={props.title} mark>
          {props.definition}
        </Definition>
        <div class="actions">
          <Button disabled={!hasRanges()} onClick={clear}>
            All values
          </Button>
        </div>
      </div>
      <div
        ref={body}
        class="chart-body large parallel"
        role="application"
        aria-label={props.title}
        aria-describedby={`${id}-words`}
        tabindex={0}
        onKeyDown={keyed}
        onBlur={() => setFocus(undefined)}
        onPointerDown={(event) => {
          if (event.button !== 0) return;
          const { axis, share, y } = at(event);
          drag = { axis, from: share, y };
          body?.setPointerCapture(event.pointerId);
        }}
        onPointerMove={moved}
        onPointerUp={ended}
        onPointerCancel={() => {
          drag = undefined;
        }}
      >
        <Canvas draw={picture()} />
      </div>
      <figcaption class="chart-note small muted">
        <span data-testid={`${props.testId}-chosen`}>{props.chosen}</span>
        {drawn().isPart ? (
          <span>{MOST_LINES.toLocaleString("en-US")} lines are drawn, the best ones among them.</span>
        ) : (
          ""
        )}
      </figcaption>
      <p id={`${id}-words`} class="visually-hidden">
        {props.summary} The left and right arrow keys go from axis to axis. Up and down move the upper end of its range,
        with Shift the lower end. Delete lets the range go, Escape all ranges.
      </p>
      <p class="visually-hidden" role="status">
        {said()}
      </p>
    </figure>
  );
}

interface Placing {
  readonly gap: number;
  /** Pixels from above of the share 0, and those from it up to the share 1. */
  readonly foot: number;
  readonly length: number;
}

function placing(axes: number, width: number, height: number): Placing {
  const foot = height - BOTTOM_PX;
  return { gap: (width - 2 * SIDE_PX) / Math.max(1, axes - 1), foot, length: foot - TOP_PX };
}

function stroke(
  context: CanvasRenderingContext2D,
  rows: ArrayLike<number>,
  { shares }: LineColumns,
  { gap, foot, length }: Placing,
): void {
  context.beginPath();
  for (let at = 0; at < rows.length; at += 1) {
    const row = rows[at] as number;
    for (let axis = 0; axis < shares.length; axis += 1) {
      const share = (shares[axis] as Float64Array)[row] as number;
      if (Number.isNaN(share)) break; // a row without a value ends before the axis of values
      const [x, y] = [SIDE_PX + axis * gap, foot - share * length];
      if (axis === 0) context.moveTo(x, y);
      else context.lineTo(x, y);
    }
  }
  context.stroke();
}

function drawAxis(
  context: CanvasRenderingContext2D,
  axis: ParallelAxis,
  at: number,
  { gap, foot, length }: Placing,
  range: AxisRange | undefined,
  isFocused: boolean,
): void {
  const x = SIDE_PX + at * gap;
  context.strokeStyle = chartColour(isFocused ? "accent" : "text-muted");
  context.lineWidth = isFocused ? 2 : 1;
  context.beginPath();
  context.moveTo(x, foot);
  context.lineTo(x, foot - length);
  context.stroke();
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = chartColour(isFocused ? "accent" : "text");
  centred(context, axis.name, x, 10, gap);
  context.fillStyle = chartColour("text-muted");
  centred(context, axis.text(1), x, TOP_PX - 12, gap);
  centred(context, axis.text(0), x, foot + 12, gap);
  if (range === undefined) return;
  const [high, low] = [foot - range.to * length, foot - range.from * length];
  context.fillStyle = faint("accent", 0.3);
  context.fillRect(x - GRIP_PX, high, 2 * GRIP_PX, Math.max(2, low - high));
  context.strokeStyle = chartColour("accent");
  context.lineWidth = 1.5;
  context.strokeRect(x - GRIP_PX, high, 2 * GRIP_PX, Math.max(2, low - high));
  label(context, axis.text(range.to), x, Math.max(TOP_PX + 6, high + 8));
  if (low - high > 22) label(context, axis.text(range.from), x, low - 8);
}

/** Writes a text above or below an axis, as far inside of the canvas as it has to be, and no wider than a gap. */
function centred(context: CanvasRenderingContext2D, text: string, x: number, y: number, gap: number): void {
  const most = Math.max(SIDE_PX, gap - 8);
  const half = Math.min(most, context.measureText(text).width) / 2;
  const width = context.canvas.clientWidth;
  context.fillText(text, Math.max(half + 4, Math.min(width - half - 4, x)), y, most);
}

function label(context: CanvasRenderingContext2D, text: string, x: number, y: number): void {
  const wide = context.measureText(text).width + 6;
  context.fillStyle = chartColour("surface");
  context.fillRect(x + GRIP_PX + 2, y - 8, wide, 16);
  context.fillStyle = chartColour("text");
  context.textAlign = "left";
  context.fillText(text, x + GRIP_PX + 5, y);
}
