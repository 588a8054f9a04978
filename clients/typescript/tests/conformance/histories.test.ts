/**
 * The TypeScript core replays histories of the Python core: the same events and times in, the same effects out.
 *
 * The fixtures are written by `python -m support.client.make_histories`, and a test in Python fails when they are stale.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { backoff } from "../../src/core/backoff.js";
import { MAX_BATCH_BYTES, MAX_BATCH_MESSAGES } from "../../src/core/batches.js";
import { CIRCUIT, CircuitBreaker, type CircuitEvent, type CircuitState } from "../../src/core/circuit-breaker.js";
import { decodeMessage } from "../../src/core/codec.js";
import { CONNECTION, type ConnectionEvent, type ConnectionState } from "../../src/core/connection-state.js";
import type { Delivery, Purpose, SessionEffect, SubscriptionEffect, TopicRepair } from "../../src/core/effects.js";
import { MAX_ERRORS } from "../../src/core/error-log.js";
import { BacktestrError, errorFromData, StateConflict } from "../../src/core/errors.js";
import { MAX_WAITING } from "../../src/core/exchange.js";
import { Handshakes, MAX_FAILURES } from "../../src/core/handshakes.js";
import { unpack } from "../../src/core/msgpack-decoder.js";
import { PositionOrder } from "../../src/core/position-order.js";
import { DEFAULT_RECOVERY, type Recovery } from "../../src/core/recovery.js";
import { ABSENT_VALUE, type Committed, Replica, type VersionedValue } from "../../src/core/replica.js";
import { DEFAULT_RESOLVERS, resolverFor } from "../../src/core/resolvers.js";
import { HELLO_TIMEOUT, MAX_RESENDS, REPLAY_WINDOW, requestPayload, Session } from "../../src/core/session.js";
import { QUIET, type Since, Subscriptions } from "../../src/core/subscriptions.js";
import { MAX_AHEAD, MAX_INCONCLUSIVE } from "../../src/core/topic-stream.js";
import { classOf, socketsFor } from "../../src/core/topics.js";
import type { HandshakeOutcome } from "../../src/core/transport.js";
import { type Filters, updateFilter } from "../../src/core/update-filter.js";
import type { ErrorData, PositionUpdate, StateEntry } from "../../src/generated/contracts.js";
import { MAX_UNREAD } from "../../src/mailbox.js";
import { answer, published, RIGHT, WALL_MS, WRONG } from "../support/signing.js";

// biome-ignore lint/suspicious/noExplicitAny: fixtures are plain JSON of many forms
type Json = any;

function fixture(name: string): Json {
  return JSON.parse(readFileSync(join(import.meta.dirname, "fixtures", `${name}.json`), "utf8"));
}

function errorJson(error: BacktestrError, withDetails = true): Json {
  return { name: error.name, code: error.code, details: withDetails ? error.details : null };
}

const noDecompression = (): never => {
  throw new Error("no history has compressed batches");
};

describe("sessions", () => {
  test.each((fixture("sessions") as Json[]).map((history, index) => [index, history] as const))(
    "history %i",
    (_, { policy, clientId, nonce, steps }) => {
      const session = new Session(clientId, nonce, policy as Recovery, "history");
      for (const [index, step] of (steps as Json[]).entries()) {
        const effects = sessionStep(session, step).map(sessionEffect);
        const where = `step ${index}: ${step.event}`;
        expect(effects, where).toEqual(step.effects);
        const deadline = session.nextDeadline;
        const { counters } = session;
        expect(
          {
            state: session.state,
            waiting: session.waiting,
            queued: session.queued,
            deadline: Number.isFinite(deadline) ? deadline : null,
            sessions: counters.sessions,
            resent: counters.resent,
            dropped: counters.dropped,
          },
          where,
        ).toEqual(step.after);
        expect(session.violation(), where).toBeNull();
      }
    },
  );
});

function sessionStep(session: Session, step: Json): SessionEffect[] {
  const { now } = step;
  const wall = WALL_MS + Math.floor(now * 1000);
  switch (step.event) {
    case "connected":
      return session.connected(RIGHT, now, wall);
    case "disconnected":
      session.disconnected();
      return [];
    case "denied":
      return session.denied(errorFromData(step.error as ErrorData));
    case "farewell":
      return session.farewell(now, wall);
    case "tick":
      return session.tick(now, wall);
    case "frames":
      return session.receive(
        (step.frames as string[]).map((one) => Buffer.from(one, "hex")),
        now,
        wall,
        0,
      );
    case "answer": {
      const { type, data, correlationId, isForged } = step.answer;
      return session.receive(answer(correlationId, type, data, isForged ? WRONG : RIGHT), now, wall, step.chance);
    }
    case "request": {
      const payload = requestPayload(step.type, step.data);
      const [requestId, effects] = session.request(step.type, payload, now, wall, step.timeout, step.isOwn);
      expect(requestId).toBe(step.requestId);
      return effects;
    }
    default:
      throw new Error(`no event ${step.event}`);
  }
}

function sessionEffect(effect: SessionEffect): Json {
  switch (effect.kind) {
    case "send": {
      const { id, timestamp, payload, sessionId, counter } = decodeMessage(RIGHT, "req", effect.frames).envelope;
      return { kind: "send", id, timestamp, payload, sessionId: sessionId ?? null, counter: counter ?? null };
    }
    case "welcomed":
      return { kind: "welcomed", sessionId: effect.welcome.sessionId };
    case "answered":
      return { kind: "answered", requestId: effect.requestId, data: effect.data };
    case "failed":
      return { kind: "failed", requestId: effect.requestId, error: errorJson(effect.error) };
    case "refused":
    case "keyRefused":
      return { kind: effect.kind, error: errorJson(effect.error) };
    case "reconnect":
      return { kind: "reconnect", reason: effect.reason };
    case "unattributed":
      return { kind: "unattributed", error: errorJson(effect.error, false) };
  }
}

describe("subscriptions", () => {
  test.each((fixture("subscriptions") as Json[]).map((history, index) => [index, history] as const))(
    "history %i",
    (_, { steps }) => {
      const subscriptions = new Subscriptions(noDecompression);
      for (const [index, step] of (steps as Json[]).entries()) {
        const effects = streamStep(subscriptions, step).map(streamEffect);
        const where = `step ${index}: ${step.event}`;
        expect(effects, where).toEqual(step.effects);
        const { counters } = subscriptions;
        expect(
          {
            prefixes: [...subscriptions.prefixes].sort(),
            gapsSeen: counters.gapsSeen,
            gapsRepaired: counters.gapsRepaired,
            gapsLost: counters.gapsLost,
            gapsLeft: counters.gapsLeft,
            messagesLost: counters.messagesLost,
            duplicatesDropped: counters.duplicatesDropped,
            watermarksBehind: counters.watermarksBehind,
          },
          where,
        ).toEqual(step.after);
        expect(subscriptions.violation(), where).toBeNull();
      }
    },
  );
});

function streamStep(subscriptions: Subscriptions, step: Json): SubscriptionEffect[] {
  switch (step.event) {
    case "open":
      return subscriptions.open(step.id, {
        prefix: step.prefix,
        since: step.since as Since,
        space: step.space,
        until: step.until ?? undefined,
        firstSeq: step.firstSeq,
      });
    case "close":
      return subscriptions.close(step.id);
    case "follow":
      return subscriptions.follow(step.backtestId, step.isNew);
    case "started":
      return subscriptions.started(step.backtestId);
    case "taken":
      return subscriptions.taken(step.id, step.count);
    case "connected":
      return subscriptions.connected(RIGHT, step.instanceId);
    case "frames":
      return subscriptions.receive((step.frames as string[]).map((one) => Buffer.from(one, "hex")));
    case "message": {
      const { topic, seq, instanceId, payload, isForged } = step;
      const signer = isForged ? WRONG : RIGHT;
      return subscriptions.receive(published(topic, seq, payload.type, payload.data, instanceId, signer));
    }
    case "waited":
      return subscriptions.waited(step.purpose as TopicRepair);
    case "answered":
      return subscriptions.answered(step.purpose as Purpose, step.data);
    case "failed":
      return subscriptions.failed(step.purpose as Purpose, errorFromData(step.error as ErrorData));
    default:
      throw new Error(`no event ${step.event}`);
  }
}

function streamEffect(effect: SubscriptionEffect): Json {
  switch (effect.kind) {
    case "deliver":
      return { ...effect, deliveries: effect.deliveries.map(deliveryJson) };
    case "end":
      return { ...effect, error: effect.error === null ? null : errorJson(effect.error) };
    case "finished": {
      const { backtestId, outcome } = effect;
      return {
        kind: "finished",
        backtestId,
        outcome: outcome instanceof BacktestrError ? errorJson(outcome) : outcome.status,
      };
    }
    case "unattributed":
      return { kind: "unattributed", error: errorJson(effect.error, false) };
    default:
      return effect;
  }
}

function deliveryJson(delivery: Delivery): Json {
  if (delivery.kind === "message") return { ...delivery, data: unpack(delivery.data) };
  if (delivery.kind !== "batch") return delivery;
  const { topic, seq, content } = delivery;
  return { kind: "batch", topic, seq, payloads: content.payloads() };
}

const small = fixture("small");

test("waits are as long", () => {
  for (const { policy, attempt, chance, seconds } of small.backoffs) {
    expect(backoff(policy, attempt, chance)).toBe(seconds);
  }
});

test("bounds, times and defaults are the same", () => {
  const { recovery: policy, ...numbers } = small.constants;
  expect({
    MAX_RESENDS,
    REPLAY_WINDOW,
    HELLO_TIMEOUT,
    MAX_AHEAD,
    MAX_INCONCLUSIVE,
    QUIET,
    MAX_BATCH_BYTES,
    MAX_BATCH_MESSAGES,
    MAX_FAILURES,
    MAX_UNREAD,
    MAX_WAITING,
    MAX_ERRORS,
  }).toEqual(numbers);
  expect(DEFAULT_RECOVERY).toEqual(policy);
});

test("the tables of transitions and topics are the same", () => {
  const { circuit, connection, sockets, classes } = small.tables;
  const found = (table: Json): Json[] =>
    Object.entries(table).flatMap(([from, row]) =>
      Object.entries(row as object).map(([event, to]) => [from, event, to]),
    );
  expect(found(CIRCUIT).sort()).toEqual(circuit.sort());
  expect(found(CONNECTION).sort()).toEqual(connection.sort());
  for (const [prefix, expected] of sockets) expect([...socketsFor(prefix)].sort(), prefix).toEqual(expected.sort());
  for (const [topic, expected] of classes) expect(classOf(topic)?.prefix ?? null, topic).toBe(expected);
  const states: [CircuitState, CircuitEvent, ConnectionState, ConnectionEvent] = ["open", "failed", "ready", "lost"];
  expect(CIRCUIT[states[0]][states[1]]).toBe("open");
  expect(CONNECTION[states[2]][states[3]]).toBe("reconnecting");
});

test.each((small.breakers as Json[]).map((one, index) => [index, one] as const))("circuit breaker %i", (_, history) => {
  const breaker = new CircuitBreaker(history.policy as Recovery);
  for (const { event, now, requestId, error, after } of history.steps) {
    if (event === "sent") breaker.sent(requestId, now);
    else if (event === "ended") breaker.ended(requestId, error === null ? null : errorFromData(error), now);
    else if (event === "welcomed") breaker.welcomed();
    const refusal = breaker.refusal(now);
    expect({ state: breaker.state(now), refusal: refusal === null ? null : refusal.details }).toEqual(after);
  }
});

test("handshakes lead to the same verdicts", () => {
  for (const history of small.handshakes) {
    const handshakes = new Handshakes();
    for (const [outcome, ofRequests, verdict] of history) {
      expect(handshakes.ended(outcome as HandshakeOutcome, ofRequests)).toBe(verdict);
    }
  }
});

test("resolvers make the same of two changes", () => {
  for (const { key, mine, theirs, base, value, fields } of small.resolutions) {
    const resolve = (): unknown => resolverFor(key, DEFAULT_RESOLVERS)(mine, theirs, base);
    if (fields === undefined) {
      expect(resolve()).toEqual(value);
      continue;
    }
    try {
      resolve();
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(StateConflict);
      expect((error as StateConflict).details?.fields).toEqual(fields);
    }
  }
});

function versioned({ version, value }: VersionedValue): Json {
  const isThere = value !== ABSENT_VALUE;
  return { version, isThere, value: isThere ? value : null };
}

test.each((small.replicas as Json[]).map((one, index) => [index, one] as const))("replica %i", (_, steps) => {
  const replica = new Replica();
  for (const [index, step] of (steps as Json[]).entries()) {
    const changes = replicaStep(replica, step);
    const visible = Object.fromEntries(replica.visibleKeys().map((key) => [key, replica.visible(key)]));
    const committed = Object.fromEntries(
      Object.keys(step.after.committed).map((key) => [key, versioned(replica.committed(key))]),
    );
    const after = {
      changes: changes.map(({ key, current }) => ({ key, ...versioned(current) })),
      visible,
      committed,
      needsSnapshot: replica.needsSnapshot,
    };
    expect(after, `step ${index}: ${step.event}`).toEqual(step.after);
  }
});

function replicaStep(replica: Replica, step: Json): Committed[] {
  switch (step.event) {
    case "update":
      return replica.receive({ kind: "message", topic: "state.x", seq: 1, type: "StateUpdate", data: step.data });
    case "beginSnapshot":
      replica.beginSnapshot();
      return [];
    case "applySnapshot":
      return replica.applySnapshot(step.reasons, step.entries as StateEntry[], step.watermark);
    case "beginUpdate":
      replica.beginUpdate(step.key, step.value === null ? ABSENT_VALUE : step.value);
      return [];
    case "confirm":
      return replica.confirmUpdate(step.key, step.updateId, step.version);
    case "withdraw":
      replica.withdrawUpdate(step.key, step.updateId);
      return [];
    case "gap":
      return replica.receive({ kind: "gap", topic: "state.x.a", fromSeq: 1, toSeq: 2 });
    case "maybeLost":
      return replica.receive({ kind: "maybeLost", prefix: "x." });
    default:
      return replica.receive({ kind: "restarted", instanceId: "i2" });
  }
}

test("positions that are read again are told from new ones", () => {
  for (const history of small.positions) {
    const order = new PositionOrder();
    for (const { update, isNew, restarted } of history) {
      if (restarted) order.restarted();
      else expect(order.isNew(update as PositionUpdate)).toBe(isNew);
    }
  }
});

test("filters pass the same messages", () => {
  for (const { topic, filters, data, passes } of small.filters) {
    const wanted = updateFilter(topic, filters as Filters);
    expect(wanted === null || wanted.passes(data)).toBe(passes);
  }
});
