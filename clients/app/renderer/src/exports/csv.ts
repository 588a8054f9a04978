/** Tables as CSV (RFC 4180), with times in ISO 8601. Pure. */

import type { Table } from "@backtestr/client/page";

const NEEDS_QUOTES = /[",\r\n]/;
/** Matches a text that a spreadsheet would run as a formula. */
const FORMULA = /^[=+\-@\t\r]/;

/** Returns a cell. A text that a spreadsheet would take for a formula gets a leading apostrophe. */
export function csvCell(value: string | number | null | undefined): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return Number.isNaN(value) ? "" : String(value);
  const safe = FORMULA.test(value) ? `'${value}` : value;
  return NEEDS_QUOTES.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Returns rows of cells as text, each row with its end. */
export function csvText(rows: Iterable<readonly (string | number | null | undefined)[]>): string {
  const lines: string[] = [];
  for (const row of rows) lines.push(row.map(csvCell).join(","));
  return lines.map((line) => `${line}\r\n`).join("");
}

/** Returns a table as CSV: all rows, or those of `rows` in their order. Nulls are empty. */
export function tableCsv(table: Table, rows?: ArrayLike<number>): string {
  const count = rows?.length ?? table.rows;
  const columns = table.names.map((name) => reader(table, name));
  const lines = (function* (): Generator<readonly (string | number | null | undefined)[]> {
    yield table.names;
    for (let place = 0; place < count; place += 1) {
      const row = rows === undefined ? place : (rows[place] as number);
      yield columns.map((read) => read(row));
    }
  })();
  return csvText(lines);
}

function reader(table: Table, name: string): (row: number) => string | number | null | undefined {
  const column = table.columns[name];
  const nulls = table.nulls[name];
  if (column === undefined) return () => null;
  if (!ArrayBuffer.isView(column)) return (row) => column.at(row);
  const isTime = table.types[name]?.startsWith("timestamp") === true;
  return (row) => {
    if (nulls?.[row] === 1) return null;
    const value = column[row];
    if (typeof value === "bigint") return value.toString();
    if (value === undefined || !isTime) return value;
    return Number.isNaN(value) ? null : new Date(value).toISOString();
  };
}
