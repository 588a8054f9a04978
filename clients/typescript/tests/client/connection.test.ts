/** The connection of a client: made, lost, made again, refused and closed. */

import { describe, expect, test } from "vitest";
import {
  AuthenticationError,
  type Client,
  ClosedError,
  createClient,
  NetworkError,
  NotFound,
  TimedOut,
} from "../../src/exports.js";
import { FakeBroker, failed, settle, WRONG } from "../support/fake-broker.js";

function states(client: Client): string[] {
  const seen: string[] = [];
  client.on("status", ({ state }) => seen.push(state));
  return seen;
}

describe("opening", () => {
  test("resolves with a session, and says what the broker said", async () => {
    const broker = new FakeBroker();
    const client = await broker.client({ clientId: "me", clientName: "my program" });
    expect(client.status).toBe("ready");
    expect(client.welcome?.sessionId).toBe("s1");
    expect(broker.of("Hello")[0]?.data).toMatchObject({ clientId: "me", clientName: "my program" });
    expect(await client.opened()).toBe(client.welcome);
    await client.close();
  });

  test("waits for a broker that is starting", async () => {
    const broker = new FakeBroker();
    broker.absence = "there is no connection file";
    const opening = broker.client();
    await broker.clock.advance(1);
    const tried = broker.links;
    expect(tried).toBeGreaterThan(2);
    broker.absence = null;
    await broker.clock.advance(1);
    const client = await opening;
    expect(client.status).toBe("ready");
    expect(client.errors.latest().map((one) => one.error.message)).toEqual([
      "connecting to the broker again: there is no connection file",
    ]);
    await client.close();
  });

  test("is quick once the broker announces itself", async () => {
    const broker = new FakeBroker();
    broker.absence = "there is no connection file";
    const opening = broker.client({ timeoutMs: 60_000 });
    await broker.clock.advance(30);
    broker.absence = null;
    await broker.restart();
    const client = await opening;
    expect(client.status).toBe("ready");
    await client.close();
  });

  test("gives up after its timeout, with the reason, and leaves nothing behind", async () => {
    const broker = new FakeBroker();
    broker.absence = "there is no connection file; start the broker";
    const opening = createClient(broker, { clock: broker.clock, timeoutMs: 2_000 });
    const outcome = expect(opening).rejects.toThrow("no broker answered within 2 s: there is no connection file");
    await broker.clock.advance(2);
    await outcome;
    await expect(opening).rejects.toBeInstanceOf(NetworkError);
    expect(broker.clock.timers).toBe(0);
    expect(broker.isClosed).toBe(true);
  });

  test("says so when the broker refuses the version", async () => {
    const broker = new FakeBroker({ Hello: () => failed("PROTOCOL_VERSION_UNSUPPORTED", { supported: [2] }) });
    await expect(broker.client()).rejects.toMatchObject({ name: "ProtocolVersionUnsupported" });
    expect(broker.isLinked).toBe(false);
  });

  test("says so when the key of the connection file is another", async () => {
    const broker = new FakeBroker();
    broker.signer = WRONG;
    const opening = createClient(broker, { clock: broker.clock });
    const outcome = expect(opening).rejects.toThrow("the broker does not take this client's key: bad signature");
    await broker.clock.advance(5);
    await outcome;
    await expect(opening).rejects.toBeInstanceOf(AuthenticationError);
    expect(broker.rereads).toBeGreaterThan(0);
  });

  test.each<[object, string]>([
    [{ clientId: 5 }, "clientId: expected a text"],
    [{ clientName: "" }, "clientName: expected a text"],
    [{ timeoutMs: "5" }, "timeoutMs: expected a number of milliseconds above 0"],
    [{ requestTimeoutMs: 0 }, "requestTimeoutMs: expected a number of milliseconds above 0"],
    [{ recovery: { jitterMs: -1 } }, "recovery.jitterMs"],
    [{ timout: 5 }, 'client: unknown option timout; did you mean "timeoutMs"?'],
  ])("with %o is a mistake", async (options, text) => {
    const broker = new FakeBroker();
    await expect(createClient(broker, options)).rejects.toThrow(text);
    expect(broker.links).toBe(0);
  });
});

