/** What a program follows of a client in another thread: the shared state, events, and the connection itself. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MessageChannel } from "node:worker_threads";
import { describe, expect, test } from "vitest";
import type { Client } from "../../src/client.js";
import { AuthenticationError, ClosedError, NetworkError, NotFound, StateConflict } from "../../src/core/errors.js";
import { connect } from "../../src/node/connect.js";
import type { StateChange } from "../../src/state.js";
import type { Port } from "../../src/transports/port.js";
import { CREDIT } from "../../src/worker/messages.js";
import { RemoteClient } from "../../src/worker/remote.js";
import { serveClient } from "../../src/worker/serve.js";
import { MAX_EVENTS } from "../../src/worker/streams.js";
import { Broker, until } from "../support/broker.js";
import { afterwards } from "../support/clients.js";
import { failed, settle } from "../support/fake-broker.js";
import { Keys } from "../support/keys-broker.js";

interface Served {
  readonly remote: RemoteClient;
  readonly ended: Promise<void>;
  /** Holds back what is sent to the program, until it is let go. */
  readonly hold: () => () => void;
  /** Ends the port, as a window that is gone. */
  readonly cut: () => void;
}

function served(client: Client): Served {
  const { port1, port2 } = new MessageChannel();
  const held: unknown[] = [];
  let isHolding = false;
  const post = port1.postMessage.bind(port1);
  port1.postMessage = (message: unknown) => {
    if (isHolding) held.push(message);
    else post(message);
  };
  const ended = serveClient(port1 as unknown as Port, client, { transfer: false });
  const remote = new RemoteClient(port2 as unknown as Port);
  afterwards(() => remote.close());
  const hold = (): (() => void) => {
    isHolding = true;
    return () => {
      isHolding = false;
      for (const message of held.splice(0)) post(message);
    };
  };
  return { remote, ended, hold, cut: () => port1.close() };
}

async function withKeys(): Promise<[Keys, Client, Served]> {
  const broker = new Keys();
  const client = await broker.client();
  return [broker, client, served(client)];
}

