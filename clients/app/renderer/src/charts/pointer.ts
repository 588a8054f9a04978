/** Wheel, drag and keys over a plot: they change the range and the crosshair of its group. */

import type { ChartGroup } from "./chart-group";
import { keyAction, moved, zoomed } from "./range";

/** Pixels that a pointer may move while it clicks. */
const CLICK_SLOP = 4;
const ZOOM_PER_PIXEL = 0.0015;

/** A plot that a pointer works on, with the functions that are told of clicks and moves. */
export interface Pointed {
  /** The element over the plot's area. */
  readonly area: HTMLElement;
  readonly group: ChartGroup;
  /** Called with a click, in pixels of the area. */
  onClick?(x: number, y: number): void;
  /** Called with every move of the pointer, in pixels of the area; returns the cursor to show. */
  onHover?(x: number, y: number): "pointer" | "crosshair";
}

/** Has the pointer and the wheel move and zoom a plot; returns what ends that. Shift and a drag zoom to a range. */
export function followPointer(plot: Pointed): () => void {
  const { area, group } = plot;
  const band = document.createElement("div");
  band.className = "chart-band";
  band.hidden = true;
  const line = document.createElement("div");
  line.className = "chart-cursor";
  area.append(band, line);
  let drag: { x: number; y: number; range: typeof group.range; isBand: boolean; isClick: boolean } | undefined;

  const at = (event: MouseEvent): { x: number; y: number; width: number } => {
    const box = area.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top, width: Math.max(1, box.width) };
  };
  const placeAt = (x: number, width: number, range = group.range): number =>
    range.from + (x / width) * (range.to - range.from);

  function wheel(event: WheelEvent): void {
    const { x, width } = at(event);
    const isSideways = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
    const delta = (isSideways ? event.deltaX || event.deltaY : event.deltaY) * (event.deltaMode === 1 ? 16 : 1);
    // Where all is in view already, the page scrolls.
    if (group.isWhole && (isSideways || delta > 0)) return;
    event.preventDefault();
    if (isSideways) group.show(moved(group.range, delta / width, group.bounds));
    else {
      const factor = Math.exp(Math.max(-200, Math.min(200, delta)) * ZOOM_PER_PIXEL);
      group.show(zoomed(group.range, factor, placeAt(x, width), group.bounds, group.least));
    }
  }
  function down(event: PointerEvent): void {
    if (event.button !== 0) return;
    const { x, y } = at(event);
    drag = { x, y, range: group.range, isBand: event.shiftKey, isClick: true };
    area.setPointerCapture(event.pointerId);
  }
  function move(event: PointerEvent): void {
    const { x, y, width } = at(event);
    if (drag === undefined) {
      group.point(placeAt(x, width));
      area.style.cursor = plot.onHover?.(x, y) ?? "crosshair";
      return;
    }
    if (Math.hypot(x - drag.x, y - drag.y) > CLICK_SLOP) drag.isClick = false;
    if (drag.isClick) return;
    if (drag.isBand) {
      band.hidden = false;
      band.style.left = `${Math.max(0, Math.min(x, drag.x))}px`;
      band.style.width = `${Math.min(width, Math.abs(x - drag.x))}px`;
      return;
    }
    area.style.cursor = "grabbing";
    const by = (drag.x - x) / width;
    group.show(moved(drag.range, by, group.bounds));
  }
  function up(event: PointerEvent): void {
    const { x, y, width } = at(event);
    const was = drag;
    drag = undefined;
    band.hidden = true;
    area.style.cursor = "";
    if (was?.isClick === true) plot.onClick?.(x, y);
    else if (was?.isBand === true) {
      const [one, other] = [placeAt(was.x, width), placeAt(Math.max(0, Math.min(width, x)), width)];
      const range = { from: Math.min(one, other), to: Math.max(one, other) };
      const span = Math.max(group.least, range.to - range.from);
      group.show({ from: range.from, to: range.from + span });
    }
  }
  function cancel(): void {
    drag = undefined;
    band.hidden = true;
    area.style.cursor = "";
  }
  function leave(): void {
    if (drag === undefined) group.point(null);
  }
  function placeLine(): void {
    const { cursor, range } = group;
    line.hidden = cursor === null || cursor < range.from || cursor > range.to;
    if (cursor === null || line.hidden) return;
    line.style.left = `${(100 * (cursor - range.from)) / (range.to - range.from)}%`;
  }
  placeLine();
  const ends = [group.onCursor(placeLine), group.onRange(placeLine)];
  const listeners = [
    ["wheel", wheel as EventListener],
    ["pointerdown", down as EventListener],
    ["pointermove", move as EventListener],
    ["pointerup", up as EventListener],
    ["pointercancel", cancel],
    ["pointerleave", leave],
    ["dblclick", () => group.show(group.bounds)],
  ] as const;
  for (const [type, listener] of listeners) area.addEventListener(type, listener, { passive: false });
  return () => {
    for (const [type, listener] of listeners) area.removeEventListener(type, listener);
    for (const end of ends) end();
    band.remove();
    line.remove();
  };
}

/**
 * Does what a key means for a chart, and returns whether it means anything.
 *
 * `step` returns the place of the value that is `steps` from a place, or the first or last one.
 */
export function followKey(
  event: KeyboardEvent,
  group: ChartGroup,
  step: (place: number, steps: number) => number,
): boolean {
  if (event.ctrlKey || event.altKey || event.metaKey) return false;
  if (event.key === "Escape" && group.cursor !== null) {
    group.point(null);
    return true;
  }
  const action = keyAction(event.key, event.shiftKey, group.range, group.bounds, group.least);
  if (action === undefined) return false;
  event.preventDefault();
  if (action.kind === "range") {
    group.show(action.range);
    return true;
  }
  const { from, to } = group.range;
  const all = Number.POSITIVE_INFINITY;
  const place =
    action.kind === "end"
      ? step(group.cursor ?? from, action.side === "first" ? -all : all)
      : step(group.cursor ?? (from + to) / 2, action.steps);
  group.point(place);
  if (place < from || place > to) {
    const half = (to - from) / 2;
    group.show({ from: place - half, to: place + half });
  }
  return true;
}
