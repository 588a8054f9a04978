/** Connecting to a real broker: one that is starting, one that is away, and those that refuse. */

import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  AuthenticationError,
  BacktestrError,
  ClosedError,
  NetworkError,
  NotFound,
  TimedOut,
} from "../../src/core/errors.js";
import { connect } from "../../src/node/connect.js";
import { Broker, QUICK, TCP, until } from "../support/broker.js";
import { afterwards, connected } from "../support/clients.js";

let broker: Broker;

beforeAll(async () => {
  broker = await Broker.started();
});

afterAll(() => broker.stop());

function copy(name: string, change: (content: Record<string, unknown>) => object, of = broker): string {
  const file = join(of.home, name);
  writeFileSync(file, JSON.stringify(change(JSON.parse(readFileSync(of.connectionFile, "utf8")))));
  chmodSync(file, 0o600);
  return file;
}

describe("connect", () => {
  it("waits for a broker that is starting", async () => {
    const starting = new Broker();
    afterwards(() => starting.stop());
    starting.launch();
    const client = await connected(starting, { timeoutMs: 90_000 });
    expect(client.status).toBe("ready");
    expect(await client.ping()).toBeGreaterThan(1_600_000_000_000);
  });

  it("says that there is no broker, and how to start one", async () => {
    const missing = connect({ connectionFile: join(broker.home, "nowhere.json"), timeoutMs: 300 });
    await expect(missing).rejects.toThrow(NetworkError);
    await expect(missing).rejects.toThrow(/no broker is running .* backtestr run/);
  });

  it("does not wait for ever for a broker that has crashed and left its file", async () => {
    const file = copy("crashed.json", (content) => ({
      ...content,
      endpoints: Object.fromEntries(Object.keys(content.endpoints as object).map((name) => [name, "ipc:///nowhere/x"])),
    }));
    await expect(connect({ connectionFile: file, timeoutMs: 500 })).rejects.toThrow(NetworkError);
  });

  it("tells a wrong signing key from a broker that is away", async () => {
    const file = copy("key.json", (content) => ({
      ...content,
      signing: { algorithm: "hmac-sha256", key: "ab".repeat(32) },
    }));
    await expect(connect({ connectionFile: file, timeoutMs: 2_000 })).rejects.toThrow(AuthenticationError);
  });

  it.each([
    ["an unknown option", { conectionFile: "x" }, /conectionFile.*did you mean.*connectionFile/],
    ["a path that is no text", { connectionFile: 5 }, /connectionFile/],
    ["a time that is none", { timeoutMs: -1 }, /timeoutMs/],
    ["options that are none", "file.json", /options/],
  ])("is a TypeError at once for %s", async (_what, options, said) => {
    const wrong = connect(options as never);
    await expect(wrong).rejects.toThrow(TypeError);
    await expect(wrong).rejects.toThrow(said);
  });
});

describe("a client", () => {
  it("has a hundred requests under way at once, each with its own answer", async () => {
    const client = await connected(broker);
    const keys = Array.from({ length: 100 }, (_, at) => `many.k${at}`);
    const made = await Promise.all(keys.map((key, at) => client.request("UpdateState", { key, value: { at } })));
    expect(made.map((one) => [one.key, one.version])).toEqual(keys.map((key) => [key, 1]));
    const kinds = await Promise.all(
      keys.map((key, at) =>
        at % 2 === 0
          ? client.request("GetState", { key })
          : client.request("GetBacktestStatus", { backtestId: key }).catch((error) => error),
      ),
    );
    for (const [at, one] of kinds.entries()) {
      if (at % 2 === 0) expect(one).toMatchObject({ key: keys[at], value: { at } });
      else expect([one.constructor, one.details.name]).toEqual([NotFound, keys[at]]);
    }
  });

  it("raises errors by their code, with the stack of the call, and a TypeError for what cannot be sent", async () => {
    const client = await connected(broker);
    async function asksForNothing(): Promise<void> {
      await client.results("nope");
    }
    const error = await asksForNothing().catch((found) => found);
    expect(error).toBeInstanceOf(NotFound);
    expect(error).toBeInstanceOf(BacktestrError);
    expect(error.stack).toContain("asksForNothing");
    expect([error.code, error.retriable, error.details.kind]).toEqual(["NOT_FOUND", false, "result"]);
    for (const wrong of [
      () => client.request("GetState", { key: 5 } as never),
      () => client.request("GetStat" as never, {} as never),
      () => client.backtest({ algorithm: "sma_cross" } as never),
      () => client.request("UpdateState", { key: "a", value: () => 1 }),
    ]) {
      await expect((async () => wrong())()).rejects.toThrow(TypeError);
    }
    expect(await client.ping()).toBeGreaterThan(0);
  });

  it("says when there was no answer in time, and when it is closed", async () => {
    const client = await connected(broker);
    broker.signal("SIGSTOP");
    try {
      await expect(client.request("Ping", {}, { timeoutMs: 300 })).rejects.toThrow(TimedOut);
    } finally {
      broker.signal("SIGCONT");
    }
    const waiting = client.subscribe("system.errors").next();
    await client.close();
    await expect(client.ping()).rejects.toThrow(ClosedError);
    await expect(waiting).rejects.toThrow(ClosedError);
    expect(client.status).toBe("closed");
    await client.close();
  });
});

