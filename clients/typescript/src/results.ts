/** Results of a backtest, and the tables of answers: mapped from files of this machine, or made of attachments. */

import { BULK_SECONDS, type Context } from "./context.js";
import { SerializationError } from "./core/errors.js";
import type { BacktestResults, Evaluation, MarketData, Metrics, Requests, TableRef } from "./generated/contracts.js";
import { decodeTable, type Table } from "./tables/index.js";

export type { Table } from "./tables/index.js";

/** A table of a backtest's results. */
export type TableName = "equity" | "trades" | "orders" | "positions";

/** All tables of a backtest's results. */
export const ALL_TABLES: readonly TableName[] = ["equity", "trades", "orders", "positions"];

/**
 * The results of one backtest: its configuration (every option with its value), metrics and tables.
 *
 * `metrics` is null, and there are no tables, until the backtest has ended; a stopped one has those of the bars that were
 * simulated.
 */
export class Results {
  readonly backtestId: string;
  readonly status: BacktestResults["status"];
  readonly config: { readonly [name: string]: unknown };
  readonly metrics: Metrics | null;
  /** The tables by name. */
  readonly tables: { readonly [name: string]: Table };
  /** The number of bars before the first one that the algorithm saw; of several symbols, the fewest. */
  readonly warmupBars: number;
  /** The group of trials that the backtest counts in: see `Client.trials`. Null for results of earlier versions. */
  readonly trialGroup: string | null;

  /** Called by the client: see `Client.results` and `Run.result`. */
  constructor(answer: BacktestResults, tables: { readonly [name: string]: Table }) {
    this.backtestId = answer.backtestId;
    this.status = answer.status;
    this.config = answer.config;
    this.metrics = answer.metrics ?? null;
    this.tables = tables;
    this.warmupBars = answer.warmupBars ?? 0;
    this.trialGroup = answer.trialGroup ?? null;
  }

  /** The sentences that a reader of the figures must know, such as that orders were rejected, and why. */
  get warnings(): readonly string[] {
    return this.metrics?.warnings ?? [];
  }

  /** The table `timestamp equity drawdown returns …`, a row per bar. */
  get equity(): Table {
    return this.#table("equity");
  }

  /** The table of trades, a row per trade. */
  get trades(): Table {
    return this.#table("trades");
  }

  /** The table of orders, a row per order. */
  get orders(): Table {
    return this.#table("orders");
  }

  /** The table of positions, a row per change. */
  get positions(): Table {
    return this.#table("positions");
  }

  #table(name: TableName): Table {
    const table = this.tables[name];
    if (table !== undefined) return table;
    const asked = Object.keys(this.tables).join(", ");
    const there = asked === "" ? "" : `; asked for were ${asked}`;
    throw new RangeError(`there is no table ${name} here: the backtest is ${this.status}${there}`);
  }
}

/**
 * Asks for the results of a backtest with these tables. If it is being computed, the answer waits for its end up to
 * `waiting` seconds. Raises `NotFound`.
 */
export async function fetchResults(
  context: Context,
  backtestId: string,
  tables: readonly TableName[] = ALL_TABLES,
  seconds = BULK_SECONDS,
  waiting = 0,
): Promise<Results> {
  const request = { backtestId, tables: [...tables], waitMs: Math.round(1000 * waiting) };
  const [answer, found] = await fetchTables(context, "GetBacktestResults", request, seconds);
  return new Results(answer, found);
}

type WithTables = "GetBacktestResults" | "GetMarketData" | "EvaluateAlgorithm";
type AnswerWithTables = BacktestResults | MarketData | Evaluation;

/**
 * Sends a request, and returns its answer with the tables by name.
 *
 * Where the broker is on this machine, large tables are mapped. If one of their files cannot be used, as when the result
 * was deleted meanwhile, the request is sent once more, and the tables are received. Raises `SerializationError` for a
 * table that is missing or differs from its description.
 */
export async function fetchTables<Type extends WithTables>(
  context: Context,
  requestType: Type,
  data: Requests[Type]["data"],
  seconds: number,
): Promise<readonly [Requests[Type]["answer"], { readonly [name: string]: Table }]> {
  if (context.driver.tables !== null) {
    const [answer, attachments] = await context.ask(requestType, { ...data, mapped: true }, seconds);
    const tables = await readTables(context, (answer as AnswerWithTables).tables, attachments);
    if (tables !== null) return [answer, tables];
  }
  const [answer, attachments] = await context.ask(requestType, data, seconds);
  const tables = await readTables(context, (answer as AnswerWithTables).tables, attachments);
  if (tables === null) throw new SerializationError("a table is in a file, which was not asked for");
  return [answer, tables];
}

/** Returns the tables that `refs` name, or null if one of their files cannot be used. */
async function readTables(
  context: Context,
  refs: readonly TableRef[],
  attachments: readonly Uint8Array[],
): Promise<{ readonly [name: string]: Table } | null> {
  // Together: each file is read by a thread of the platform.
  const all = await Promise.all(refs.map((ref) => bytesOf(context, ref, attachments)));
  const tables: [string, Table][] = [];
  for (const [index, ref] of refs.entries()) {
    const bytes = all[index];
    if (bytes === null || bytes === undefined) return null;
    const table = decoded(ref, bytes);
    if (table.rows !== ref.rows) {
      throw new SerializationError(`table ${ref.name} has ${table.rows} rows; ${ref.rows} were announced`);
    }
    tables.push([ref.name, table]);
  }
  return Object.fromEntries(tables);
}

async function bytesOf(
  context: Context,
  ref: TableRef,
  attachments: readonly Uint8Array[],
): Promise<Uint8Array | null> {
  if (ref.file !== undefined) return (await context.driver.tables?.read(ref.file)) ?? null;
  const bytes = ref.frame === undefined ? undefined : attachments[ref.frame];
  if (bytes === undefined) {
    throw new SerializationError(`table ${ref.name} is in attachment ${ref.frame}; ${attachments.length} came`);
  }
  return bytes;
}

function decoded(ref: TableRef, bytes: Uint8Array): Table {
  try {
    return decodeTable(bytes);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new SerializationError(`table ${ref.name} is no Arrow IPC: ${reason}`, null, { cause: error });
  }
}