describe("the shared state", () => {
  test("is followed: present values first, then each change, of the prefix alone", async () => {
    const [broker, , { remote }] = await withKeys();
    broker.set("ui.theme", "dark");
    broker.set("other", 1);
    const state = remote.follow("ui.");
    const seen: StateChange[] = [];
    state.subscribe((change) => seen.push(change));
    expect([state.keys(), state.peek("ui.theme")]).toEqual([[], undefined]);
    await state.ready();
    expect([state.keys(), state.peek("ui.theme")]).toEqual([["ui.theme"], "dark"]);
    await broker.change("ui.theme", "light");
    await until(() => state.peek("ui.theme") === "light", "the change");
    expect(state.read("ui.theme")).toEqual({ key: "ui.theme", value: "light", version: 2 });
    const late: unknown[] = [];
    const end = state.subscribe("ui.theme", ({ value }) => late.push(value));
    await state.delete("ui.theme");
    expect([state.keys(), state.read("ui.theme").version]).toEqual([[], 0]);
    end();
    await state.set("ui.theme", "last");
    expect(seen.map(({ value, version }) => [value, version])).toEqual([
      ["dark", 1],
      ["light", 2],
      [undefined, 0],
      ["last", 4],
    ]);
    expect(late).toEqual(["light", undefined]);
    expect(() => state.peek("other")).toThrow('"other" does not begin with ui.');
    expect(() => state.set("ui.theme", undefined)).toThrow("undefined is no value");
  });

  test("shows own writes at once, in their order, and takes back what the broker refuses", async () => {
    const [broker, , { remote }] = await withKeys();
    const state = remote.follow();
    await state.ready();
    const first = state.set("a", { one: 1 });
    expect(state.peek("a")).toEqual({ one: 1 });
    const second = state.set("a", { one: 1, two: 2 });
    expect([state.peek("a"), state.keys(), state.read("a").version]).toEqual([{ one: 1, two: 2 }, ["a"], 0]);
    expect(await first).toEqual({ one: 1 });
    expect(await second).toEqual({ one: 1, two: 2 });
    expect(state.read("a")).toEqual({ key: "a", value: { one: 1, two: 2 }, version: 2 });
    expect(broker.of("UpdateState").map((one) => one.data.expectedVersion)).toEqual([0, 1]);
    broker.handlers.UpdateState = () => failed("VALIDATION_ERROR");
    const refused = state.set("a", "wrong");
    expect(state.peek("a")).toBe("wrong");
    await expect(refused).rejects.toMatchObject({ code: "VALIDATION_ERROR" });
    expect(state.peek("a")).toEqual({ one: 1, two: 2 });
    await expect(state.delete("nothing")).rejects.toThrow(NotFound);
  });

  test("joins a write with a change that the program had not seen, as the resolver of the prefix says", async () => {
    const [broker, client, { remote, hold }] = await withKeys();
    broker.set("algorithm.a", { fast: 1, slow: 2 });
    const state = remote.follow("algorithm.");
    await state.ready();
    const release = hold();
    await broker.change("algorithm.a", { fast: 1, slow: 9 });
    expect(await client.sharedState("algorithm.").get("algorithm.a")).toEqual({ fast: 1, slow: 9 });
    const joined = state.set("algorithm.a", { fast: 5, slow: 2 });
    await until(() => broker.of("UpdateState").length === 1, "the first attempt");
    await broker.clock.advance(1);
    release();
    expect(await joined).toEqual({ fast: 5, slow: 9 });
    expect(state.peek("algorithm.a")).toEqual({ fast: 5, slow: 9 });
    const contrary = state.set("algorithm.a", { fast: 7, slow: 9 }, { baseVersion: 1 });
    const refusal = expect(contrary).rejects.toBeInstanceOf(StateConflict);
    await until(() => broker.of("UpdateState").length === 3, "the contrary attempt");
    await broker.clock.advance(1);
    await refusal;
    expect(state.peek("algorithm.a")).toEqual({ fast: 5, slow: 9 });
  });

  test("gives a slow program the latest of each key, and never holds more than that", async () => {
    const [broker, , { remote, hold }] = await withKeys();
    const state = remote.follow();
    await state.ready();
    const seen: unknown[] = [];
    state.subscribe("a", ({ value }) => seen.push(value));
    const release = hold();
    const times = 4 * CREDIT;
    for (let value = 1; value <= times; value += 1) await broker.change("a", value);
    release();
    await until(() => seen.at(-1) === times, "the latest value");
    // undefined first: there was no value; the parcels of the credit, one that waited for it, and the latest.
    expect(seen.length).toBeLessThanOrEqual(CREDIT + 3);
    expect(seen.slice(1)).toEqual([...(seen.slice(1) as number[])].sort((one, other) => one - other));
  });

  test("ends with the client, and by itself", async () => {
    const [broker, , { remote }] = await withKeys();
    broker.set("a", 1);
    const [one, other] = [remote.follow(), remote.follow("a")];
    await expect(other.ready()).rejects.toThrow("expected a text that ends with a dot");
    await one.ready();
    one.close();
    await expect(one.set("a", 2)).rejects.toThrow(ClosedError);
    await until(() => !broker.prefixes.has("system state."), "the end of the subscription");
    const third = remote.follow();
    await third.ready();
    broker.isSilent = true;
    const pending = third.set("a", 3);
    await settle();
    await remote.close();
    await expect(pending).rejects.toThrow(ClosedError);
    expect(third.peek("a")).toBe(1);
    await expect(remote.follow().ready()).rejects.toThrow(ClosedError);
  });

  test("fails where the broker denies the key of this client", async () => {
    const [broker, , { remote }] = await withKeys();
    const state = remote.follow();
    await state.ready();
    for (let times = 0; times < 20 && remote.status !== "authFailed"; times += 1) {
      await broker.event({ type: "handshake", outcome: "failed", ofRequests: true });
      await settle();
    }
    await until(() => remote.status === "authFailed", "the refusal");
    const failure = await state.set("a", 1).catch((error) => error);
    expect(failure).toBeInstanceOf(AuthenticationError);
  });
});

