/** Links to a real broker: over ZeroMQ, through a port and through a WebSocket, with nothing of the core. */

import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MessageChannel } from "node:worker_threads";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Transport } from "../../src/core/transport.js";
import { portTransport, servePort } from "../../src/transports/port.js";
import { webSocketTransport } from "../../src/transports/websocket.js";
import { zmqTransport } from "../../src/transports/zmq.js";
import { Broker, QUICK, TCP, until } from "../support/broker.js";
import { RawSession } from "../support/raw-session.js";
import { startUi } from "../support/ui-server.js";

const closers: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

function session(transport: Transport): RawSession {
  const one = new RawSession(transport);
  closers.push(
    () => transport.close(),
    () => one.link.close(),
  );
  return one;
}

let broker: Broker;

beforeAll(async () => {
  broker = await Broker.started();
});

afterAll(() => broker.stop());

function overZmq(): Transport {
  return zmqTransport({ connectionFile: broker.connectionFile });
}

function throughAPort(): Transport {
  const { port1, port2 } = new MessageChannel();
  const far = overZmq();
  const end = servePort(port1 as never, far);
  closers.push(() => far.close(), end);
  return portTransport(port2 as never);
}

async function throughAWebSocket(): Promise<Transport> {
  const tunnel = await startUi(broker);
  closers.push(tunnel.close);
  return webSocketTransport(tunnel.url);
}

describe.each([
  ["over ZeroMQ", overZmq],
  ["through a port", throughAPort],
  ["through a WebSocket", throughAWebSocket],
])("%s", (_where, transport) => {
  it("opens, asks and reads streams", async () => {
    const one = session(await transport());
    await one.hello();
    expect((await one.ask("Ping", {})).payload.type).toBe("Success");
    one.link.subscribe("system", "system.status");
    await until(() => one.messages("system.status").length >= 2, "two heartbeats");
    const [first, second] = one.messages("system.status");
    expect(second?.seq).toBe((first?.seq ?? 0) + 1);
    one.link.unsubscribe("system", "system.status");
    expect((await one.ask("Nonsense", {})).payload.data.code).toBe("UNSUPPORTED_COMMAND");
  });

  it("has at most a request of each caller on its way, and loses none of a thousand", async () => {
    const one = session(await transport());
    await one.hello();
    const ids = Array.from({ length: 1000 }, () => one.send("Ping", {}));
    await until(() => one.answers().length > 1000, "1000 answers");
    const answered = new Map(one.answers().map((answer) => [answer.correlationId, answer.payload.type]));
    expect(ids.filter((id) => answered.get(id) !== "Success")).toEqual([]);
  });

  it("sends what it is given in any microtask while it sends", async () => {
    const one = session(await transport());
    await one.hello();
    const before = one.answers().length;
    for (let times = 0; times < 500; times += 1) {
      one.send("Ping", {});
      // After so many microtasks the message before is being sent, or has just been.
      for (let turns = times % 7; turns > 0; turns -= 1) await undefined;
      if (times % 5 === 0) await until(() => one.answers().length === before + times + 1, "the answers so far", 5_000);
    }
    await until(() => one.answers().length === before + 500, "all answers", 5_000);
  });

  it("tells nothing more once it is closed, and a Goodbye still leaves", async () => {
    const before = session(overZmq());
    await before.hello();
    const one = session(await transport());
    await one.hello();
    const sessions = async (): Promise<number> =>
      (await before.ask("GetSystemStatus", {})).payload.data.connectedClients;
    const open = await sessions();
    one.send("Goodbye", {});
    await one.link.close();
    const count = one.events.length;
    await until(async () => (await sessions()) === open - 1, "the end of the session");
    expect(one.events.length).toBe(count);
    expect(one.link.send([new Uint8Array(1)])).toBe(false);
  });
});

it("says what is missing where there is no broker", async () => {
  const one = session(zmqTransport({ connectionFile: join(broker.home, "nowhere.json") }));
  expect((await one.first("absent")).reason).toMatch(/no broker is running .*backtestr run/);
});

