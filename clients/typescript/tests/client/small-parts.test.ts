/** The small parts of the client above the core: times, turns of the event loop, the clock of the machine. */

import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { asIso, asMs, asSeconds, asSymbols, checkOptions, withTimesAsText } from "../../src/arguments.js";
import { systemClock } from "../../src/clock.js";
import { Turns } from "../../src/turns.js";
import { FakeClock } from "../support/fake-broker.js";

describe("times", () => {
  test.each<[Date | string | number, number]>([
    [0, 0],
    [-5, -5],
    [new Date(7), 7],
    ["2022-01-03", Date.UTC(2022, 0, 3)],
    ["2022-01-03T14:30", Date.UTC(2022, 0, 3, 14, 30)],
    ["2022-01-03 14:30:05", Date.UTC(2022, 0, 3, 14, 30, 5)],
    ["2022-01-03T14:30:05,25Z", Date.UTC(2022, 0, 3, 14, 30, 5, 250)],
    ["2022-01-03T14:30+02", Date.UTC(2022, 0, 3, 12, 30)],
    ["2022-01-03T14:30-0530", Date.UTC(2022, 0, 3, 20, 0)],
    ["2022-01-03T14:30-05:30", Date.UTC(2022, 0, 3, 20, 0)],
  ])("%s is a time", (instant, ms) => {
    expect(asMs(instant, "start")).toBe(ms);
    expect(asIso(instant, "start")).toBe(new Date(ms).toISOString());
  });

  test.each([
    "yesterday",
    "2022",
    "2022-13-45",
    "2022-02-30",
    "2022-02-30T10:00Z",
    "03/01/2022",
    "",
    0.5,
    Number.NaN,
    Infinity,
    new Date(Number.NaN),
    null,
    {},
    true,
  ])("%s is none", (instant) => {
    expect(() => asMs(instant as never, "start")).toThrow(TypeError);
    expect(() => asIso(instant as never, "start")).toThrow("start: ");
  });

  test("beyond those of a Date are no text", () => {
    expect(() => asIso(9e15, "end")).toThrow("end: 9000000000000000 is not a time");
  });

  test("are text at any depth of parameters", () => {
    const value = { a: [new Date(0), { b: new Date(1) }], c: "x", d: null, e: 5 };
    expect(withTimesAsText(value, "p")).toEqual({
      a: ["1970-01-01T00:00:00.000Z", { b: "1970-01-01T00:00:00.001Z" }],
      c: "x",
      d: null,
      e: 5,
    });
    expect(() => withTimesAsText({ a: [new Date(Number.NaN)] }, "p")).toThrow("p.a[0]: ");
  });

  test("of every day there is are read as they are written", () => {
    const dates = fc.date({ min: new Date("1900-01-01"), max: new Date("2199-12-31"), noInvalidDate: true });
    fc.assert(
      fc.property(dates, (date) => {
        expect(asMs(date.toISOString(), "t")).toBe(date.getTime());
        expect(asMs(date.toISOString().slice(0, 10), "t")).toBe(Math.floor(date.getTime() / 86_400_000) * 86_400_000);
      }),
    );
  });
});

test("other arguments are checked", () => {
  expect(asSymbols("S")).toEqual(["S"]);
  expect(() => asSymbols([])).toThrow("at least one symbol");
  expect(() => asSymbols(["S", 5] as never)).toThrow("expected a text or several; 5 came");
  expect(asSeconds(1500, "timeoutMs")).toBe(1.5);
  for (const wrong of [0, -1, Number.NaN, "5", null])
    expect(() => asSeconds(wrong as number, "timeoutMs")).toThrow(TypeError);
  expect(() => checkOptions({ a: undefined }, ["b"], "x")).not.toThrow();
  expect(() => checkOptions(null, ["b"], "x")).toThrow("x: expected a plain object of options; null came");
});

describe("turns of the event loop", () => {
  test("are given up after some work, and shared by all readers", async () => {
    const clock = new FakeClock();
    const turns = new Turns(clock);
    turns.fresh();
    const calls = (): (Promise<void> | null)[] => Array.from({ length: 64 }, () => turns.due());
    expect(calls().every((one) => one === null)).toBe(true);
    await clock.advance(0.005);
    const waits = calls().filter((one) => one !== null);
    expect(waits.length).toBeGreaterThan(0);
    expect(new Set(waits).size).toBe(1);
    await waits[0];
    expect(calls().every((one) => one === null)).toBe(true);
  });
});

describe("the clock of the machine", () => {
  test("goes on, wakes up once, and can be told not to", async () => {
    const before = systemClock.now();
    await new Promise<void>((resolve) => {
      systemClock.after(0.001, resolve);
    });
    expect(systemClock.now()).toBeGreaterThan(before);
    const called = vi.fn();
    systemClock.after(0, called)();
    await systemClock.turn();
    await systemClock.turn();
    expect(called).not.toHaveBeenCalled();
    const cancel = systemClock.after(Number.MAX_SAFE_INTEGER, called);
    await systemClock.turn();
    cancel();
    expect(called).not.toHaveBeenCalled();
    expect(Math.abs(systemClock.wallMs() - Date.now())).toBeLessThan(1000);
    expect(systemClock.random()).toBeLessThan(1);
    expect(systemClock.newId()).toMatch(/^[0-9a-f]{32}$/);
    expect(systemClock.newId()).not.toBe(systemClock.newId());
  });

  test("has its turns in a page too, where there is no setImmediate", async () => {
    vi.stubGlobal("setImmediate", undefined);
    try {
      await systemClock.turn();
    } finally {
      vi.unstubAllGlobals();
    }
  });
});
