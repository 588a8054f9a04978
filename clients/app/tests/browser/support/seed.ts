/** Series and backtests that screens are looked at with. */

import type { Client } from "@backtestr/client";
import { realFile } from "./data";

export interface Series {
  readonly symbol: string;
  readonly timeframe: string;
}

/** A real series where its file is there, else the one that every broker has. */
export async function goodSeries(client: Client): Promise<Series> {
  const file = realFile("btc_perp_1m_2022-01.csv");
  if (file === undefined) return { symbol: "SYNTH", timeframe: "1m" };
  const there = (await client.listMarketData()).some((one) => one.symbol === "BTCPERP" && one.timeframe === "1m");
  if (!there) await client.importMarketData(file, { symbol: "BTCPERP" });
  return { symbol: "BTCPERP", timeframe: "1m" };
}

/** Runs a backtest to its end, and returns its id. */
export async function endedBacktest(
  client: Client,
  series: Series,
  options: { readonly algorithm?: string; readonly parameters?: { readonly [name: string]: unknown } } = {},
): Promise<string> {
  const run = await client.backtest({
    algorithm: options.algorithm ?? "sma_cross",
    ...series,
    parameters: options.parameters ?? { fast: 60, slow: 240 },
    commission: 0.0004,
    slippage: 0.0001,
  });
  await run.wait();
  return run.id;
}

/** Starts a backtest that simulates so many bars a second, and returns its id. */
export async function pacedBacktest(client: Client, series: Series, pace: number): Promise<string> {
  const run = await client.backtest({
    algorithm: "sma_cross",
    ...series,
    parameters: { fast: 10, slow: 30 },
    commission: 0.0004,
    options: { pace, streams: { prices: true, columns: true } },
  });
  return run.id;
}
