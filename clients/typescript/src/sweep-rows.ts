/** The rows of a sweep as one table, read in pages. */

import { checkOptions } from "./arguments.js";
import type { Context } from "./context.js";
import { SerializationError } from "./core/errors.js";
import type { SweepResults } from "./generated/contracts.js";
import type { RowsOptions } from "./options.js";
import { decodeTogether, type Table } from "./tables/index.js";

/** As many rows as the broker gives at once. */
const MAX_ROWS = 50_000;
const OPTIONS = ["where", "sort", "descending", "limit", "columns", "timeoutMs"];

/** Returns the rows that are wanted; each page of them is answered within `seconds`. */
export async function fetchRows(
  context: Context,
  sweepId: string,
  options: RowsOptions,
  seconds: number,
): Promise<Table> {
  checkOptions(options, OPTIONS, "results");
  const { where, sort, descending, columns, limit: wanted = Number.POSITIVE_INFINITY } = options;
  const pages: Uint8Array[] = [];
  let behind = where;
  for (let taken = 0; ; ) {
    const limit = Math.min(MAX_ROWS, wanted - taken);
    const request = {
      sweepId,
      where: behind,
      sort,
      descending,
      columns,
      offset: sort === undefined ? 0 : taken,
      limit,
    };
    // Attached, and not in files: streams of Arrow can be joined.
    const [answer, attachments] = await context.ask("GetSweepResults", request, seconds);
    const [page, rows] = pageOf(answer, attachments);
    pages.push(page);
    taken += rows;
    const left = answer.matching - (sort === undefined ? rows : taken); // of those behind `behind`, or of all
    if (rows === 0 || left <= 0 || taken >= wanted) return checked(decodeTogether(pages), taken);
    if (sort === undefined) behind = after(page, where);
  }
}

/** Returns the filter of the next page, which begins behind the last cell of this one: a running sweep may add others before. */
function after(page: Uint8Array, where: string | undefined): string {
  const last = decodeTogether([page]).columns.cell?.at(-1);
  return where === undefined ? `cell > ${last}` : `(${where}) and cell > ${last}`;
}

function pageOf({ tables }: SweepResults, attachments: readonly Uint8Array[]): [page: Uint8Array, rows: number] {
  const [ref, other] = tables;
  if (ref === undefined || other !== undefined) {
    throw new SerializationError(`the rows of a sweep are one table; ${tables.length} came`);
  }
  const page = ref.frame === undefined ? undefined : attachments[ref.frame];
  if (page !== undefined) return [page, ref.rows];
  throw new SerializationError(`table ${ref.name} is in attachment ${ref.frame}; ${attachments.length} came`);
}

function checked(table: Table, rows: number): Table {
  if (table.rows === rows) return table;
  throw new SerializationError(`the rows of a sweep are ${table.rows}; ${rows} were announced`);
}
