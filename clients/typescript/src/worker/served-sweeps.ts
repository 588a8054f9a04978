/** The sweeps of a served client: what a program in another thread or process is told of them. */

import type { Client } from "../client.js";
import { OF_SWEEPS, type OfSweep } from "./messages.js";

/** Calls a method of a sweep's handle; a run travels as the id of its backtest. */
export async function ofSweep(
  client: Client,
  sweepId: string,
  method: OfSweep,
  args: readonly unknown[],
): Promise<unknown> {
  if (!OF_SWEEPS.includes(method)) throw new TypeError(`a sweep has no method ${String(method)}`);
  const sweep = await client.findSweep(sweepId);
  if (method === "run") {
    const [row, options] = args as [number | bigint, object?];
    const run = await sweep.run(row, { ...options, watch: [] });
    return { backtestId: run.id };
  }
  const call = sweep[method] as (...args: unknown[]) => Promise<unknown>;
  return call.apply(sweep, [...args]);
}