it.each([
  ["is open to others", 0o644, (text: string) => text, /chmod 600/],
  ["is no JSON", 0o600, () => "{", /is damaged/],
  [
    "lacks its endpoints",
    0o600,
    (text: string) => JSON.stringify({ ...JSON.parse(text), endpoints: {} }),
    /\$\.endpoints/,
  ],
  [
    "is of a later protocol",
    0o600,
    (text: string) => JSON.stringify({ ...JSON.parse(text), protocolVersion: 2 }),
    /upgrade/,
  ],
])("does not use a connection file that %s", async (_what, mode, change, said) => {
  const file = join(broker.home, "copy.json");
  writeFileSync(file, change(readFileSync(broker.connectionFile, "utf8")));
  chmodSync(file, mode);
  const one = session(zmqTransport({ connectionFile: file }));
  expect((await one.first("absent")).reason).toMatch(said);
});

it("does not use a directory as a connection file", async () => {
  mkdirSync(join(broker.home, "folder.json"), { recursive: true });
  const one = session(zmqTransport({ connectionFile: join(broker.home, "folder.json") }));
  expect((await one.first("absent")).reason).toMatch(/no regular file/);
});

describe("a broker that ends", () => {
  it("is lost, and its successor is announced", async () => {
    const own = await Broker.started();
    closers.push(() => own.stop());
    const transport = zmqTransport({ connectionFile: own.connectionFile });
    const one = session(transport);
    await one.hello();
    let replaced = 0;
    const unwatch = transport.watch(() => {
      replaced += 1;
    });
    await own.kill();
    expect((await one.first("lost")).reason).toMatch(/lost/);
    await own.start();
    await until(() => replaced > 0, "the next connection file");
    unwatch();
    const next = session(transport);
    await next.hello();
    const opened = await next.first("opened");
    expect(opened.instanceId).not.toBe((await one.first("opened")).instanceId);
  });
});

describe("with CURVE", () => {
  let vault: Broker;

  beforeAll(async () => {
    vault = await Broker.started({ broker: QUICK + TCP });
    vault.command("keys", "new", "ann");
  });

  afterAll(() => vault.stop());

  const keyFile = (name: string): string => join(vault.home, "data/keys/clients", `${name}.secret`);

  it.each([
    ["the pair of the connection file", undefined],
    ["a key of its own", "ann"],
  ])("connects with %s", async (_what, name) => {
    const key = name === undefined ? undefined : keyFile(name);
    const one = session(zmqTransport({ connectionFile: vault.connectionFile, key }));
    await one.hello();
    expect(one.events).toContainEqual({ type: "handshake", outcome: "succeeded", ofRequests: true });
    one.link.subscribe("system", "system.status");
    await until(() => one.messages("system.status").length > 0, "a heartbeat");
    expect(one.events).toContainEqual({ type: "handshake", outcome: "succeeded", ofRequests: false });
    const opened = await one.first("opened");
    if (name !== undefined) expect(vault.command("keys", "list", "--json")).toContain(opened.publicKey);
  });

  it("is denied with a key that is not on the list, and fails with that of another broker", async () => {
    vault.command("keys", "new", "eve");
    vault.command("keys", "revoke", "eve");
    const eve = session(zmqTransport({ connectionFile: vault.connectionFile, key: keyFile("eve") }));
    await eve.first("opened");
    const isDenied = (): boolean => eve.events.some((one) => one.type === "handshake" && one.outcome === "denied");
    await until(isDenied, "the denial");

    const file = join(vault.home, "other.json");
    copyFileSync(vault.connectionFile, file);
    const content = JSON.parse(readFileSync(file, "utf8"));
    const other = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
    writeFileSync(file, JSON.stringify({ ...content, curve: { ...content.curve, serverPublicKey: other } }));
    chmodSync(file, 0o600);
    const lost = session(zmqTransport({ connectionFile: file, key: keyFile("ann") }));
    await until(() => lost.events.filter((one) => one.type === "handshake").length >= 3, "three handshakes");
    expect(lost.events.filter((one) => one.type === "handshake").map((one) => one.outcome)).not.toContain("denied");
    expect(lost.events.filter((one) => one.type === "lost")).toEqual([]);
  });

  it("says how to make a key where there is none", async () => {
    const content = JSON.parse(readFileSync(vault.connectionFile, "utf8"));
    const file = join(vault.home, "without.json");
    writeFileSync(file, JSON.stringify({ ...content, curve: { serverPublicKey: content.curve.serverPublicKey } }));
    chmodSync(file, 0o600);
    const one = session(zmqTransport({ connectionFile: file, key: "nobody-has-this" }));
    expect((await one.first("absent")).reason).toMatch(/backtestr keys new/);
  });
});
