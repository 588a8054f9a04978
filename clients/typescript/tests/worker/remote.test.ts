/** A client served over a port: calls, streams by credit, columns that are handed over, errors and ends. */

import { MessageChannel } from "node:worker_threads";
import { afterAll, beforeAll, expect, it } from "vitest";
import { ClosedError, NetworkError, NotFound } from "../../src/core/errors.js";
import { PriceBatch } from "../../src/price-batch.js";
import type { TextColumn } from "../../src/tables/index.js";
import type { Port } from "../../src/transports/port.js";
import { CREDIT } from "../../src/worker/messages.js";
import { RemoteClient } from "../../src/worker/remote.js";
import { serveClient } from "../../src/worker/serve.js";
import { Broker, until } from "../support/broker.js";
import { afterwards, all, connected } from "../support/clients.js";

let broker: Broker;

beforeAll(async () => {
  broker = await Broker.started();
});

afterAll(() => broker.stop());

interface Served {
  readonly remote: RemoteClient;
  /** The messages that were sent to the program, and the buffers that were handed over with them. */
  readonly posted: { readonly message: { type: string }; readonly handedOver: number }[];
  readonly ended: Promise<void>;
}

async function served(options: { transfer?: boolean } = {}): Promise<Served> {
  const { port1, port2 } = new MessageChannel();
  const client = await connected(broker);
  const posted: Served["posted"] = [];
  const post = port1.postMessage.bind(port1);
  port1.postMessage = ((message: { type: string }, list: readonly ArrayBuffer[] = []) => {
    posted.push({ message, handedOver: list.length });
    post(message, list);
  }) as typeof port1.postMessage;
  const ended = serveClient(port1 as unknown as Port, client, options);
  const remote = new RemoteClient(port2 as unknown as Port);
  afterwards(() => remote.close());
  await remote.ready();
  return { remote, posted, ended };
}

it("answers requests and gives the streams, the result and the bars of a backtest", async () => {
  const { remote } = await served();
  expect(remote.status).toBe("ready");
  expect((await remote.request("Ping", {})).timestamp).toBeGreaterThan(0);
  const { backtestId } = await remote.backtest({ algorithm: "sma_cross", symbol: "SYNTH", timeframe: "1m" });
  const [orders, positions, progress] = await Promise.all([
    all(remote.orders(backtestId)),
    all(remote.positions(backtestId)),
    all(remote.progress(backtestId)),
  ]);
  expect((await remote.wait(backtestId)).status).toBe("completed");
  const { metrics, tables } = await remote.results(backtestId);
  expect(orders.length).toBe(tables.orders?.rows);
  expect(positions.length).toBeGreaterThanOrEqual(orders.length);
  expect(progress.at(-1)?.progressPercent).toBe(100);
  expect((tables.equity!.columns.equity as Float64Array).at(-1)).toBe(metrics?.finalEquity);
  expect((tables.orders!.columns.side as TextColumn).toArray()).toEqual(orders.map((one) => one.side));
  const bars = await remote.marketData("SYNTH", "1d", { limit: 5 });
  expect([bars.rows, bars.columns.close?.constructor]).toEqual([5, Float64Array]);
});

it.each([true, false])("gives prices as columns, with transfer %s", async (transfer) => {
  const { remote, posted } = await served({ transfer });
  const topic = `prices.HANDED${transfer}.tick`;
  const batches = remote.batches(topic);
  const first = batches.next();
  const price = { symbol: `HANDED${transfer}`, timestamp: 5, bid: 1, ask: 2, last: 1.5, volume: 3, timeframe: "tick" };
  let isHeard = false;
  void first.then(() => {
    isHeard = true;
  });
  await until(async () => {
    if (!isHeard) await remote.request("PublishPrices", { prices: [price, price] });
    return isHeard;
  }, "the subscription");
  const batch = (await first).value as PriceBatch;
  expect(batch).toBeInstanceOf(PriceBatch);
  expect([batch.rows, batch.last[1], batch.ask.constructor]).toEqual([2, 1.5, Float64Array]);
  await batches.return();
  const items = posted.filter((one) => one.message.type === "items");
  expect(items.every((one) => one.handedOver > 0 === transfer)).toBe(true);
});