describe("events", () => {
  test("of gaps, repairs and errors reach the program, as long as it listens", async () => {
    const [broker, client, { remote }] = await withKeys();
    broker.handlers.FetchMissed = ({ data: { topic, fromSeq, toSeq } }) => {
      return { topic, fromSeq, toSeq, oldestSeq: toSeq + 1, messages: [] }; // the broker has none of them any more
    };
    const told: unknown[] = [];
    const offs = [
      remote.on("gap", (event) => told.push(["gap", event])),
      remote.on("lost", (event) => told.push(["lost", event])),
      remote.on("error", ({ error, about }) => told.push([error.constructor.name, about])),
    ];
    const items = remote.subscribe("orders.b");
    await until(() => broker.prefixes.has("orders orders.b"), "the subscription");
    await broker.publish("orders.b", "OrderUpdate", { n: 1 });
    broker.lose("orders.b", 2);
    await broker.publish("orders.b", "OrderUpdate", { n: 4 });
    await until(() => told.length === 3, "three events");
    expect(told).toContainEqual(["gap", { topic: "orders.b", fromSeq: 2, toSeq: 3 }]);
    expect(told).toContainEqual(["lost", { topic: "orders.b", fromSeq: 2, toSeq: 3 }]);
    expect(told).toContainEqual(["MessagesLost", "orders.b"]);
    expect((await remote.statistics()).gapsSeen).toBe(1);
    expect(await remote.statistics()).toEqual(client.statistics);
    for (const off of offs) off();
    await remote.statistics();
    broker.lose("orders.b", 1);
    await broker.publish("orders.b", "OrderUpdate", { n: 6 });
    await until(async () => (await remote.statistics()).gapsLost === 2, "the second loss");
    expect(told).toHaveLength(3);
    await items.return();
    expect(() => remote.on("gaps" as never, () => undefined)).toThrow('there is no event "gaps"; did you mean');
  });

  test("that come faster than they are read are dropped, the oldest first, and counted", async () => {
    const [broker, , { remote, hold }] = await withKeys();
    let told = 0;
    remote.on("error", () => {
      told += 1;
    });
    await remote.statistics();
    broker.handlers.Ping = () => failed("VALIDATION_ERROR");
    const release = hold();
    const calls = CREDIT + MAX_EVENTS + 50;
    for (let times = 0; times < calls; times += 1) void remote.request("Ping", {}).catch(() => undefined);
    await until(() => broker.of("Ping").length === calls, "the requests");
    await settle();
    release();
    await until(() => told + remote.missedEvents === calls, "the events");
    expect(told).toBeGreaterThanOrEqual(MAX_EVENTS);
  });
});

describe("streams", () => {
  test("end at once when the program returns from them, also while it waits", async () => {
    const [broker, , { remote }] = await withKeys();
    const items = remote.subscribe("orders.b");
    const waiting = items.next();
    await until(() => broker.prefixes.has("orders orders.b"), "the subscription");
    await items.return();
    expect(await waiting).toEqual({ done: true, value: undefined });
    await until(() => !broker.prefixes.has("orders orders.b"), "its end");
  });

  test("end with the port, and so does the client at the other end", async () => {
    const [, client, { remote, ended, cut }] = await withKeys();
    const waiting = remote.subscribe("orders.b").next();
    await remote.statistics();
    cut();
    await expect(waiting).rejects.toThrow(NetworkError);
    await ended;
    expect([remote.status, client.status]).toEqual(["closed", "closed"]);
  });
});

describe("without a broker", () => {
  test("the client is served as it tries, requests fail in time, and all works once a broker is there", async () => {
    const broker = new Broker();
    afterwards(() => broker.stop());
    const { connectionFile } = broker;
    const client = await connect({ connectionFile, waitForBroker: false });
    const { remote } = served(client);
    expect([remote.status, remote.welcome]).toEqual(["connecting", null]);
    await expect(remote.request("Ping", {}, { timeoutMs: 100 })).rejects.toThrow(NetworkError);
    const state = remote.follow("ui.");
    const queued = remote.request("UpdateState", { key: "ui.first", value: 1 }, { timeoutMs: 90_000 });
    await broker.start();
    await remote.ready();
    expect(remote.status).toBe("ready");
    expect(remote.welcome?.instanceId).toMatch(/./);
    expect((await queued).version).toBe(1);
    await state.ready();
    await until(() => state.peek("ui.first") === 1, "the value");
  });

  test("a client that is closed before it had a broker says so", async () => {
    const home = mkdtempSync(join(tmpdir(), "bt-none-"));
    afterwards(() => rmSync(home, { recursive: true }));
    const connectionFile = join(home, "connection.json");
    const client = await connect({ connectionFile, waitForBroker: false });
    const { remote } = served(client);
    const ready = remote.ready();
    await client.close();
    await expect(ready).rejects.toThrow(ClosedError);
    await expect(connect({ connectionFile, waitForBroker: 1 as never })).rejects.toThrow(
      "waitForBroker: expected true or false; 1 came",
    );
  });
});