describe("with CURVE", () => {
  let vault: Broker;
  const keyFile = (name: string): string => join(vault.home, "data/keys/clients", `${name}.secret`);

  beforeAll(async () => {
    vault = await Broker.started({ broker: QUICK + TCP });
    for (const name of ["ann", "bob"]) vault.command("keys", "new", name);
  });

  afterAll(() => vault.stop());

  it("runs a backtest as without, with a key of the list", async () => {
    const client = await connected(vault, { key: keyFile("ann") });
    const run = await client.backtest({ algorithm: "sma_cross", symbol: "SYNTH", timeframe: "1d" });
    let orders = 0;
    for await (const _ of run.orders()) orders += 1;
    const result = await run.result();
    expect(result.orders.rows).toBeGreaterThan(0);
    expect(orders).toBeGreaterThanOrEqual(result.orders.rows);
  });

  it("tells a key that is not on the list, and that of another broker, from a broker that is away", async () => {
    const foreign = new Broker();
    afterwards(() => foreign.stop());
    foreign.command("keys", "new", "eve");
    const eve = join(foreign.home, "data/keys/clients/eve.secret");
    const denied = connect({ connectionFile: vault.connectionFile, key: eve, timeoutMs: 20_000 });
    await expect(denied).rejects.toThrow(AuthenticationError);
    await expect(denied).rejects.toThrow(/key mismatch likely.*backtestr keys/);
    const other = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
    const file = copy(
      "other.json",
      (content) => ({ ...content, curve: { ...(content.curve as object), serverPublicKey: other } }),
      vault,
    );
    await expect(connect({ connectionFile: file, key: keyFile("ann"), timeoutMs: 20_000 })).rejects.toThrow(
      AuthenticationError,
    );
    const away = copy(
      "away.json",
      (content) => ({
        ...content,
        endpoints: Object.fromEntries(
          Object.keys(content.endpoints as object).map((name) => [name, "tcp://127.0.0.1:9"]),
        ),
      }),
      vault,
    );
    await expect(connect({ connectionFile: away, key: keyFile("ann"), timeoutMs: 1_000 })).rejects.toThrow(
      NetworkError,
    );
  });

  it("fails what waits when its key is revoked, and goes on by itself when it is allowed again", async () => {
    const ann = await connected(vault, { key: keyFile("ann") });
    const bob = await connected(vault, { key: keyFile("bob") });
    const heard = ann.subscribe("system.status");
    const lost = bob.subscribe("system.status");
    for (const one of [heard, lost]) expect((await one.next())?.kind).toBe("update");
    vault.command("keys", "revoke", "bob");
    await expect(
      (async () => {
        for await (const _ of lost);
      })(),
    ).rejects.toThrow(AuthenticationError);
    expect(bob.status).toBe("authFailed");
    await expect(bob.ping()).rejects.toThrow(/key mismatch likely/);
    expect(await ann.ping()).toBeGreaterThan(0);
    // Heartbeats that came while its connections were made again may be stated as lost: the topic retains one.
    let next = await heard.next();
    while (next?.kind === "gap") next = await heard.next();
    expect(next?.kind).toBe("update");
    vault.command("keys", "allow", "bob");
    await until(() => bob.status === "ready", "the return of bob", 30_000);
    expect(await bob.ping()).toBeGreaterThan(0);
  });
});
