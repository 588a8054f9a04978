/** A heat map of a grid of fields: each has the colour of its value, or says that it has none. */

import { createMemo, createSignal, createUniqueId, type JSX, onCleanup, Show } from "solid-js";
import { Definition } from "../components/definition";
import { Canvas, type Draw } from "./canvas";
import { colourOfStep, SCALE, stepOf } from "./colour-scale";
import { chartColour } from "./colours";
import { type FieldLayout, fieldAt, layoutOf, rectOf } from "./field-layout";
import { RampLegend } from "./ramp-legend";
import { shareOf, type ValueDomain } from "./value-domain";

/** One side of a map: its name, and the words of each field. */
export interface FieldSide {
  readonly name: string;
  readonly fields: number;
  text(field: number): string;
}

export interface FieldMapProps {
  readonly title: string;
  readonly definition: JSX.Element;
  readonly x: FieldSide;
  readonly y: FieldSide;
  /** The value of a field, from left to right and from below: NaN for none, undefined where nothing was run. */
  readonly valueAt: (field: number) => number | undefined;
  readonly domain: ValueDomain | undefined;
  readonly format: (value: number) => string;
  /** Returns a field in words. */
  readonly words: (field: number) => string;
  /** The field that is marked. */
  readonly marked: number | undefined;
  onChoose(field: number): void;
  onOpen(field: number): void;
  readonly summary: string;
  /** Stands in the header, such as the choice of the sides. */
  readonly controls?: JSX.Element | undefined;
  readonly note?: string | undefined;
  readonly testId: string;
}

const HATCH_PX = 6;
/** Pixels from which fields have gaps, and from which they have their values as text. */
const GAP_FROM_PX = 6;
const TEXT_FROM_PX = 52;

/** Shows the map. The pointer and the arrow keys say a field; Enter and a double click open it. */
export function FieldMap(props: FieldMapProps): JSX.Element {
  const id = createUniqueId();
  const [cursor, setCursor] = createSignal<number>();
  const [said, setSaid] = createSignal("");
  let layout: FieldLayout | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  onCleanup(() => clearTimeout(timer));

  const picture = createMemo((): Draw => {
    const { x, y, valueAt, domain, format, marked } = props;
    const at = cursor();
    return (context, width, height) => {
      layout = layoutOf(context, width, height, x, y);
      drawPlace(context, layout, x, y);
      drawFields(context, layout, valueAt, domain, format);
      if (marked !== undefined) outline(context, layout, marked, 2);
      if (at !== undefined) outline(context, layout, at, 1);
    };
  });
  function fieldUnder(event: MouseEvent): number | undefined {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    return layout === undefined ? undefined : fieldAt(layout, event.clientX - box.left, event.clientY - box.top);
  }
  function keyed(event: KeyboardEvent): void {
    const across = props.x.fields;
    const last = across * props.y.fields - 1;
    const from = Math.min(last, cursor() ?? props.marked ?? across * (props.y.fields - 1));
    const column = from % across;
    const next = {
      ArrowLeft: column > 0 ? from - 1 : from,
      ArrowRight: column + 1 < across ? from + 1 : from,
      ArrowUp: from + across <= last ? from + across : from,
      ArrowDown: from >= across ? from - across : from,
      Home: from - column,
      End: from - column + across - 1,
      PageUp: last - across + 1 + column,
      PageDown: column,
    }[event.key];
    if (next !== undefined) {
      setCursor(next);
      clearTimeout(timer);
      timer = setTimeout(() => setSaid(props.words(next)), 250);
    } else if (event.key === "Enter") props.onOpen(from);
    else if (event.key === " ") props.onChoose(from);
    else if (event.key === "Escape") setCursor(undefined);
    else return;
    event.preventDefault();
  }
  const read = (): number | undefined => cursor() ?? props.marked;
  return (
    <figure class="chart panel" data-testid={props.testId} aria-labelledby={`${id}-title`}>
      <div class="panel-header chart-header">
        <h2 id={`${id}-title`}>{props.title}</h2>
        <Definition term={props.title} mark>
          {props.definition}
        </Definition>
        {props.controls}
      </div>
      <div
        class="chart-body large field-map"
        role="application"
        aria-label={props.title}
        aria-describedby={`${id}-words`}
        tabindex={0}
        onKeyDown={keyed}
        onPointerMove={(event) => setCursor(fieldUnder(event))}
        onPointerLeave={() => setCursor(undefined)}
        onClick={(event) => {
          const field = fieldUnder(event);
          if (field !== undefined) props.onChoose(field);
        }}
        onDblClick={(event) => {
          const field = fieldUnder(event);
          if (field !== undefined) props.onOpen(field);
        }}
      >
        <Canvas draw={picture()} />
      </div>
      <figcaption class="chart-note small">
        <span class="field-readout" data-testid={`${props.testId}-readout`}>
          <Show when={read() !== undefined} fallback={<span class="muted">{props.note ?? props.summary}</span>}>
            {props.words(read() as number)}
          </Show>
        </span>
        <Show when={props.domain}>{(domain) => <RampLegend domain={domain()} text={props.format} />}</Show>
      </figcaption>
      <p id={`${id}-words`} class="visually-hidden">
        {props.summary} The arrow keys go from field to field, Space chooses one, Enter opens it as a backtest.
      </p>
      <p class="visually-hidden" role="status">
        {said()}
      </p>
    </figure>
  );
}