describe("a connection that breaks", () => {
  test("is made again at once, and pending requests are sent again under the same id", async () => {
    const broker = new FakeBroker({ GetSystemStatus: () => undefined });
    const client = await broker.client();
    const seen = states(client);
    await broker.clock.advance(10); // it has lasted
    const asking = client.systemStatus();
    await settle();
    await broker.event({ type: "lost", reason: "the connection broke" });
    expect(client.status).toBe("reconnecting");
    broker.handlers.GetSystemStatus = () => ({ status: "healthy" });
    await broker.clock.advance(0);
    await expect(asking).resolves.toMatchObject({ status: "healthy" });
    const [first, second] = broker.of("GetSystemStatus");
    expect(second?.id).toBe(first?.id);
    expect(seen).toEqual(["reconnecting", "ready"]);
    expect(client.errors.latest("Info").map((one) => one.error.name)).toEqual(["NetworkError", "Recovered"]);
    expect(client.statistics).toMatchObject({ sessions: 2, resent: 1, answered: 1 });
    await client.close();
  });

  test("again and again is made ever more slowly, and is one error", async () => {
    const broker = new FakeBroker();
    const client = await broker.client();
    broker.absence = "gone";
    await broker.event({ type: "lost", reason: "the connection broke" });
    await broker.clock.advance(60);
    const tried = broker.links;
    expect(tried).toBeGreaterThan(10);
    expect(tried).toBeLessThan(25);
    expect(client.errors.latest()).toHaveLength(1);
    const asking = client.ping();
    const outcome = expect(asking).rejects.toThrow("it was never sent");
    await broker.clock.advance(30);
    await outcome;
    await client.close();
  });

  test("to another instance of the broker begins everything anew", async () => {
    const broker = new FakeBroker();
    const client = await broker.client();
    const subscription = client.subscribe("orders.");
    await broker.publish("orders.b", "OrderUpdate", { n: 1 });
    await broker.restart();
    await broker.clock.advance(0);
    await broker.publish("orders.b", "OrderUpdate", { n: 2 });
    const kinds = [await subscription.next(), await subscription.next(), await subscription.next()];
    expect(kinds.map((one) => one?.kind)).toEqual(["update", "restarted", "update"]);
    expect(broker.prefixes).toContain("orders orders.");
    expect(client.status).toBe("ready");
    await client.close();
  });

  test("is noticed when the broker does not answer a Ping", async () => {
    const broker = new FakeBroker();
    const client = await broker.client();
    broker.isSilent = true;
    await broker.clock.advance(32);
    expect(client.status).toBe("reconnecting");
    broker.isSilent = false;
    await broker.clock.advance(10);
    expect(client.status).toBe("ready");
    await client.close();
  });

  test("meets another broker's key before that has announced itself", async () => {
    const broker = new FakeBroker();
    const client = await broker.client();
    broker.signer = WRONG;
    await broker.event({ type: "lost", reason: "the connection broke" });
    await broker.clock.advance(1);
    expect(client.status).toBe("reconnecting");
    expect(broker.rereads).toBe(1);
    broker.signer = (await import("../support/signing.js")).RIGHT;
    await broker.restart();
    expect(client.status).toBe("ready");
    await client.close();
  });
});

describe("a key that is denied", () => {
  test("fails everything, and is tried again after a while", async () => {
    const broker = new FakeBroker({ GetSystemStatus: () => undefined });
    const client = await broker.client();
    const seen = states(client);
    const asking = client.systemStatus();
    const subscription = client.subscribe("orders.");
    await settle();
    const outcome = expect(asking).rejects.toBeInstanceOf(AuthenticationError);
    await broker.event({ type: "handshake", outcome: "denied", ofRequests: true });
    await outcome;
    await expect(subscription.next()).rejects.toThrow("this client's is the key");
    await expect(client.ping()).rejects.toThrow("does not let this client in");
    expect(client.status).toBe("authFailed");
    await broker.clock.advance(6);
    expect(client.status).toBe("ready");
    expect(seen).toEqual(["authFailed", "ready"]);
    await client.close();
  });

  test("takes several failed handshakes to be believed, and a success begins a session anew", async () => {
    const broker = new FakeBroker();
    const client = await broker.client();
    await broker.event({ type: "handshake", outcome: "succeeded", ofRequests: true });
    await broker.event({ type: "handshake", outcome: "failed", ofRequests: false });
    await broker.event({ type: "handshake", outcome: "failed", ofRequests: false });
    expect(client.status).toBe("ready");
    await broker.event({ type: "handshake", outcome: "succeeded", ofRequests: true });
    expect(broker.of("Hello")).toHaveLength(2);
    await broker.event({ type: "handshake", outcome: "succeeded", ofRequests: false });
    expect(broker.of("Hello")).toHaveLength(2);
    await client.close();
  });
});

