/** The program of the utility process, in Node: real clients over ZeroMQ, behind ports that take no buffers. */

import { EventEmitter } from "node:events";
import { MessageChannel, type MessagePort } from "node:worker_threads";
import { NetworkError, type Port, RemoteClient } from "@backtestr/client/page";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { Broker } from "../../../typescript/tests/support/broker";
import type { FromClientProcess } from "../src/channels";
import { serveWindows } from "../src/client/serve-windows";
import { asPortMain } from "./support/port-main";

let broker: Broker;
const remotes: RemoteClient[] = [];

beforeEach(() => {
  broker = new Broker();
});

afterEach(async () => {
  await Promise.all(remotes.splice(0).map((one) => one.close()));
  await broker.stop();
});

class Parent extends EventEmitter {
  readonly said: FromClientProcess[] = [];
  postMessage(message: FromClientProcess): void {
    this.said.push(message);
  }
}

function served(): [Parent, RemoteClient, MessagePort] {
  const parent = new Parent();
  serveWindows(parent as never, { connectionFile: broker.connectionFile });
  const { port1, port2 } = new MessageChannel();
  parent.emit("message", { ports: [asPortMain(port1)] });
  const remote = new RemoteClient(port2 as unknown as Port);
  remotes.push(remote);
  return [parent, remote, port2];
}

it("serves a window before there is a broker, then its columns, and tells the main process of the connection", async () => {
  const [parent, remote] = served();
  await vi.waitUntil(() => parent.said.length > 0);
  expect(parent.said).toEqual([{ type: "status", status: "connecting" }]);
  await expect(remote.request("Ping", {}, { timeoutMs: 50 })).rejects.toThrow(NetworkError);
  await broker.start();
  await remote.ready();
  expect(parent.said.at(-1)).toEqual({ type: "status", status: "ready" });
  const bars = await remote.marketData("SYNTH", "1d", { limit: 5 });
  expect([bars.rows, bars.columns.close?.constructor]).toEqual([5, Float64Array]);
});

it("ends the client of a window that is gone", async () => {
  await broker.start();
  const [parent, remote, port] = served();
  await remote.ready();
  port.close();
  await vi.waitUntil(() => parent.said.at(-1)?.status === "closed", 20_000);
  expect(parent.said.at(-1)).toEqual({ type: "status", status: "closed" });
});
