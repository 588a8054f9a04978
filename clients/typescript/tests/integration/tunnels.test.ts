/** The whole client of a page, through a MessagePort and through a WebSocket, with a real broker. */

import { MessageChannel } from "node:worker_threads";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Client } from "../../src/client.js";
import { connectPort, connectWebSocket } from "../../src/page.js";
import { type Port, servePort } from "../../src/transports/port.js";
import { MAX_UNREAD, TunnelLink } from "../../src/transports/tunnel.js";
import { zmqTransport } from "../../src/transports/zmq.js";
import { Broker, until } from "../support/broker.js";
import { afterwards, all, connected } from "../support/clients.js";
import { startUi } from "../support/ui-server.js";

let broker: Broker;

beforeAll(async () => {
  broker = await Broker.started();
});

afterAll(() => broker.stop());

async function throughAPort(): Promise<Client> {
  const { port1, port2 } = new MessageChannel();
  const far = zmqTransport({ connectionFile: broker.connectionFile });
  const end = servePort(port1 as unknown as Port, far);
  afterwards(() => far.close());
  afterwards(end);
  return connectPort(port2 as unknown as Port, { requestTimeoutMs: 90_000 });
}

async function throughAWebSocket(): Promise<Client> {
  const tunnel = await startUi(broker);
  afterwards(tunnel.close);
  return connectWebSocket(tunnel.url, { requestTimeoutMs: 90_000 });
}

describe.each([
  ["a port", throughAPort],
  ["a WebSocket", throughAWebSocket],
])("through %s", (_what, connect) => {
  it("runs backtests, reads streams and tables, shares state, and outlives the broker", async () => {
    const page = await connect();
    afterwards(() => page.close());
    const straight = await connected(broker);
    const run = await page.backtest({ algorithm: "sma_cross", symbol: "SYNTH", timeframe: "1m" });
    const orders = await all(run.orders());
    const result = await run.result();
    expect(orders.length).toBe(result.orders.rows);
    expect(result.equity.rows).toBeGreaterThan(1000);
    const own = await straight.results(run.id);
    expect(result.equity.columns.equity).toEqual(own.equity.columns.equity);

    const key = `tunnel.key${Date.now()}`;
    await page.state.ready();
    const seen: unknown[] = [];
    page.state.subscribe(key, ({ value }) => seen.push(value));
    await straight.request("UpdateState", { key, value: "one" });
    await until(() => seen.includes("one"), "the change");
    await page.state.set(key, "two");
    expect(await straight.request("GetState", { key })).toMatchObject({ value: "two", version: 2 });

    await broker.kill();
    const waiting = page.request("UpdateState", { key, value: "three" });
    await broker.start();
    expect((await waiting).version).toBe(3);
    await until(() => seen.includes("three"), "the change after the restart");
    expect(page.status).toBe("ready");
  });
});

it("drops stream messages of a page that takes none, and sends again what it fetches", async () => {
  const transport = zmqTransport({ connectionFile: broker.connectionFile });
  afterwards(() => transport.close());
  const feed = await connected(broker);
  let came = 0;
  let isOpen = false;
  const link = new TunnelLink(transport, (event) => {
    if (event.type === "opened") isOpen = true;
    if (event.type === "message") came += 1;
  });
  afterwards(() => link.close());
  await until(() => isOpen, "the link");
  link.subscribe("prices", "prices.DROP.");
  const price = { symbol: "DROP", timestamp: 1, bid: 1, ask: 1, last: 1, volume: 0, timeframe: "tick" };
  await until(async () => {
    await feed.publishPrices([price]);
    return came > 0;
  }, "the subscription");
  for (let times = 0; times < MAX_UNREAD + 200; times += 1) await feed.publishPrices([price]);
  await until(() => link.dropped > 100, "the drops");
  expect(came).toBe(MAX_UNREAD);
  link.taken(500);
  for (let times = 0; times < 100; times += 1) await feed.publishPrices([price]);
  await until(() => came >= MAX_UNREAD + 50, "more");
});

it("releases what a page had whose port is closed", async () => {
  const { port1, port2 } = new MessageChannel();
  const far = zmqTransport({ connectionFile: broker.connectionFile });
  afterwards(() => far.close());
  servePort(port1 as unknown as Port, far);
  const straight = await connected(broker, { clientId: "straight" });
  const page = await connectPort(port2 as unknown as Port, { clientId: "page" });
  const beats = page.subscribe("system.status");
  await beats.next();
  const subscriptions = async (): Promise<number> =>
    (await straight.systemStatus()).streams?.subscriptions?.system ?? 0;
  const before = await subscriptions();
  port2.close(); // as a page that is reloaded: it says nothing before
  await until(async () => (await subscriptions()) < before, "the end of its subscriptions");
  await page.close();
});

it("ignores what is no message of a page", async () => {
  const { port1, port2 } = new MessageChannel();
  const far = zmqTransport({ connectionFile: broker.connectionFile });
  const end = servePort(port1 as unknown as Port, far);
  afterwards(() => far.close());
  afterwards(end);
  for (const wrong of [
    null,
    5,
    "connect",
    {},
    { type: "connect" },
    { type: "connect", link: "x" },
    { type: "send", link: 1, frames: ["text"] },
    { type: "send", link: 1, frames: [] },
    { type: "subscribe", link: 1, socket: "engine", prefix: "" },
    { type: "subscribe", link: 1, socket: "prices", prefix: "x".repeat(501) },
    { type: "taken", link: 1, count: -1 },
    { type: "table", id: 1, file: { name: "../x", size: -1 } },
    { type: "send", link: 99, frames: [new Uint8Array(1)] },
  ]) {
    port2.postMessage(wrong);
  }
  const page = await connectPort(port2 as unknown as Port);
  afterwards(() => page.close());
  expect(await page.ping()).toBeGreaterThan(0);
});
