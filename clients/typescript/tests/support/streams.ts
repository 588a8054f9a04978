/** A client of a broker in this thread, and the prices that it publishes. */

import type { Client } from "../../src/exports.js";
import { FakeBroker } from "./fake-broker.js";

export async function opened(
  handlers: ConstructorParameters<typeof FakeBroker>[0] = {},
): Promise<[FakeBroker, Client]> {
  const broker = new FakeBroker(handlers);
  return [broker, await broker.client()];
}

export function price(n: number, symbol = "S"): object {
  return { symbol, timestamp: n, bid: n + 0.25, ask: n + 0.5, last: n, volume: 1, timeframe: "1m" };
}

export function columns(first: number, count: number): { readonly count: number } {
  const floats = (at: number): object => ({
    dtype: "<f8",
    data: new Uint8Array(Float64Array.from({ length: count }, (_, index) => first + index + at).buffer),
  });
  const timestamp = {
    dtype: "<i8",
    data: new Uint8Array(BigInt64Array.from({ length: count }, (_, index) => BigInt(first + index)).buffer),
  };
  const data = {
    symbol: "S",
    timeframe: "1m",
    timestamp,
    bid: floats(0),
    ask: floats(1),
    last: floats(2),
    volume: floats(3),
  };
  return { count, compression: "none", rawBytes: 40 * count, type: "PriceUpdate", columns: data } as { count: number };
}
