/** A canvas that fills its parent, and is drawn anew when its picture, its size or the theme has changed. */

import { createEffect, type JSX, on, onCleanup, onMount } from "solid-js";
import { onColours } from "../design/theme";
import { Coalesced } from "./frame";
import "./chart.css";

/** Draws a picture of a width and a height. */
export type Draw = (context: CanvasRenderingContext2D, width: number, height: number) => void;

export interface CanvasProps {
  /** Draws everything on an empty canvas, in pixels of CSS. Another function is another picture. */
  readonly draw: Draw;
}

/** The font of texts on a canvas, as that of small words on the page. */
export function canvasFont(element: Element): string {
  const { fontFamily } = getComputedStyle(element);
  const size = 0.75 * Number.parseFloat(getComputedStyle(document.documentElement).fontSize || "16");
  return `${size}px ${fontFamily}`;
}

export function Canvas(props: CanvasProps): JSX.Element {
  let canvas: HTMLCanvasElement | undefined;
  const drawing = new Coalesced(draw);

  function draw(): void {
    const context = canvas?.getContext("2d");
    if (canvas === undefined || context === null || context === undefined) return;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (width === 0 || height === 0) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.font = canvasFont(canvas);
    props.draw(context, width, height);
  }
  createEffect(
    on(
      () => props.draw,
      () => drawing.request(),
    ),
  );
  onMount(() => {
    const watch = new ResizeObserver(() => drawing.request());
    if (canvas !== undefined) watch.observe(canvas);
    const end = onColours(() => drawing.request());
    onCleanup(() => {
      watch.disconnect();
      end();
      drawing.cancel();
    });
  });
  return <canvas ref={canvas} class="chart-plot" />;
}