describe("closing", () => {
  test("says Goodbye, fails what waits, and leaves no timer", async () => {
    const broker = new FakeBroker({ GetSystemStatus: () => undefined });
    const client = await broker.client();
    const seen = states(client);
    const asking = client.systemStatus();
    const subscription = client.subscribe("orders.");
    const reading = subscription.next();
    const key = client.state.get("k");
    client.on("silence", () => undefined);
    const outcomes = Promise.all([
      expect(asking).rejects.toBeInstanceOf(ClosedError),
      expect(reading).rejects.toBeInstanceOf(ClosedError),
      expect(key).rejects.toBeInstanceOf(Error),
    ]);
    await settle();
    await client.close();
    await outcomes;
    expect(broker.of("Goodbye")).toHaveLength(1);
    expect(broker.clock.timers).toBe(0);
    expect(broker.isLinked).toBe(false);
    expect(broker.isClosed).toBe(true);
    expect(seen).toEqual(["closed"]);
    await client.close();
    expect(broker.of("Goodbye")).toHaveLength(1);
  });

  test("is the end of every call", async () => {
    const broker = new FakeBroker();
    const client = await broker.client();
    await client.close();
    await expect(client.ping()).rejects.toBeInstanceOf(ClosedError);
    await expect(client.subscribe("orders.").next()).rejects.toBeInstanceOf(ClosedError);
    await expect(client.state.get("k")).rejects.toBeInstanceOf(ClosedError);
    await expect(client.opened()).rejects.toBeInstanceOf(ClosedError);
    expect(client.heartbeat).toEqual({ pulse: "unknown", status: null });
    expect(client.on("heartbeat", () => undefined)).toBeInstanceOf(Function);
    expect(client.statistics.requests).toBe(0);
    expect(broker.clock.timers).toBe(0);
  });

  test("is what `await using` does", async () => {
    const broker = new FakeBroker();
    const client = await broker.client();
    await client[Symbol.asyncDispose]();
    expect(client.status).toBe("closed");
  });
});

describe("a request", () => {
  test("fails with the stack of its caller, and is among the errors", async () => {
    const broker = new FakeBroker({ GetBacktestStatus: () => failed("NOT_FOUND", { kind: "backtest" }) });
    const client = await broker.client();
    async function whoever(): Promise<unknown> {
      return client.backtestStatus("none");
    }
    const error = await whoever().catch((one: unknown) => one);
    expect(error).toBeInstanceOf(NotFound);
    expect((error as Error).stack).toContain("whoever");
    expect((error as NotFound).details).toEqual({ kind: "backtest" });
    expect(client.errors.latest().map((one) => one.about)).toEqual(["GetBacktestStatus"]);
    expect(client.errors.count).toBe(1);
    await client.close();
  });

  test("has a timeout of its own", async () => {
    const broker = new FakeBroker({ GetSystemStatus: () => undefined });
    const client = await broker.client();
    const asking = client.request("GetSystemStatus", {}, { timeoutMs: 500 });
    const outcome = expect(asking).rejects.toBeInstanceOf(TimedOut);
    await broker.clock.advance(1);
    await outcome;
    await expect(client.request("Ping", {}, { timeoutMs: -1 })).rejects.toBeInstanceOf(TypeError);
    await client.close();
  });

  test("may be any of the protocol, with its attachments", async () => {
    const broker = new FakeBroker({ Ping: () => [{ timestamp: 7 }, [new Uint8Array([1])]] });
    const client = await broker.client();
    expect(await client.request("Ping")).toEqual({ timestamp: 7 });
    const { answer, attachments } = await client.requestWithAttachments("Ping", {});
    expect([answer, attachments]).toEqual([{ timestamp: 7 }, [new Uint8Array([1])]]);
    await expect(client.request("Pong" as "Ping")).rejects.toThrow('there is no request "Pong"; did you mean "Ping"?');
    await expect(client.request("GetState", { key: () => 1 } as never)).rejects.toThrow(TypeError);
    await expect(client.request("UpdateState", { key: "k", value: () => 1 })).rejects.toThrow(
      "$.value: a value of the type",
    );
    await client.close();
  });

  test("that fails by a defect of the transport fails everything instead of hanging", async () => {
    const broker = new FakeBroker({
      GetSystemStatus: () => {
        throw new RangeError("a defect");
      },
    });
    const client = await broker.client();
    await expect(client.systemStatus()).rejects.toThrow("this client has ended by a fault: RangeError: a defect");
    await settle();
    expect(client.status).toBe("closed");
    expect(broker.clock.timers).toBe(0);
    await expect(client.ping()).rejects.toBeInstanceOf(ClosedError);
  });

  test("that fails by one also at the Goodbye ends all the same", async () => {
    const broker = new FakeBroker();
    const client = await broker.client();
    broker.handlers.Goodbye = broker.handlers.Ping = () => {
      throw new RangeError("a defect");
    };
    await expect(client.ping()).rejects.toThrow("this client has ended by a fault");
    await settle();
    expect(client.status).toBe("closed");
    expect(broker.isClosed).toBe(true);
    expect(broker.clock.timers).toBe(0);
  });
});

