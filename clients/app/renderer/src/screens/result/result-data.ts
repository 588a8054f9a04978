/** Prepares a result for the screens: its configuration, its fills joined to its trades, its columns. Pure. */

import type { Metrics, Table, TextColumn } from "@backtestr/client/page";
import type { FillColumns } from "../../charts/fill-columns";

/** The parts of a configuration that the screens read; all of it is shown as it is. */
export interface RunConfig {
  readonly algorithm: string;
  readonly algorithmId: string;
  readonly symbols: readonly string[];
  readonly timeframe: string;
  readonly initialCapital: number;
  readonly startDate: string | undefined;
  readonly endDate: string | undefined;
  readonly price: "ask" | "bid" | "last" | "mid" | undefined;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly options: Readonly<Record<string, unknown>>;
  readonly pace: number | undefined;
  /** Whether the backtest publishes its prices. */
  readonly hasPrices: boolean;
}

/** Reads a configuration as results have it. */
export function configOf(config: Readonly<Record<string, unknown>>): RunConfig {
  const text = (name: string): string | undefined =>
    typeof config[name] === "string" && config[name] !== "" ? (config[name] as string) : undefined;
  const map = (value: unknown): Readonly<Record<string, unknown>> =>
    typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
  const algorithmId = text("algorithmId") ?? "";
  const options = map(config.options);
  const symbols = Array.isArray(config.symbols) ? config.symbols.filter((one) => typeof one === "string") : [];
  return {
    algorithmId,
    algorithm: algorithmId.split("@")[0] ?? algorithmId,
    symbols: symbols.length > 0 ? symbols : [text("symbol") ?? ""],
    timeframe: text("timeframe") ?? "",
    initialCapital: typeof config.initialCapital === "number" ? config.initialCapital : Number.NaN,
    startDate: text("startDate"),
    endDate: text("endDate"),
    price: text("price") as RunConfig["price"],
    parameters: map(config.parameters),
    options,
    pace: typeof options.pace === "number" ? options.pace : undefined,
    hasPrices: map(options.streams).prices === true,
  };
}

/** Returns a name of a backtest for people, such as `sma_cross on BTC 1m`. */
export function titleOf(config: RunConfig): string {
  const [first, ...others] = config.symbols;
  const more = others.length > 0 ? ` and ${others.length} more` : "";
  return `${config.algorithm} on ${first}${more} ${config.timeframe}`;
}

/** Returns a column of numbers of a table, which has it. */
export function numbers(table: Table, name: string): Float64Array {
  const column = table.columns[name];
  if (column instanceof Float64Array) return column;
  throw new RangeError(`the table has no numbers ${name}; it has ${table.names.join(", ")}`);
}

/** Returns a column of texts of a table; undefined where the table has none of that name. */
export function texts(table: Table, name: string): TextColumn | undefined {
  const column = table.columns[name];
  return column === undefined || ArrayBuffer.isView(column) ? undefined : column;
}

/** The codes of the first letters of what is told apart by them. */
const [FILLED, BUY] = ["filled".charCodeAt(0), "buy".charCodeAt(0)];

function firstByte(column: TextColumn, row: number): number {
  return column.bytes[column.offsets[row] as number] as number;
}

/**
 * Returns the fills of `symbol`, each with the trades that it opened and closed.
 *
 * An order changes the position whose id it has; a trade is closed by its `exit_order_id`.
 */
export function fillsOf(orders: Table, trades: Table, symbol: string): FillColumns {
  const [status, sides, symbols] = [texts(orders, "status"), texts(orders, "side"), texts(orders, "symbol")];
  const [prices, quantities, times] = [
    numbers(orders, "fill_price"),
    numbers(orders, "fill_quantity"),
    numbers(orders, "timestamp"),
  ];
  const rows: number[] = [];
  for (let row = 0; row < orders.rows; row += 1) {
    const isFilled = status !== undefined && firstByte(status, row) === FILLED && !Number.isNaN(prices[row]);
    if (isFilled && (symbols === undefined || symbols.at(row) === symbol)) rows.push(row);
  }
  // Orders stand in the order in which they ended, and so do their times, but for a tie of several symbols.
  rows.sort((one, other) => (times[one] as number) - (times[other] as number));
  const [opened, closed] = [byText(texts(trades, "position_id")), byText(texts(trades, "exit_order_id"))];
  const [positions, ids] = [texts(orders, "position_id"), texts(orders, "order_id")];
  const trade = (found: Map<string, number>, column: TextColumn | undefined, row: number): number =>
    found.get(column?.at(row) ?? "") ?? -1;
  const closes = Int32Array.from(rows, (row) => trade(closed, ids, row));
  return {
    times: Float64Array.from(rows, (row) => times[row] as number),
    prices: Float64Array.from(rows, (row) => prices[row] as number),
    sides: Int8Array.from(rows, (row) => (sides !== undefined && firstByte(sides, row) === BUY ? 1 : -1)),
    quantities: Float64Array.from(rows, (row) => quantities[row] as number),
    // An order that closes a position has that position's id, and opens none.
    opens: Int32Array.from(rows, (row, index) => {
      const own = trade(opened, positions, row);
      return own === closes[index] ? -1 : own;
    }),
    closes,
  };
}

function byText(column: TextColumn | undefined): Map<string, number> {
  const found = new Map<string, number>();
  for (let row = 0; row < (column?.length ?? 0); row += 1) {
    const text = column?.at(row);
    if (text !== null && text !== undefined) found.set(text, row);
  }
  return found;
}

/** Returns the returns of closed trades, as fractions. */
export function closedReturns(trades: Table): Float64Array {
  const status = texts(trades, "status");
  const returns = numbers(trades, "return");
  return returns.filter((_, row) => status?.at(row) !== "open");
}

/** A sentence that a reader of the figures must know. */
export interface Verdict {
  readonly kind: "warning" | "note";
  readonly text: string;
}

/** Returns what a reader must know of a result: its warnings, rejected orders, early end and warm-up. */
export function verdictsOf(
  metrics: Metrics | null,
  status: string,
  warmupBars: number,
  trades: number | undefined,
): readonly Verdict[] {
  const found: Verdict[] = (metrics?.warnings ?? []).map((text) => ({ kind: "warning", text }));
  if (status === "stopped") {
    found.push({ kind: "warning", text: "The backtest was stopped early: all figures are of the bars until then." });
  }
  const rejected = Object.entries(metrics?.rejectedOrders ?? {}).filter(([, count]) => count > 0);
  for (const [reason, count] of rejected) {
    const text = `${count} ${count === 1 ? "order was" : "orders were"} rejected: ${reason}.`;
    if (!found.some((one) => one.text.includes(reason))) found.push({ kind: "warning", text });
  }
  if (trades === 0) {
    found.push({ kind: "warning", text: "The algorithm made no trade, so the account never changed." });
  }
  if (warmupBars > 0) {
    found.push({
      kind: "note",
      text: `The algorithm saw ${warmupBars} bars before the start to warm up; they count in no figure.`,
    });
  }
  const of = metrics?.annualisation;
  if (of) {
    found.push({
      kind: "note",
      text: `Figures per year take ${of.barsPerYear.toLocaleString("en-US")} bars a year (calendar ${of.calendar}: ${of.reason}) and a risk-free rate of ${(100 * of.riskFree).toLocaleString("en-US")} %.`,
    });
  }
  return found;
}
