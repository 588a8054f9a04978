/** A series as a file that the broker imports back unchanged. */

import { type Table, TextColumn } from "@backtestr/client/page";

/** Rows that are written in one go, before other work has its turn. */
const ROWS = 20_000;

/** Returns a table as CSV, with times in ISO 8601; in pieces, so that the page stays responsive. */
export async function csvOf(table: Table, progress: (share: number) => void = () => undefined): Promise<Blob> {
  const parts: string[] = [`${table.names.map(quoted).join(",")}\n`];
  const cells = table.names.map((name) => cellsOf(table, name));
  for (let from = 0; from < table.rows; from += ROWS) {
    const lines: string[] = [];
    const end = Math.min(table.rows, from + ROWS);
    for (let row = from; row < end; row += 1) lines.push(cells.map((cell) => cell(row)).join(","));
    parts.push(`${lines.join("\n")}\n`);
    progress(end / table.rows);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  return new Blob(parts, { type: "text/csv" });
}

/** Returns a table as an Arrow IPC stream, as the broker has sent it. */
export function arrowOf(table: Table): Blob {
  return new Blob([table.ipc.slice()], { type: "application/vnd.apache.arrow.stream" });
}

function cellsOf(table: Table, name: string): (row: number) => string {
  const values = table.columns[name];
  const nulls = table.nulls[name];
  if (values === undefined) return () => "";
  if (values instanceof TextColumn) return (row) => quoted(values.at(row) ?? "");
  if (table.types[name]?.startsWith("timestamp") === true) {
    return (row) => {
      const at = Number(values[row]);
      return Number.isFinite(at) ? isoTime(at) : "";
    };
  }
  return (row) => {
    const value = values[row];
    return nulls?.[row] === 1 || value === undefined || Number.isNaN(value) ? "" : String(value);
  };
}

/** Returns ISO 8601 with as many digits as the time has: milliseconds since 1970, with microseconds as their fraction. */
export function isoTime(ms: number): string {
  const whole = Math.floor(ms);
  const micros = Math.round((ms - whole) * 1000);
  const text = new Date(whole).toISOString();
  if (micros > 0) return text.replace("Z", `${String(micros).padStart(3, "0")}Z`);
  return whole % 1000 === 0 ? text.replace(".000Z", "Z") : text;
}

function quoted(text: string): string {
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