function drawPlace(context: CanvasRenderingContext2D, layout: FieldLayout, x: FieldSide, y: FieldSide): void {
  const { left, top, width, height } = layout;
  context.fillStyle = chartColour("grid");
  context.fillRect(left, top, width, height);
  context.fillStyle = chartColour("text-muted");
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const field of layout.rows) {
    const [, from, , size] = rectOf(layout, field * layout.across);
    context.fillText(y.text(field), left - 6, from + size / 2);
  }
  context.textAlign = "center";
  for (const field of layout.columns) {
    const [from, , size] = rectOf(layout, field);
    context.fillText(x.text(field), from + size / 2, top + height + 10);
  }
  context.fillStyle = chartColour("text");
  context.textAlign = "left";
  context.fillText(`${y.name} ↑`, 4, 8);
  context.textAlign = "right";
  context.fillText(`${x.name} →`, left + width, top + height + 26);
}

function drawFields(
  context: CanvasRenderingContext2D,
  layout: FieldLayout,
  valueAt: FieldMapProps["valueAt"],
  domain: ValueDomain | undefined,
  format: FieldMapProps["format"],
): void {
  const { across, up, left, top, width, height } = layout;
  if (Math.min(width / across, height / up) < GAP_FROM_PX) {
    context.imageSmoothingEnabled = false;
    context.drawImage(pixels(across, up, valueAt, domain), left, top, width, height);
    return;
  }
  const hatch = hatched(context);
  for (let field = 0; field < across * up; field += 1) {
    const value = valueAt(field);
    if (value === undefined) continue;
    const [x, y, wide, high] = rectOf(layout, field);
    const isNone = Number.isNaN(value) || domain === undefined;
    const step = isNone ? 0 : stepOf(shareOf(value, domain));
    context.fillStyle = isNone ? hatch : colourOfStep(step);
    context.fillRect(x, y, wide - 1, high - 1);
    if (isNone || wide < TEXT_FROM_PX || high < 18) continue;
    context.fillStyle = step > 140 ? "#000" : "#fff";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(format(value), x + wide / 2, y + high / 2);
  }
}

/** One pixel for each field: the canvas makes them larger. */
function pixels(
  across: number,
  up: number,
  valueAt: FieldMapProps["valueAt"],
  domain: ValueDomain | undefined,
): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = across;
  canvas.height = up;
  const context = canvas.getContext("2d");
  const image = new ImageData(across, up);
  const grey = (chartColour("text-faint").match(/\d+/g) ?? []).map(Number);
  for (let field = 0; field < across * up; field += 1) {
    const value = valueAt(field);
    if (value === undefined) continue;
    const isNone = Number.isNaN(value) || domain === undefined;
    const step = isNone ? 0 : 3 * stepOf(shareOf(value, domain));
    const at = 4 * ((up - 1 - Math.floor(field / across)) * across + (field % across));
    for (let part = 0; part < 3; part += 1)
      image.data[at + part] = (isNone ? grey[part] : SCALE[step + part]) as number;
    image.data[at + 3] = 255;
  }
  context?.putImageData(image, 0, 0);
  return canvas;
}

function hatched(context: CanvasRenderingContext2D): CanvasPattern | string {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = HATCH_PX;
  const own = canvas.getContext("2d");
  if (own === null) return chartColour("text-faint");
  own.fillStyle = chartColour("surface");
  own.fillRect(0, 0, HATCH_PX, HATCH_PX);
  own.strokeStyle = chartColour("text-faint");
  own.lineWidth = 1.25;
  for (const from of [-HATCH_PX, 0, HATCH_PX]) {
    own.moveTo(from, HATCH_PX);
    own.lineTo(from + HATCH_PX, 0);
  }
  own.stroke();
  return context.createPattern(canvas, "repeat") ?? chartColour("text-faint");
}

function outline(context: CanvasRenderingContext2D, layout: FieldLayout, field: number, width: number): void {
  const [x, y, wide, high] = rectOf(layout, field);
  // Both colours, since one of them can be seen on every field.
  for (const [name, off, line] of [
    ["surface", 1, width + 2],
    ["text", 1, width],
  ] as const) {
    context.strokeStyle = chartColour(name);
    context.lineWidth = line;
    context.strokeRect(x - off, y - off, Math.max(1, wide - 1) + 2 * off, Math.max(1, high - 1) + 2 * off);
  }
}
