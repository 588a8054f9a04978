/** Tables as the client decodes them, made of plain columns. */

import { type ColumnType, type ColumnValues, type Table, TextColumn } from "@backtestr/client/page";

/** Returns a table: texts in lists, numbers in typed arrays. `times` names the columns that are times. */
export function tableOf(
  columns: Readonly<Record<string, Float64Array | readonly (string | null)[]>>,
  times: readonly string[] = ["timestamp"],
): Table {
  const names = Object.keys(columns);
  const made: Record<string, ColumnValues> = {};
  const types: Record<string, ColumnType> = {};
  const nulls: Record<string, Uint8Array> = {};
  for (const [name, column] of Object.entries(columns)) {
    if (column instanceof Float64Array) {
      made[name] = column;
      types[name] = times.includes(name) ? "timestamp[us, UTC]" : "float64";
      continue;
    }
    const text = textColumn(column);
    made[name] = text;
    types[name] = "utf8";
    if (text.nulls !== undefined) nulls[name] = text.nulls;
  }
  const rows = names.length === 0 ? 0 : (made[names[0] as string] as { length: number }).length;
  return { rows, names, types, columns: made, nulls, ipc: new Uint8Array(0) };
}

function textColumn(values: readonly (string | null)[]): TextColumn {
  const parts = values.map((one) => new TextEncoder().encode(one ?? ""));
  const offsets = new Int32Array(values.length + 1);
  for (const [row, part] of parts.entries()) offsets[row + 1] = (offsets[row] as number) + part.length;
  const bytes = new Uint8Array(offsets.at(-1) ?? 0);
  for (const [row, part] of parts.entries()) bytes.set(part, offsets[row]);
  const nulls = Uint8Array.from(values, (one) => (one === null ? 1 : 0));
  return new TextColumn(bytes, offsets, nulls.includes(1) ? nulls : undefined);
}
