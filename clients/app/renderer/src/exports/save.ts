/** Gives the user files of what is shown. */

import type { Table } from "@backtestr/client/page";
import type { Host } from "../host/host";
import { tableCsv } from "./csv";

/** Returns a name of a file without characters that a file system refuses. */
export function fileName(...parts: readonly string[]): string {
  const safe = parts.map((one) => one.replaceAll(/[^\w.@-]+/g, "_").replace(/^\.+/, "")).filter((one) => one !== "");
  return safe.join("-").slice(0, 120);
}

/** Saves a table as CSV: all rows, or those of `rows` in their order. */
export function saveCsv(host: Host, name: string, table: Table, rows?: ArrayLike<number>): Promise<void> {
  return host.save(`${name}.csv`, new Blob([tableCsv(table, rows)], { type: "text/csv" }));
}

/** Saves a whole table as the Arrow IPC stream that the broker sent (`polars.read_ipc_stream`, `pyarrow.ipc.open_stream`). */
export function saveArrow(host: Host, name: string, table: Table): Promise<void> {
  const bytes = new Uint8Array(table.ipc);
  return host.save(`${name}.arrows`, new Blob([bytes], { type: "application/vnd.apache.arrow.stream" }));
}

/** Saves what a chart shows as PNG, on the colour of its surface and below its title. */
export async function savePng(host: Host, name: string, canvas: HTMLCanvasElement, title: string): Promise<void> {
  const ratio = window.devicePixelRatio;
  const top = Math.round(28 * ratio);
  const picture = document.createElement("canvas");
  picture.width = canvas.width;
  picture.height = canvas.height + top;
  const context = picture.getContext("2d");
  if (context === null) throw new Error("this browser draws no picture of this size; make the window smaller");
  const style = getComputedStyle(document.documentElement);
  context.fillStyle = getComputedStyle(document.body).backgroundColor;
  context.fillRect(0, 0, picture.width, picture.height);
  context.fillStyle = style.color;
  context.font = `600 ${Math.round(13 * ratio)}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  context.fillText(title, Math.round(8 * ratio), top / 2);
  context.drawImage(canvas, 0, top);
  const blob = await new Promise<Blob | null>((resolve) => picture.toBlob(resolve, "image/png"));
  if (blob === null) throw new Error("this browser made no picture of the chart; make the window smaller");
  await host.save(`${name}.png`, blob);
}
