/** The small machines and checks of the core, beyond what the histories of the Python core show. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { backoff } from "../../src/core/backoff.js";
import { CircuitBreaker, isFailure } from "../../src/core/circuit-breaker.js";
import { isMap, shown } from "../../src/core/codec.js";
import { ErrorLog, type ErrorReport, MAX_ERRORS } from "../../src/core/error-log.js";
import {
  Busy,
  NetworkError,
  NotFound,
  type NotFound as NotFoundType,
  OfflineQueueFull,
  Recovered,
  StateConflict,
  SystemFault,
  TimedOut,
} from "../../src/core/errors.js";
import { HandedOut, UNCONFIRMED } from "../../src/core/handed-out.js";
import { lockedOut } from "../../src/core/handshakes.js";
import { Heartbeat, SILENCE } from "../../src/core/heartbeat.js";
import { Extension } from "../../src/core/msgpack-encoder.js";
import { didYouMean } from "../../src/core/near-miss.js";
import { DEFAULT_RECOVERY, type Recovery, recovery } from "../../src/core/recovery.js";
import { ABSENT_VALUE, Replica } from "../../src/core/replica.js";
import { checkRequest } from "../../src/core/request-check.js";
import { DEFAULT_RESOLVERS, lastWriter, laterUpdate, mergeFields, resolverFor } from "../../src/core/resolvers.js";
import { checkedPrefix } from "../../src/core/topics.js";
import { narrowed, updateFilter } from "../../src/core/update-filter.js";
import { frozen, sameValue } from "../../src/core/values.js";
import type { SystemStatus } from "../../src/generated/contracts.js";

test("a wait grows up to its bound, and jitter adds to it", () => {
  fc.assert(
    fc.property(
      fc.constantFrom("fixed", "linear", "exponential"),
      fc.integer({ min: 1, max: 5000 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (kind, attempt, chance) => {
        const policy = { ...DEFAULT_RECOVERY, backoff: kind as Recovery["backoff"] };
        const wait = backoff(policy, attempt, chance);
        expect(wait).toBeGreaterThanOrEqual(0.1);
        expect(wait).toBeLessThanOrEqual(5);
        expect(backoff(policy, attempt + 1, chance)).toBeGreaterThanOrEqual(wait);
        expect(backoff(policy, attempt, 1)).toBeGreaterThanOrEqual(wait);
      },
    ),
  );
});

describe("a policy", () => {
  test("has defaults for what is left out", () => {
    expect(recovery()).toEqual(DEFAULT_RECOVERY);
    expect(recovery({ jitterMs: 0, resendAfterMs: null })).toEqual({
      ...DEFAULT_RECOVERY,
      jitterMs: 0,
      resendAfterMs: null,
    });
  });

  test.each<[object, string]>([
    [{ backof: "fixed" }, 'unknown field backof; did you mean "backoff"?'],
    [{ backoff: "slow" }, "expected one of fixed, linear, exponential; slow came"],
    [{ baseDelayMs: 0 }, "recovery.baseDelayMs: expected a number above 0; 0 came"],
    [{ maxDelayMs: Number.NaN }, "recovery.maxDelayMs"],
    [{ baseDelayMs: "1" }, "recovery.baseDelayMs: expected a number above 0; 1 came"],
    [{ jitterMs: -1 }, "recovery.jitterMs: expected a number 0 or more"],
    [{ resendAfterMs: 0 }, "recovery.resendAfterMs: expected a number above 0, or null"],
    [{ baseDelayMs: 10, maxDelayMs: 5 }, "recovery.baseDelayMs: 10 is above maxDelayMs, 5"],
    [{ maxAttempts: 0 }, "recovery.maxAttempts: expected a number 1 or more"],
    [{ breakerFailures: Infinity }, "recovery.breakerFailures"],
    [{ offlineQueue: -1 }, "recovery.offlineQueue"],
    [{ automatic: "yes" }, "recovery.automatic: expected true or false"],
  ])("%o is refused", (given, text) => {
    expect(() => recovery(given)).toThrow(text);
  });
});

test("the circuit opens after failures in a row, and says when it tries again", () => {
  const breaker = new CircuitBreaker({ ...DEFAULT_RECOVERY, breakerFailures: 2, breakerResetMs: 10_000 });
  breaker.ended("1", new TimedOut("late"), 0);
  expect(breaker.refusal(0)).toBeNull();
  breaker.ended("x", new OfflineQueueFull("full"), 0); // it was not tried
  expect(breaker.refusal(0)).toBeNull();
  breaker.ended("2", new TimedOut("late again"), 1);
  expect(breaker.refusal(2)?.message).toContain("the latest with: late again; the next is tried in 9 s");
  expect(breaker.refusal(11)).toBeNull();
  breaker.sent("3", 11);
  expect(breaker.refusal(11)?.message).toContain("one is being tried");
  breaker.ended("4", new NotFound("a working broker"), 12);
  expect(breaker.state(12)).toBe("closed");
  expect(isFailure(null)).toBe(false);
  const data = {
    code: "SYSTEM_ERROR",
    message: "",
    details: null,
    severity: "Error",
    component: "",
    timestamp: 0,
  } as const;
  const full = new SystemFault("disk").stated({ ...data, recoveryActions: [] });
  expect(isFailure(full)).toBe(false); // a person must act
});

describe("the log of errors", () => {
  test("keeps the latest, and recoveries apart", () => {
    const log = new ErrorLog(true);
    for (let number = 0; number < MAX_ERRORS + 20; number += 1) {
      log.add(new NotFound(`${number}`), "Ping", number);
      log.add(new Recovered(`${number}`), "connection", number);
    }
    expect(log.count).toBe(MAX_ERRORS + 20);
    expect(log.latest()).toHaveLength(MAX_ERRORS);
    expect(log.latest()[0]?.error.message).toBe("20");
    expect(log.latest("Info")).toHaveLength(2 * MAX_ERRORS);
    expect(log.latest("Info").map((one) => one.timestamp)).toEqual(
      log
        .latest("Info")
        .map((one) => one.timestamp)
        .toSorted((a, b) => a - b),
    );
    log.add(new SystemFault("bad"), "Ping", 1);
    expect(log.latest("Critical").map((one) => one.error.message)).toEqual(["bad"]);
  });

  test("names the callbacks that are to be called, by severity", () => {
    const log = new ErrorLog(true);
    const seen: string[] = [];
    const callback = (name: string) => (report: ErrorReport) => seen.push(`${name} ${report.error.message}`);
    const end = log.addCallback(callback("warnings"));
    log.addCallback(callback("all"), "Info");
    log.addCallback(callback("critical"), "Critical");
    const add = (error: NotFoundType | Recovered | SystemFault): void => {
      const [report, callbacks] = log.add(error, "x", 0);
      for (const one of callbacks) one(report);
    };
    add(new NotFound("n"));
    add(new Recovered("r"));
    end();
    end();
    add(new SystemFault("s"));
    expect(seen).toEqual(["warnings n", "all n", "all r", "all s", "critical s"]);
  });

  test("says what the client does by itself", () => {
    expect(new ErrorLog(true).add(new NetworkError("gone"), "connection", 0)[0].automatic).toEqual(["reconnect"]);
    expect(new ErrorLog(false).add(new NetworkError("gone"), "connection", 0)[0].automatic).toEqual([]);
  });

  test("refuses what is no severity and no function", () => {
    const log = new ErrorLog(true);
    expect(() => log.latest("Warnin" as "Warning")).toThrow('did you mean "Warning"?');
    expect(() => log.addCallback(5 as never)).toThrow("expected a function; 5 came");
  });
});

describe("heartbeats", () => {
  const status = (health: string): SystemStatus => ({ status: health }) as unknown as SystemStatus;

  test("are missing after 30 seconds, whatever they said", () => {
    const heartbeat = new Heartbeat(0);
    expect(heartbeat.pulse).toBe("unknown");
    expect(heartbeat.tick(SILENCE - 0.001)).toBeNull();
    expect(heartbeat.received(status("healthy"), 10)).toMatchObject({ pulse: "alive", isOtherHealth: true });
    expect(heartbeat.received(status("healthy"), 11)).toMatchObject({ isOtherHealth: false });
    expect(heartbeat.received(status("warning"), 12)).toMatchObject({ isOtherHealth: true });
    expect(heartbeat.nextDeadline).toBe(42);
    expect(heartbeat.tick(41.9)).toBeNull();
    expect(heartbeat.tick(42)).toEqual({ pulse: "silent", status: status("warning"), isOtherHealth: false });
    expect(heartbeat.tick(100)).toBeNull();
    expect(heartbeat.nextDeadline).toBe(Number.POSITIVE_INFINITY);
    expect(heartbeat.received(status("warning"), 101)).toMatchObject({ pulse: "alive", isOtherHealth: false });
    expect(heartbeat.status).toEqual(status("warning"));
  });

  test("of a day are counted in time that is an argument", () => {
    const heartbeat = new Heartbeat(0);
    let silences = 0;
    for (let second = 1; second <= 86_400; second += 1) {
      if (second % 3600 > 40) heartbeat.received(status("healthy"), second);
      if (heartbeat.tick(second) !== null) silences += 1;
    }
    expect(silences).toBe(24);
  });
});

test("a near miss is found, and nothing else", () => {
  expect(didYouMean("simbol", ["symbol", "side"])).toBe('; did you mean "symbol"?');
  expect(didYouMean("ORDERS.", ["orders."])).toBe('; did you mean "orders."?');
  expect(didYouMean("xyz", ["symbol"])).toBe("");
  expect(didYouMean("x".repeat(200), ["x".repeat(200)])).toBe("");
  expect(didYouMean("", ["a"])).toBe("");
});

test("a topic is checked", () => {
  for (const topic of ["orders.", "orders.b1", "system.", "system.status", "state.a.b", "prices.A.B.1m", "state."]) {
    expect(checkedPrefix(topic)).toBe(topic);
  }
  expect(() => checkedPrefix("oders.b1")).toThrow(TypeError);
  expect(() => checkedPrefix("order.")).toThrow('"order." is neither a topic nor the beginning of one');
  expect(() => checkedPrefix("orders")).toThrow('did you mean "orders."?');
  expect(() => checkedPrefix(5)).toThrow("a topic is a text; number came");
});

describe("requests are checked", () => {
  test.each<[string, unknown]>([
    ["Ping", {}],
    ["GetState", { key: "k" }],
    ["UpdateState", { key: "k", value: null }],
    ["UpdateState", { key: "k", value: 5, expectedVersion: undefined }],
    ["GetMarketData", { symbol: "S", timeframe: "1m", indicators: [{ name: "SMA", parameters: { n: 1 } }] }],
    ["GetBacktestResults", { backtestId: "b", tables: ["equity"], mapped: true }],
    ["GetState", { key: "k", later: 1 }],
  ])("%s %o passes", (type, data) => {
    expect(() => checkRequest(type, data)).not.toThrow();
  });

  test.each<[unknown, unknown, string]>([
    ["GetMarketDat", {}, 'there is no request "GetMarketDat"; did you mean "GetMarketData"?'],
    [5, {}, "there is no request 5"],
    ["toString", {}, 'there is no request "toString"'],
    ["GetState", null, "GetState: expected a plain object; null came"],
    ["GetState", [1], "GetState: expected a plain object; a list of 1 came"],
    ["GetState", {}, "GetState.key: required, and missing"],
    ["GetState", { kay: "k" }, "GetState.key: required, and missing; kay is no field of it"],
    ["GetState", { key: 5 }, "GetState.key: expected a text; 5 came"],
    ["PinBacktest", { backtestId: "b", pinned: "yes" }, "PinBacktest.pinned: expected true or false"],
    ["GetMarketData", { symbol: "S", timeframe: "1m", limit: "5" }, "GetMarketData.limit: expected a number"],
    ["GetMarketData", { symbol: "S", timeframe: "1m", limit: Number.NaN }, "GetMarketData.limit: expected a number"],
    ["GetMarketData", { symbol: "S", timeframe: "1m", indicators: "SMA" }, "GetMarketData.indicators: expected a list"],
    [
      "GetMarketData",
      { symbol: "S", timeframe: "1m", indicators: [{ name: 5 }] },
      "GetMarketData.indicators[0].name: expected a text",
    ],
    ["PublishPrices", { prices: [{ symbol: "S" }] }, "PublishPrices.prices[0].timestamp: required, and missing"],
    ["EvaluateAlgorithm", { algorithmId: "a", timeframe: "1m", parameters: [] }, "parameters: expected a plain object"],
  ])("%s %o is refused", (type, data, text) => {
    expect(() => checkRequest(type, data)).toThrow(TypeError);
    expect(() => checkRequest(type, data)).toThrow(text);
  });
});

describe("filters", () => {
  test("that ask for nothing are none", () => {
    expect(updateFilter("orders.b", {})).toBeNull();
    expect(updateFilter("orders.b", { symbol: undefined })).toBeNull();
  });

  test.each<[string, object, string]>([
    [
      "prices.",
      { side: "buy" },
      'messages of "prices." cannot be filtered by side; those of these can: orders., positions.',
    ],
    ["orders.b", { colour: "red" }, "those of these can: none"],
    ["system.status", { symbol: "S" }, "cannot be filtered by symbol"],
    ["orders.b", { side: "by" }, 'expected one of buy, sell; "by" came; did you mean "buy"?'],
    ["orders.b", { status: ["filed"] }, 'did you mean "filled"?'],
    ["orders.b", { symbol: [] }, "an empty filter would pass nothing"],
    ["orders.b", { symbol: [5] }, "expected a text or several; 5 came"],
    ["orders.b", { minQuantity: -1 }, "minQuantity: expected a number, 0 or more; -1 came"],
    ["orders.b", { minQuantity: "1" }, "minQuantity: expected a number"],
  ])("%s %o is refused", (topic, filters, text) => {
    expect(() => updateFilter(topic, filters)).toThrow(text);
  });

  test("pass what has no such field, and any of several symbols", () => {
    const wanted = updateFilter("system.backtests", { symbol: ["A", "B"], status: "running" });
    expect(wanted?.passes("text")).toBe(true);
    expect(wanted?.passes({})).toBe(true);
    expect(wanted?.passes({ symbol: "A", status: "running" })).toBe(true);
    expect(wanted?.passes({ symbol: "C", symbols: ["C", "B"], status: "running" })).toBe(true);
    expect(wanted?.passes({ symbol: "C", symbols: ["C"], status: "running" })).toBe(false);
    expect(wanted?.passes({ symbol: "A", status: "queued" })).toBe(false);
  });

  test("narrow the prices of one symbol to its topics", () => {
    expect(narrowed("prices.", updateFilter("prices.", { symbol: "BTC.P" }))).toBe("prices.BTC.P.");
    expect(narrowed("prices.", updateFilter("prices.", { symbol: ["A", "B"] }))).toBe("prices.");
    expect(narrowed("prices.A.1m", updateFilter("prices.A.1m", { symbol: "A" }))).toBe("prices.A.1m");
    expect(narrowed("prices.", null)).toBe("prices.");
  });
});

describe("resolvers", () => {
  const timestamp = (...bytes: number[]): Extension => new Extension(-1, new Uint8Array(bytes));

  test("the longest prefix decides", () => {
    expect(resolverFor("backtest.a", DEFAULT_RESOLVERS)).toBe(laterUpdate);
    expect(resolverFor("algorithm.a", DEFAULT_RESOLVERS)).toBe(mergeFields);
    expect(resolverFor("other", DEFAULT_RESOLVERS)).toBe(lastWriter);
    const own = (): string => "own";
    expect(resolverFor("backtest.mine.a", { ...DEFAULT_RESOLVERS, "backtest.mine.": own })).toBe(own);
    expect(resolverFor("a", {})).toBe(lastWriter);
  });

  test("the later of two timestamps counts, in each of their forms", () => {
    const merge = (mine: unknown, theirs: unknown): unknown =>
      (mergeFields({ lastModified: mine }, { lastModified: theirs }, {}) as { lastModified: unknown }).lastModified;
    const short = timestamp(0, 0, 0, 9);
    const nanoseconds = timestamp(0, 0, 0, 4, 0, 0, 0, 9); // one nanosecond more
    const long = timestamp(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10);
    expect(merge(short, nanoseconds)).toBe(nanoseconds);
    expect(merge(long, nanoseconds)).toBe(long);
    expect(merge("2024-01-01", "2023-01-01")).toBe("2024-01-01");
    expect(merge(5n, 4)).toBe(5n);
    expect(merge(Number.NaN, 4)).toBe(4);
    expect(merge(4, Number.NaN)).toBe(4);
    expect(mergeFields({ a: 1 }, { lastModified: 2 }, { a: 1, lastModified: 1 })).toEqual({ lastModified: 2 });
    for (const [mine, theirs] of [
      [1, "x"],
      [timestamp(1), short],
      [new Extension(2, new Uint8Array(4)), short],
    ]) {
      expect(() => merge(mine, theirs)).toThrow(StateConflict);
    }
  });

  test("a field that both removed, or that was made null, is no conflict of the whole", () => {
    expect(mergeFields(null, null, { a: 1 })).toBeNull();
    expect(mergeFields({ a: null }, { b: 1 }, {})).toEqual({ a: null, b: 1 });
    expect(() => mergeFields(1, 2, 3)).toThrow("the whole value");
  });

  test("changes to different fields are joined, whoever comes first", () => {
    const map = fc.dictionary(fc.constantFrom("a", "b", "c"), fc.integer({ max: 3 }));
    fc.assert(
      fc.property(map, map, (mine, theirs) => {
        expect(mergeFields(mine, mine, theirs)).toEqual(mine);
        expect(mergeFields(mine, theirs, theirs)).toEqual(mine);
        expect(mergeFields(mine, theirs, mine)).toEqual(theirs);
      }),
    );
  });
});

describe("values", () => {
  test("are compared by what they are on the wire", () => {
    const same: [unknown, unknown][] = [
      [Number.NaN, Number.NaN],
      [{ a: [1, { b: null }] }, { a: [1, { b: null }] }],
      [{ a: 1, b: undefined }, { a: 1 }],
      [new Uint8Array([1, 2]), Buffer.from([1, 2])],
      [new Extension(1, new Uint8Array([1])), new Extension(1, new Uint8Array([1]))],
    ];
    for (const [one, other] of same) expect(sameValue(one, other)).toBe(true);
    const different: [unknown, unknown][] = [
      [0, -0],
      [1, true],
      [null, {}],
      [[1], { 0: 1 }],
      [[1, 2], [1]],
      [{ a: 1 }, { b: 1 }],
      [new Uint8Array([1]), new Uint8Array([2])],
      [new Uint8Array([1]), [1]],
      [new Uint8Array([1]), new Uint8Array([1, 2])],
      [new Extension(1, new Uint8Array()), new Extension(2, new Uint8Array())],
      [new Extension(1, new Uint8Array()), { type: 1 }],
    ];
    for (const [one, other] of different) expect(sameValue(one, other)).toBe(false);
  });

  test("are frozen with all that is in them", () => {
    const value = frozen({ a: [{ b: 1 }], c: new Uint8Array(1) }) as { a: { b: number }[] };
    expect(() => {
      (value.a[0] as { b: number }).b = 2;
    }).toThrow(TypeError);
    expect(frozen(value)).toBe(value);
    expect(frozen(5)).toBe(5);
  });
});

describe("what was handed out", () => {
  test("is the base of a change, by key or by version", () => {
    const handedOut = new HandedOut();
    expect(handedOut.base("k")).toBeUndefined();
    handedOut.give("k", { version: 1, value: "a" });
    handedOut.give("k", { version: UNCONFIRMED, value: "b" });
    expect(handedOut.base("k")).toEqual({ version: UNCONFIRMED, value: "b" });
    expect(handedOut.at("k", 1)).toEqual({ version: 1, value: "a" });
    expect(handedOut.at("k", 2).value).toBe(ABSENT_VALUE);
    handedOut.note("k", { version: 1, value: "again" });
    expect(handedOut.at("k", 1).value).toBe("again");
    handedOut.note("gone", { version: 0, value: ABSENT_VALUE });
    expect(handedOut.at("gone", 0).value).toBe(ABSENT_VALUE);
  });

  test("is bounded in number and in bytes", () => {
    const few = new HandedOut(1000, 2);
    for (let version = 1; version <= 4; version += 1) few.note("k", { version, value: version });
    expect([1, 2, 3, 4].map((version) => few.at("k", version).value)).toEqual([ABSENT_VALUE, ABSENT_VALUE, 3, 4]);
    const small = new HandedOut(10, 100);
    small.note("k", { version: 1, value: "12345" });
    small.note("k", { version: 2, value: "12345678" });
    expect(small.at("k", 1).value).toBe(ABSENT_VALUE);
  });
});

test("a replica refuses a message that it cannot read, and needs a snapshot then", () => {
  const replica = new Replica();
  replica.applySnapshot(replica.beginSnapshot(), [], 0);
  expect(replica.needsSnapshot).toBe(false);
  const message = { kind: "message", topic: "state.a", seq: 1, type: "StateUpdate" } as const;
  expect(() => replica.receive({ ...message, data: { key: "a" } })).toThrow("expected StateUpdate");
  expect(replica.needsSnapshot).toBe(true);
  expect(replica.receive({ kind: "batch" } as never)).toEqual([]);
  replica.reviseUpdate("a", 5, 1);
  replica.withdrawUpdate("a", 5);
  expect(replica.learn("a", { version: 0, value: ABSENT_VALUE })).toEqual([]);
  expect(replica.learn("a", { version: 3, value: 1 })).toEqual([{ key: "a", current: { version: 3, value: 1 } }]);
});

test("an error shows what came, and no more of it than is readable", () => {
  expect(shown("a")).toBe('"a"');
  expect(shown("x".repeat(300))).toHaveLength(201);
  expect(shown({})).toBe("a map");
  expect(shown(undefined)).toBe("undefined");
  expect(isMap(Object.create(null))).toBe(true);
  expect(isMap(new Map())).toBe(false);
  expect(lockedOut(null).message).toContain("this client's is missing");
  expect(lockedOut("abc").message).toContain("this client's is abc");
  expect(new Busy("x").retriable).toBe(true);
});