it("sends a slow reader no more than its credit, and then all of it", async () => {
  const { remote, posted } = await served();
  const { backtestId } = await remote.backtest({ algorithm: "sma_cross", symbol: "SYNTH", timeframe: "1m" });
  await remote.wait(backtestId);
  const topic = "prices.SLOW.tick";
  const items = remote.subscribe(topic);
  const first = items.next();
  const price = { symbol: "SLOW", timestamp: 5, bid: 1, ask: 2, last: 1.5, volume: 3, timeframe: "tick" };
  let [isHeard, published] = [false, 0];
  void first.then(() => {
    isHeard = true;
  });
  await until(async () => {
    if (!isHeard) published += (await remote.request("PublishPrices", { prices: [price] })).published;
    return isHeard;
  }, "the subscription");
  const parcels = (): number => posted.filter((one) => one.message.type === "items").length;
  for (let times = 0; times < 3 * CREDIT; times += 1) {
    published += (await remote.request("PublishPrices", { prices: [price] })).published;
  }
  expect(parcels()).toBeLessThanOrEqual(CREDIT);
  const { value } = await first;
  let seq = (value as { seq: number }).seq;
  while (seq < published) {
    const { value: next } = await items.next();
    expect((next as { kind: string; seq: number }).kind).toBe("update");
    expect((next as { seq: number }).seq).toBe(seq + 1);
    seq += 1;
  }
  await items.return?.();
});

it("raises the errors of the broker as their classes, with the stack of the call", async () => {
  const { remote } = await served();
  async function asksForNothing(): Promise<void> {
    await remote.results("nope");
  }
  const error = await asksForNothing().catch((found) => found);
  expect(error).toBeInstanceOf(NotFound);
  expect(error.details.name).toBe("nope");
  expect(error.stack).toContain("asksForNothing");
  await expect(remote.request("GetState", { key: 5 } as never)).rejects.toThrow(TypeError);
  await expect(all(remote.orders("nope"))).rejects.toThrow(NotFound);
  await expect(remote.request("UpdateState", { key: "a", value: () => 1 })).rejects.toThrow(/could not be cloned/);
});

it("tells of the connection, and outlives a restart of the broker", async () => {
  const own = await Broker.started();
  afterwards(() => own.stop());
  const { port1, port2 } = new MessageChannel();
  const client = await connected(own, { requestTimeoutMs: 90_000 });
  void serveClient(port1 as unknown as Port, client);
  const remote = new RemoteClient(port2 as unknown as Port);
  afterwards(() => remote.close());
  await remote.ready();
  const states: string[] = [];
  remote.onStatus((status) => states.push(status));
  await own.kill();
  await until(() => remote.status === "reconnecting", "the loss");
  const waiting = remote.request("UpdateState", { key: "remote.key", value: 1 });
  await own.start();
  expect((await waiting).version).toBe(1);
  expect(states.at(-1)).toBe("ready");
});

it("closes the client at the other end, and fails what waits", async () => {
  const { remote, ended } = await served();
  const waiting = remote.subscribe("system.errors").next();
  await remote.request("Ping", {});
  await remote.close();
  await ended;
  await expect(waiting).rejects.toThrow(ClosedError);
  await expect(remote.request("Ping", {})).rejects.toThrow(ClosedError);
  expect(remote.status).toBe("closed");
});

it("fails what waits when the other end is gone", async () => {
  const { remote } = await served();
  const waiting = remote.subscribe("system.errors").next();
  remote.gone("exit code 1");
  await expect(waiting).rejects.toThrow(NetworkError);
  await expect(remote.request("Ping", {})).rejects.toThrow(ClosedError);
});