test("a day passes with a Ping every ten seconds, and leaves nothing behind", async () => {
  const broker = new FakeBroker();
  broker.heartbeatMs = 10_000;
  const client = await broker.client();
  await broker.clock.advance(86_400);
  const pings = broker.of("Ping").length;
  expect(pings).toBeGreaterThan(8_600);
  expect(pings).toBeLessThanOrEqual(8_640);
  expect(broker.of("Hello")).toHaveLength(1);
  expect(new Set(broker.asked.map((one) => one.id)).size).toBe(broker.asked.length);
  expect(client.status).toBe("ready");
  expect(client.errors.latest("Info")).toEqual([]);
  expect(broker.clock.timers).toBe(1);
  await client.close();
  expect(broker.clock.timers).toBe(0);
});

describe("callbacks", () => {
  test("that throw are reported, and keep no other from being called", async () => {
    const broker = new FakeBroker();
    const client = await broker.client();
    const seen: string[] = [];
    client.on("status", () => {
      throw new RangeError("mine");
    });
    client.on("status", async () => {
      throw new Error("later");
    });
    const end = client.on("status", ({ state }) => seen.push(state));
    client.errors.on(() => {
      throw new Error("even this");
    });
    await broker.event({ type: "lost", reason: "x" });
    await settle();
    expect(seen).toEqual(["reconnecting"]);
    const reported = client.errors.latest().filter((one) => one.about === "callback");
    expect(reported.map((one) => one.error.message)).toEqual(
      expect.arrayContaining(["callback: mine", "callback: later", "callback: even this"]),
    );
    end();
    await broker.clock.advance(1);
    expect(seen).toEqual(["reconnecting"]);
    await client.close();
  });

  test("are of events that there are", async () => {
    const broker = new FakeBroker();
    const client = await broker.client();
    expect(() => client.on("statuss" as "status", () => undefined)).toThrow('did you mean "status"?');
    expect(() => client.on("status", 5 as never)).toThrow("a callback is a function");
    await client.close();
  });
});

describe("heartbeats", () => {
  const status = (health: string) => ({ status: health, uptimeMs: 1 });

  test("are told apart from what they say, and their absence from both", async () => {
    const broker = new FakeBroker();
    const client = await broker.client();
    const seen: string[] = [];
    client.on("heartbeat", ({ status: health }) => seen.push(`beat ${health}`));
    client.on("health", ({ status: health }) => seen.push(`health ${health}`));
    client.on("silence", ({ status: last }) => seen.push(`silence after ${last?.status}`));
    await settle();
    expect(broker.prefixes).toContain("system system.status");
    await broker.publish("system.status", "SystemStatus", status("healthy"), status("warning"), status("warning"));
    await settle();
    expect(seen).toEqual(["beat healthy", "health healthy", "beat warning", "health warning", "beat warning"]);
    expect(client.heartbeat).toMatchObject({ pulse: "alive", status: { status: "warning" } });
    await broker.clock.advance(29);
    expect(client.heartbeat.pulse).toBe("alive");
    await broker.clock.advance(2);
    expect(seen.at(-1)).toBe("silence after warning");
    expect(client.heartbeat.pulse).toBe("silent");
    expect(client.status).toBe("ready"); // the connection is one thing, the heartbeats are another
    await broker.clock.advance(100);
    await broker.publish("system.status", "SystemStatus", status("warning"));
    await settle();
    expect(client.heartbeat.pulse).toBe("alive");
    await broker.clock.advance(31);
    expect(seen.filter((one) => one.startsWith("silence"))).toHaveLength(2);
    await client.close();
    expect(broker.clock.timers).toBe(0);
  });
});
