/** The session, the exchange and the errors of streams, beyond what the histories of the Python core show. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Messages } from "../../src/core/batches.js";
import { CircuitBreaker } from "../../src/core/circuit-breaker.js";
import { decodeMessage } from "../../src/core/codec.js";
import { StreamCounters } from "../../src/core/counters.js";
import type { SessionEffect } from "../../src/core/effects.js";
import { BacktestrError, Busy, NetworkError, NotFound, TimedOut } from "../../src/core/errors.js";
import { Exchange, MAX_WAITING } from "../../src/core/exchange.js";
import { encode, Packed } from "../../src/core/msgpack-encoder.js";
import { DEFAULT_RECOVERY, type Recovery } from "../../src/core/recovery.js";
import { HELLO_TIMEOUT, MAX_RESENDS, requestPayload, Session } from "../../src/core/session.js";
import { StreamErrors } from "../../src/core/stream-errors.js";
import { readBatch, readMessage } from "../../src/core/updates.js";
import { answer, failure, RIGHT, WALL_MS, WRONG } from "../support/signing.js";

const WELCOME = {
  sessionId: "s1",
  instanceId: "i1",
  protocolVersion: 1,
  serverVersion: "1",
  heartbeatIntervalMs: 1_000,
  sessionTimeoutMs: 30_000,
  maxMessageBytes: 1 << 24,
  topics: [],
};
const PING = requestPayload("Ping", {});

function sent(effects: readonly SessionEffect[], signer = RIGHT as typeof RIGHT | null) {
  return effects.flatMap((one) => {
    if (one.kind !== "send") return [];
    const { id, payload, sessionId, counter } = decodeMessage(signer, "req", one.frames).envelope;
    return [{ id, type: payload.type, sessionId, counter }];
  });
}

function ready(policy: Partial<Recovery> = {}, welcome: object = WELCOME): Session {
  const session = new Session("c", "n", { ...DEFAULT_RECOVERY, ...policy });
  const [hello] = sent(session.connected(RIGHT, 0, WALL_MS));
  session.receive(answer(hello?.id ?? "", "Success", welcome), 0, WALL_MS, 0);
  expect(session.state).toBe("ready");
  return session;
}

describe("a session", () => {
  test("counts, correlates and gives attachments", () => {
    const session = ready();
    const [first, one] = session.request("Ping", PING, 0, WALL_MS, 5);
    const [second, two] = session.request("Ping", PING, 0, WALL_MS, 5);
    expect(sent([...one, ...two])).toEqual([
      { id: first, type: "Ping", sessionId: "s1", counter: 1 },
      { id: second, type: "Ping", sessionId: "s1", counter: 2 },
    ]);
    const table = new Uint8Array([1, 2]);
    expect(session.receive(answer(second, "Success", { timestamp: 5 }, RIGHT, [table]), 0, WALL_MS, 0)).toEqual([
      { kind: "answered", requestId: second, data: { timestamp: 5 }, attachments: [table] },
    ]);
    expect(session.waiting).toBe(1);
    expect(session.receive(answer(second, "Success", {}), 0, WALL_MS, 0)).toEqual([]);
  });

  test("behind a tunnel neither signs nor verifies", () => {
    const session = new Session("c", "n");
    const [hello] = sent(session.connected(null, 0, WALL_MS), null);
    const [welcomed] = session.receive(answer(hello?.id ?? "", "Success", WELCOME, null), 0, WALL_MS, 0);
    expect(welcomed?.kind).toBe("welcomed");
    expect(sent(session.request("Ping", PING, 0, WALL_MS, 5)[1], null)).toHaveLength(1);
  });

  test("takes nothing while it is not connected, and says no farewell", () => {
    const session = new Session("c", "n");
    expect(session.receive(answer("n-1", "Success", WELCOME), 0, WALL_MS, 0)).toEqual([]);
    expect(session.farewell(0, WALL_MS)).toEqual([]);
    expect(session.nextDeadline).toBe(Number.POSITIVE_INFINITY);
    expect(session.welcome).toBeNull();
  });

  test("ends at once with a Goodbye", () => {
    const session = ready();
    expect(sent(session.farewell(1, WALL_MS)).map((one) => one.type)).toEqual(["Goodbye"]);
    expect(session.state).toBe("disconnected");
  });

  test("waits with its Hello for a busy broker, and tries again on another connection", () => {
    const session = new Session("c", "n");
    const [hello] = sent(session.connected(RIGHT, 0, WALL_MS));
    const busy = answer(hello?.id ?? "", "Failure", failure("BUSY", { retryAfterMs: 2000 }, ["wait"]));
    expect(session.receive(busy, 0, WALL_MS, 0)).toEqual([]);
    expect(session.tick(1.9, WALL_MS)).toEqual([]);
    expect(session.tick(2, WALL_MS)).toEqual([{ kind: "reconnect", reason: "the broker did not take the Hello" }]);
    expect(HELLO_TIMEOUT).toBe(5);
  });

  test.each([
    ["no Welcome", { sessionId: 5 }],
    ["numbers that are missing", { ...WELCOME, maxMessageBytes: "many" }],
    ["no map", [1]],
  ])("does not believe %s", (_, welcome) => {
    const session = new Session("c", "n");
    const [hello] = sent(session.connected(RIGHT, 0, WALL_MS));
    const [effect] = session.receive(answer(hello?.id ?? "", "Success", welcome), 0, WALL_MS, 0);
    expect(effect?.kind).toBe("unattributed");
    expect(session.state).toBe("greeting");
  });

  test("reports what belongs to no request", () => {
    const session = ready();
    const kinds = [
      answer(null, "Success", {}),
      answer(null, "Error", failure("BUSY")),
      answer("n-1", "Odd", {}),
      answer("n-1", "Failure", { code: 1 }),
      answer("n-1", "Success", {}, WRONG),
    ].map((frames) => session.receive(frames, 0, WALL_MS, 0).map((one) => one.kind));
    expect(kinds).toEqual([["unattributed"], ["unattributed"], ["unattributed"], ["unattributed"], ["unattributed"]]);
  });

  test("pings when it is silent, and makes another connection when that is not answered", () => {
    const session = ready();
    const [ping] = sent(session.tick(1, WALL_MS));
    expect(ping?.type).toBe("Ping");
    expect(session.receive(answer(ping?.id ?? "", "Success", { timestamp: 1 }), 1.5, WALL_MS, 0)).toEqual([]);
    expect(sent(session.tick(2, WALL_MS)).map((one) => one.type)).toEqual(["Ping"]);
    expect(session.tick(33, WALL_MS)).toEqual([{ kind: "reconnect", reason: "no answer to Ping within 30 s" }]);
    session.disconnected();
    expect(session.waiting).toBe(0);
  });

  test("resends under the same id after silence, ever more seldom, within the policy", () => {
    const session = ready({ resendAfterMs: 1_000, maxAttempts: 3 }, { ...WELCOME, heartbeatIntervalMs: 60_000 });
    const [id] = session.request("Ping", PING, 0, WALL_MS, 20);
    const times: number[] = [];
    for (let now = 0; now < 20; now += 0.5) {
      for (const one of sent(session.tick(now, WALL_MS))) {
        expect(one.id).toBe(id);
        times.push(now);
      }
    }
    expect(times).toEqual([1, 3]);
    const [late] = session.tick(20, WALL_MS);
    expect(late).toMatchObject({ kind: "failed", requestId: id });
    expect(late?.kind === "failed" && late.error).toBeInstanceOf(TimedOut);
  });

  test("gives up on a broker that never accepts the session", () => {
    const session = ready();
    const [id] = session.request("Ping", PING, 0, WALL_MS, 60);
    let rounds = 0;
    let failed: SessionEffect | undefined;
    while (failed === undefined && rounds < 20) {
      rounds += 1;
      const effects = session.receive(
        answer(id, "Failure", failure("SESSION_UNKNOWN", null, ["hello"])),
        0,
        WALL_MS,
        0,
      );
      failed = effects.find((one) => one.kind === "failed");
      const [hello] = sent(effects);
      if (hello !== undefined) session.receive(answer(hello.id, "Success", WELCOME), 0, WALL_MS, 0);
    }
    expect(rounds).toBe(MAX_RESENDS + 1);
  });

  test("waits for the answer to a message of which somebody has sent a copy", () => {
    const session = ready();
    const [id, [send]] = session.request("Ping", PING, 0, WALL_MS, 60);
    expect(send?.kind).toBe("send");
    const replayed = (counter: unknown, highest: unknown): Uint8Array[] =>
      answer(id, "Failure", failure("REPLAY_DETECTED", { counter, highest }, ["resend"]));
    for (const highest of [1, 2, 1024]) expect(session.receive(replayed(1, highest), 0, WALL_MS, 0)).toEqual([]);
    expect(session.waiting).toBe(1);
    // One that the broker has never taken, since it came too late, is sent again; so is one of which nothing is said.
    for (const [counter, highest] of [
      [1, 1025],
      [2, 1],
      ["1", 2],
      [1, null],
    ]) {
      expect(sent(session.receive(replayed(counter, highest), 0, WALL_MS, 0)).map((one) => one.id)).toEqual([id]);
    }
    expect(session.receive(answer(id, "Success", {}), 0, WALL_MS, 0)[0]?.kind).toBe("answered");
  });

  test("resends what another session has not known without another Hello", () => {
    const session = ready();
    const [id] = session.request("Ping", PING, 0, WALL_MS, 60);
    session.disconnected();
    const [hello] = sent(session.connected(RIGHT, 1, WALL_MS));
    const welcomed = session.receive(
      answer(hello?.id ?? "", "Success", { ...WELCOME, sessionId: "s2" }),
      1,
      WALL_MS,
      0,
    );
    expect(sent(welcomed)).toEqual([{ id, type: "Ping", sessionId: "s2", counter: 1 }]);
    // The answer to the sending in the first session comes late, while the second one greets.
    const [other] = session.request("Ping", PING, 1, WALL_MS, 60);
    session.receive(answer(other, "Failure", failure("SESSION_UNKNOWN", null, ["hello"])), 1, WALL_MS, 0);
    expect(session.state).toBe("greeting");
    expect(session.receive(answer(id, "Failure", failure("SESSION_UNKNOWN", null, ["hello"])), 1, WALL_MS, 0)).toEqual(
      [],
    );
    expect(session.receive(answer(id, "Failure", failure("REPLAY_DETECTED", null, ["resend"])), 1, WALL_MS, 0)).toEqual(
      [],
    );
    expect(session.waiting).toBe(2);
  });

  test("does nothing by itself where the policy forbids it", () => {
    const session = ready({ automatic: false });
    const [id] = session.request("Ping", PING, 0, WALL_MS, 60);
    const [effect] = session.receive(answer(id, "Failure", failure("BUSY", null, ["wait"])), 0, WALL_MS, 0);
    expect(effect).toMatchObject({ kind: "failed" });
    const [other] = session.request("Ping", PING, 0, WALL_MS, 60);
    const unknown = session.receive(
      answer(other, "Failure", failure("SESSION_UNKNOWN", null, ["hello"])),
      0,
      WALL_MS,
      0,
    );
    expect(unknown.map((one) => one.kind)).toEqual(["send", "failed"]);
  });

  test("fails a request whose wait would end after its deadline", () => {
    const session = ready();
    const [id] = session.request("Ping", PING, 0, WALL_MS, 1);
    const busy = answer(id, "Failure", failure("BUSY", { retryAfterMs: 2000 }, ["wait"]));
    expect(session.receive(busy, 0, WALL_MS, 0)[0]).toMatchObject({ kind: "failed" });
  });

  test("says why a request had no answer", () => {
    const session = new Session("c", "n");
    session.request("Ping", PING, 0, WALL_MS, 1);
    const [never] = session.tick(1, WALL_MS);
    expect(never?.kind === "failed" && never.error).toBeInstanceOf(NetworkError);
    expect(never?.kind === "failed" && never.error.message).toContain("it was never sent");
    expect(session.counters.dropped).toBe(1);
    const [hello] = sent(session.connected(RIGHT, 2, WALL_MS));
    session.request("Ping", PING, 2, WALL_MS, 1);
    expect(session.receive(answer(hello?.id ?? "", "Success", WELCOME, WRONG), 2, WALL_MS, 0)[0]?.kind).toBe(
      "keyRefused",
    );
    const [refused] = session.tick(3, WALL_MS);
    expect(refused?.kind === "failed" && refused.error.code).toBe("AUTHENTICATION_ERROR");
    const other = ready();
    other.request("Ping", PING, 0, WALL_MS, 1);
    other.disconnected();
    const [lost] = other.tick(1, WALL_MS);
    expect(lost?.kind === "failed" && lost.error.message).toContain("may have been executed");
  });

  test("keeps its laws whatever comes", () => {
    const events = fc.constantFrom("connect", "lose", "ask", "own", "answer", "fail", "tick", "deny");
    fc.assert(
      fc.property(fc.array(fc.tuple(events, fc.integer({ min: 0, max: 8 })), { maxLength: 60 }), (script) => {
        const session = new Session("c", "n", { ...DEFAULT_RECOVERY, offlineQueue: 3 });
        const open = new Map<string, string>();
        const asked = new Set<string>();
        const ended: string[] = [];
        let now = 0;
        const take = (effects: readonly SessionEffect[]): void => {
          for (const one of sent(effects)) open.set(one.id, one.type);
          for (const one of effects) {
            if (one.kind === "answered" || one.kind === "failed") ended.push(one.requestId);
          }
          expect(session.violation()).toBeNull();
        };
        for (const [event, number] of script) {
          now += number / 4;
          const ids = [...open.keys()];
          const id = ids[number % Math.max(1, ids.length)] ?? "n-0";
          if (event === "connect") take(session.connected(RIGHT, now, WALL_MS));
          else if (event === "lose") session.disconnected();
          else if (event === "deny" && session.state !== "disconnected") take(session.denied(new NotFound("x")));
          else if (event === "tick") take(session.tick(now, WALL_MS));
          else if (event === "ask" || event === "own") {
            const [requestId, effects] = session.request("Ping", PING, now, WALL_MS, 10, event === "own");
            asked.add(requestId);
            take(effects);
          } else if (event === "answer") {
            take(session.receive(answer(id, "Success", open.get(id) === "Hello" ? WELCOME : {}), now, WALL_MS, 0.5));
          } else if (event === "fail") {
            const codes = [
              ["BUSY", "wait"],
              ["SESSION_UNKNOWN", "hello"],
              ["SYSTEM_ERROR", "retry"],
              ["NOT_FOUND", ""],
            ];
            const [code = "", action = ""] = codes[number % codes.length] ?? [];
            take(session.receive(answer(id, "Failure", failure(code, null, [action])), now, WALL_MS, 0.5));
          }
        }
        for (const end = now + 200; now < end; now += 1) take(session.tick(now, WALL_MS));
        // Each request has one end, and none has two.
        expect(new Set(ended).size).toBe(ended.length);
        for (const one of asked) expect(ended).toContain(one);
      }),
    );
  });
});

describe("the exchange", () => {
  function exchange(policy: Partial<Recovery> = {}) {
    const recovery = { ...DEFAULT_RECOVERY, ...policy };
    const session = ready(policy);
    const reported: string[] = [];
    const made = new Exchange(session, new CircuitBreaker(recovery), (error, about) =>
      reported.push(`${about} ${error.code}`),
    );
    const ended: unknown[] = [];
    const caller = {
      requestType: "Ping",
      succeed: (data: unknown) => ended.push(data),
      fail: (error: Error) => ended.push(error),
    };
    const ask = (): string => {
      const effects = made.ask("Ping", PING, 5, caller, 0, WALL_MS);
      return sent(effects)[0]?.id ?? "";
    };
    return { made, session, reported, ended, caller, ask };
  }

  test("gives each answer to whoever asked", () => {
    const { made, ended, ask, reported } = exchange();
    const [first, second] = [ask(), ask()];
    expect(made.answered(second, "two", [], 0)).toBeNull();
    expect(made.failed(first, new NotFound("none"), 0)).toBeNull();
    expect(ended).toEqual(["two", expect.any(NotFound)]);
    expect(reported).toEqual(["Ping NOT_FOUND"]);
    expect(made.answered(first, "again", [], 0)).toBeNull();
    expect(made.failed(first, new NotFound("again"), 0)).toBeNull();
    expect(made.counters).toMatchObject({ requests: 2, answered: 1, failed: 1, waiting: 0 });
  });

  test("gives the purpose of a request of the client itself back", () => {
    const { made } = exchange();
    const purpose = { kind: "status", backtestId: "b" } as const;
    const [one] = sent(made.ask("Ping", PING, 5, purpose, 0, WALL_MS));
    expect(made.answered(one?.id ?? "", {}, [], 0)).toBe(purpose);
    const [other] = sent(made.ask("Ping", PING, 5, purpose, 0, WALL_MS));
    expect(made.failed(other?.id ?? "", new NotFound("x"), 0)).toBe(purpose);
    expect(made.counters.requests).toBe(0);
  });

  test("refuses while the circuit is open, and beyond its bound", () => {
    const { made, ended, ask, caller } = exchange({ breakerFailures: 1 });
    made.failed(ask(), new TimedOut("late"), 0);
    expect(made.ask("Ping", PING, 5, caller, 0, WALL_MS)).toEqual([]);
    expect(ended.at(-1)).toMatchObject({ name: "CircuitOpen" });
    const many = exchange();
    for (let count = 0; count < MAX_WAITING; count += 1) many.ask();
    expect(many.ask()).toBe("");
    expect(many.ended).toEqual([expect.any(Busy)]);
    expect(many.made.counters.refused).toBe(1);
  });

  test("fails everything that waits when the client ends", () => {
    const { made, ended, ask } = exchange();
    ask();
    made.ask("Ping", PING, 5, { kind: "status", backtestId: "b" }, 0, WALL_MS);
    made.abandon(new Error("closed"));
    expect(ended).toEqual([expect.any(Error)]);
    expect(made.counters.waiting).toBe(0);
  });
});

describe("the errors of streams", () => {
  const message = (seq: number, data: unknown) =>
    ({ kind: "message", topic: "system.errors", seq, type: "Error", data: new Packed(encode(data)) }) as const;

  test("are the losses and the repairs", () => {
    const found = new StreamErrors();
    const counters = new StreamCounters();
    const gap = { kind: "gap", topic: "orders.b", fromSeq: 2, toSeq: 4 } as const;
    expect(found.find(1, [gap], counters)).toEqual([]); // was told before
    counters.messagesLost = 3;
    counters.gapsRepaired = 2;
    const batch = { kind: "batch", topic: "orders.b", seq: 5, content: new Messages(1, 1, []) } as const;
    const errors = found.find(1, [gap, batch], counters);
    expect(errors.map(({ error, topic }) => [error.name, topic])).toEqual([
      ["Recovered", "orders.b"],
      ["MessagesLost", "orders.b"],
    ]);
    expect(errors[1]?.error.details).toEqual({ topic: "orders.b", fromSeq: 2, toSeq: 4 });
    counters.gapsRepaired = 3;
    expect(found.find(1, [gap], counters)[0]?.topic).toBe("streams");
  });

  test("are those of the broker, each once, while the program reads them", () => {
    const found = new StreamErrors();
    const counters = new StreamCounters();
    const data = failure("SYSTEM_ERROR");
    expect(found.find(1, [message(1, data)], counters)).toEqual([]);
    found.subscribed(1, "system.errors");
    found.subscribed(2, "system.");
    found.subscribed(3, "orders.");
    expect(found.find(1, [message(1, data)], counters)[0]?.error.code).toBe("SYSTEM_ERROR");
    expect(found.find(2, [message(1, data)], counters)).toEqual([]);
    expect(found.find(2, [message(2, { code: 5 })], counters)[0]?.error.code).toBe("VALIDATION_ERROR");
    expect(found.find(3, [message(3, data)], counters)).toEqual([]);
    found.restarted();
    expect(found.find(1, [message(1, data)], counters)).toHaveLength(1);
    found.unsubscribed(1);
    expect(found.find(1, [message(2, data)], counters)).toEqual([]);
  });

  test("are no defects of this client", () => {
    const found = new StreamErrors();
    found.subscribed(1, "system.errors");
    const data = new Proxy(
      {},
      {
        getPrototypeOf: () => {
          throw new RangeError("mine");
        },
      },
    );
    const odd = { kind: "message", topic: "system.errors", seq: 1, type: "Error", data } as const;
    expect(() => found.find(1, [odd], new StreamCounters())).toThrow("mine");
  });
});

test("updates are read when they are wanted", () => {
  const data = new Packed(encode({ n: 1 }));
  expect(readMessage({ kind: "message", topic: "t", seq: 3, type: "Number", data })).toEqual({
    kind: "update",
    topic: "t",
    seq: 3,
    type: "Number",
    data: { n: 1 },
  });
  const content = new Messages(1, 9, [
    { type: "Number", data: 1 },
    { type: "Number", data: 2 },
  ]);
  expect(readBatch({ kind: "batch", topic: "t", seq: 5, content })).toEqual([
    { kind: "update", topic: "t", seq: 5, type: "Number", data: 2 },
  ]);
  expect(new BacktestrError("x").code).toBe("SYSTEM_ERROR");
});
