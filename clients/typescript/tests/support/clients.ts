/** Clients of a test, closed with it. */

import { afterEach } from "vitest";
import type { Client } from "../../src/client.js";
import { type ConnectOptions, connect } from "../../src/node/connect.js";
import type { Broker } from "./broker.js";

const closers: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** Has something done after the test, the latest first. */
export function afterwards(close: () => unknown): void {
  closers.push(close);
}

/** Connects a client to a broker; it is closed after the test. */
export async function connected(broker: Broker, options: ConnectOptions = {}): Promise<Client> {
  const client = await connect({ connectionFile: broker.connectionFile, timeoutMs: 20_000, ...options });
  afterwards(() => client.close());
  return client;
}

/** Everything that an iteration gives. */
export async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = [];
  for await (const one of items) found.push(one);
  return found;
}
