/** Bars and ticks of answers as tables; ticks in pages, since there may be many. */

import type { Context } from "./context.js";
import { DataError } from "./core/errors.js";
import type { GetMarketData } from "./generated/contracts.js";
import type { MarketDataOptions } from "./options.js";
import { range, tableOf } from "./request-fields.js";
import { fetchTables } from "./results.js";
import type { Table } from "./tables/index.js";

const TICK = "tick";
// As many ticks as the broker gives at once.
const MAX_TICKS = 1_000_000;

/** Returns bars, or up to 1,000,000 ticks, as one table. */
export async function fetchMarketData(
  context: Context,
  symbol: string,
  timeframe: string,
  options: MarketDataOptions,
  seconds: number,
): Promise<Table> {
  const { limit, keep, price, indicators } = options;
  const request = {
    symbol,
    timeframe,
    ...range(options),
    limit,
    keep,
    price,
    indicators: indicators?.map((one) => (typeof one === "string" ? { name: one } : one)),
  };
  const [, tables] = await fetchTables(context, "GetMarketData", request, seconds);
  return tableOf(tables, timeframe === TICK ? "ticks" : "bars");
}

/**
 * Gives the ticks of a range as tables of up to 1,000,000, the earliest first. Raises `DataError` when they are stored anew
 * meanwhile: the pages would not fit together.
 */
export async function* tickPages(
  context: Context,
  symbol: string,
  options: Pick<MarketDataOptions, "start" | "end">,
  seconds: number,
): AsyncGenerator<Table, void, undefined> {
  const request: GetMarketData = { symbol, timeframe: TICK, ...range(options), keep: "first", limit: MAX_TICKS };
  let skip = 0;
  let version: string | undefined;
  for (;;) {
    const [answer, tables] = await fetchTables(context, "GetMarketData", { ...request, skip }, seconds);
    if (version !== undefined && answer.version !== version) {
      throw new DataError(`the ticks of ${symbol} were stored anew while they were read; read them again`, { symbol });
    }
    const table = tableOf(tables, "ticks");
    yield table;
    if (!answer.rest) return;
    version = answer.version;
    skip += table.rows;
  }
}
