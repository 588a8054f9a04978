/**
 * Tables as those of the package apache-arrow, which is an optional peer: `npm install apache-arrow`.
 *
 * @module
 */

import { type Table as ArrowTable, tableFromIPC } from "apache-arrow";
import type { Table } from "./tables/table.js";

/**
 * Returns a table of apache-arrow with the same columns. Values stay where they are.
 *
 * Times are there what Arrow makes of them: microseconds in a column of bigints.
 */
export function toArrow(table: Table): ArrowTable {
  return tableFromIPC(table.ipc);
}
