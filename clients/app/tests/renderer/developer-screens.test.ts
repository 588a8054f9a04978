/** The pure parts of the screens Algorithms, Shared state and Topics. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { declaredNames, excerpt, failedPlace, placeIn } from "../../renderer/src/screens/algorithms/python-source";
import { fileOf, lineOf, MOST_SHOWN, parsedValue, textOf } from "../../renderer/src/screens/state/value-text";
import {
  brings,
  Inspection,
  MOST_MESSAGES,
  MOST_TOPICS,
  topicError,
} from "../../renderer/src/screens/topics/inspected";

describe("the source of an algorithm", () => {
  test("names are those of its decorators, each once", () => {
    const source = `@algorithm("one", fast=Int(3))\ndef a(): ...\n@authoring.portfolio('two')\ndef b(): ...\n# @algorithm("no")\n@algorithm("one")`;
    expect(declaredNames(source)).toEqual(["one", "two"]);
  });

  const traceback = [
    "Traceback (most recent call last):",
    '  File "/home/ann/mine.py", line 4, in mine',
    "    return helper(bars)",
    '  File "/usr/lib/numpy/core.py", line 900, in divide',
    '  File "mine.py", line 9, in helper',
    "    return bars / 0",
    "ZeroDivisionError: division by zero",
    "",
  ].join("\n");

  test("the author's lines are told from those of libraries, the last of them raised it", () => {
    const place = placeIn(traceback, "mine");
    expect(place).toMatchObject({ lines: [4, 9], words: "ZeroDivisionError: division by zero" });
    const source = Array.from({ length: 12 }, (_, at) => `line ${at + 1}`).join("\n");
    const lines = excerpt(source, place ?? { lines: [], words: "", traceback: "" });
    expect(lines.map((one) => one.number)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    expect(lines.filter((one) => one.failed).map((one) => one.number)).toEqual([4, 9]);
    expect(lines.filter((one) => one.raised).map((one) => one.text)).toEqual(["line 9"]);
  });

  test("a traceback without a line of the file has none, unless the error states one", () => {
    expect(placeIn(traceback, "other")).toBeUndefined();
    expect(failedPlace({ details: { traceback, line: 2 } }, "other")?.lines).toEqual([2]);
    expect(failedPlace(new Error("no details"), "mine")).toBeUndefined();
  });

  test("an excerpt has only lines that are there, each once and in order", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -3, max: 40 }), { maxLength: 6 }), (lines) => {
        const source = Array.from({ length: 20 }, (_, at) => String(at)).join("\n");
        const numbers = excerpt(source, { lines, words: "", traceback: "" }).map((one) => one.number);
        expect(numbers).toEqual([...new Set(numbers)].sort((one, other) => one - other));
        expect(numbers.every((one) => one >= 1 && one <= 20)).toBe(true);
      }),
    );
  });
});

describe("values of the shared state", () => {
  test("whatever JSON holds comes back from its text as it was", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const { text, fixed } = textOf(value);
        expect(fixed).toBeUndefined();
        expect(parsedValue(text)).toEqual({ value: JSON.parse(JSON.stringify(value)) });
      }),
    );
  });

  test("a line of a list is short, however large the value is", () => {
    fc.assert(fc.property(fc.anything(), (value) => void expect(lineOf(value).length).toBeLessThanOrEqual(161)));
    let reads = 0;
    const large = new Proxy(
      Array.from({ length: 1_000_000 }, (_, at) => at),
      {
        get: (target, name, receiver) => {
          reads += 1;
          return Reflect.get(target, name, receiver);
        },
      },
    );
    expect(lineOf(large)).toContain("999988 more");
    expect(reads).toBeLessThan(100);
  });

  test("what JSON cannot hold is named, and cannot be edited", () => {
    const { text, fixed } = textOf({ ratio: Number.NaN, at: new Date(0), bytes: new Uint8Array(3), many: 2n ** 60n });
    expect(JSON.parse(text)).toEqual({
      ratio: "NaN",
      at: "the time 1970-01-01T00:00:00.000Z",
      bytes: "3 bytes",
      many: "the large integer 1152921504606846976",
    });
    expect(fixed).toBe("JSON cannot hold NaN, so it cannot be edited here.");
    expect(fileOf([Number.POSITIVE_INFINITY])).toContain("Infinity");
  });

  test("a long text is cut, and says how long it is", () => {
    const found = textOf("x".repeat(100_000));
    expect(found.text.length).toBe(MOST_SHOWN);
    expect(found.characters).toBe(100_002);
    expect(found.fixed).toMatch(/too long/);
  });

  test("a fault of the text is told by line and column", () => {
    expect(parsedValue('{\n  "a": 1,\n  oops\n}')).toEqual({
      error: expect.stringMatching(/^This is no JSON, line 3, column 3: /),
    });
    expect(parsedValue("  ")).toEqual({ error: expect.stringContaining("Type a value as JSON") });
  });
});

describe("what an inspector keeps", () => {
  const message = (seq: number, at = seq): { seq: number; at: number; type: string; data: unknown } => ({
    seq,
    at,
    type: "T",
    data: seq,
  });

  test("every message is counted, and the last ones are kept, the latest first", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 400 }), (count) => {
        const inspection = new Inspection();
        for (let seq = 1; seq <= count; seq += 1) inspection.message("t", message(seq));
        const [topic] = inspection.topics();
        expect(topic?.messages).toBe(count);
        expect(topic?.lastSeq).toBe(count);
        const kept = Math.min(count, MOST_MESSAGES);
        expect(topic?.kept.map((one) => one.seq)).toEqual(Array.from({ length: kept }, (_, at) => count - at));
      }),
    );
  });

  test("many at once count as they do one by one", () => {
    const inspection = new Inspection();
    const last = Array.from({ length: MOST_MESSAGES }, (_, at) => message(951 + at, 5_000));
    inspection.messages("t", 1_000, last);
    expect(inspection.topics()[0]).toMatchObject({ messages: 1_000, lastSeq: 1_000 });
    expect(inspection.rate("t", 7_000)).toBeCloseTo(1_000 / 3);
    expect(inspection.rate("t", 60_000)).toBe(0);
  });

  test("topics beyond the most are counted together, and losses are stated", () => {
    const inspection = new Inspection();
    for (let at = 0; at < MOST_TOPICS + 7; at += 1) inspection.message(`t${at}`, message(1));
    expect(inspection.topics().length).toBe(MOST_TOPICS);
    expect(inspection.others).toBe(7);
    inspection.gap("t0", { at: 1, fromSeq: 2, toSeq: 5 });
    expect(inspection.topics()[0]).toMatchObject({ lost: 4, gaps: [{ at: 1, fromSeq: 2, toSeq: 5 }] });
    inspection.clear((topic) => topic === "t0");
    expect(inspection.topics().some((one) => one.topic === "t0")).toBe(false);
  });

  test("a prefix with a dot brings what begins so, any other only itself", () => {
    expect(brings("orders.", "orders.7")).toBe(true);
    expect(brings("orders", "orders.7")).toBe(false);
    expect(topicError("", [])).toMatch(/Name a topic/);
    expect(topicError("a b", [])).toMatch(/no spaces/);
    expect(topicError("a.", ["a."])).toMatch(/already/);
    expect(topicError("a.", [])).toBeUndefined();
  });
});
