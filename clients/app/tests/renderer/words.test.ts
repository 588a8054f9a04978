import type { SystemStatus } from "@backtestr/client/page";
import fc from "fast-check";
import { expect, test } from "vitest";
import { change, compact, count, parseNumber, percent, price, profit, sense } from "../../renderer/src/format/numbers";
import { ago, duration, moment, range, seconds, timeframeMs } from "../../renderer/src/format/times";
import { joinRows, shownRows } from "../../renderer/src/screens/runs/run-rows";
import { type Command, KeySequence, matching } from "../../renderer/src/shell/commands";
import { connectionWords, healthWords, workerWords } from "../../renderer/src/shell/status-words";
import { ratesBetween } from "../../renderer/src/stores/connection";

test("numbers say their sign, and what is none is a dash", () => {
  expect([count(1234.4), count(-1), count(null), count(Number.NaN)]).toEqual(["1,234", "−1", "—", "—"]);
  expect([percent(0.1234), change(0.05), change(-0.05), change(0.0001)]).toEqual([
    "12.3 %",
    "+5.0 %",
    "−5.0 %",
    "0.0 %",
  ]);
  expect([profit(12.345), profit(-0.001)]).toEqual(["+12.35", "0.00"]);
  expect([sense(1), sense(-1), sense(0), sense(null)]).toEqual(["gain", "loss", "", ""]);
  expect([price(42_123.456), price(1.234567), price(0.00001234)]).toEqual(["42,123.46", "1.23457", "0.00001234"]);
  expect([compact(1_234), compact(12_345), compact(1_500_000), compact(2e9)]).toEqual(["1,234", "12k", "1.5M", "2.0G"]);
});

test("every number that is shown can be typed again", () => {
  fc.assert(
    fc.property(fc.integer({ min: -1e12, max: 1e12 }), (value) => {
      expect(parseNumber(count(value))).toBe(value);
    }),
  );
  for (const wrong of ["", "abc", "1,5", "--1", "1e", "0x10", "Infinity", "1,00"]) {
    expect(parseNumber(wrong)).toBeUndefined();
  }
  expect([parseNumber("2e-3"), parseNumber(" .5 "), parseNumber("1_000")]).toEqual([0.002, 0.5, 1000]);
});

test("times and durations are as long as they need to be", () => {
  const at = Date.UTC(2024, 0, 3, 9, 30);
  expect([moment(at), moment(at + 5_000), moment(at + 5)]).toEqual([
    "2024-01-03 09:30",
    "2024-01-03 09:30:05",
    "2024-01-03 09:30:00.005",
  ]);
  expect(range(at, at + 60_000)).toBe("2024-01-03 09:30 – 2024-01-03 09:31");
  expect(range(at, at + 90 * 86_400_000)).toBe("2024-01-03 – 2024-04-02");
  expect([duration(400), duration(90_000), duration(100_000_000), duration(-3_600_000)]).toEqual([
    "400 ms",
    "1 min 30 s",
    "1 d 3 h",
    "−1 h",
  ]);
  expect([seconds(400), seconds(12_300), seconds(185_000)]).toEqual(["0.4 s", "12 s", "3 min 5 s"]);
  expect([ago(0, 1_000), ago(0, 300_000)]).toEqual(["just now", "5 min ago"]);
  expect([timeframeMs("5m"), timeframeMs("1d"), timeframeMs("tick"), timeframeMs("x"), timeframeMs("0m")]).toEqual([
    300_000,
    86_400_000,
    0,
    undefined,
    undefined,
  ]);
});

const command = (title: string, keys?: string): Command => ({ id: title, title, keys, run: () => undefined });

test("commands are found by any of their words, those that begin so first", () => {
  const commands = [command("Backtest sma_cross BTC"), command("Go to Data"), command("Theme: dark")];
  expect(matching(commands, "da").map((one) => one.title)).toEqual(["Go to Data", "Theme: dark"]);
  expect(matching(commands, "BTC sma").map((one) => one.title)).toEqual(["Backtest sma_cross BTC"]);
  expect(matching(commands, "")).toEqual(commands);
});

test("keys pressed one after the other run a command, late ones do not", () => {
  const commands = [command("data", "g d"), command("help", "?")];
  const keys = new KeySequence(1_000);
  expect(keys.press("g", 0, commands)).toBeUndefined();
  expect(keys.press("d", 500, commands)?.title).toBe("data");
  expect(keys.press("d", 600, commands)).toBeUndefined();
  keys.press("g", 1_000, commands);
  expect(keys.press("d", 2_500, commands)).toBeUndefined();
  keys.press("g", 3_000, commands);
  expect(keys.press("?", 3_100, commands)?.title).toBe("help");
});

const HEALTH = {
  status: "healthy",
  uptimeMs: 10_000,
  lastHeartbeat: 10_000,
  workers: [{ state: "busy" }, { state: "idle" }, { state: "spare" }],
} as unknown as SystemStatus;

test("the status bar says what is wrong, and for how long", () => {
  const reachable = { kind: "reachable" } as const;
  expect(connectionWords(reachable, "ready", 0).sense).toBe("good");
  expect(connectionWords(reachable, "connecting", 500).sense).toBe("wait");
  expect(connectionWords(reachable, "connecting", 65_000)).toEqual({
    sense: "bad",
    short: "No broker",
    long: "No broker has answered for 1 min 5 s.",
  });
  expect(connectionWords({ kind: "expired", message: "run it again" }, "ready", 0).long).toBe("run it again");
  expect(healthWords(HEALTH, 31_000)).toMatchObject({ sense: "bad", short: "Silent" });
  expect(healthWords({ ...HEALTH, status: "warning", reasons: ["Disk is full."] }, 0).long).toBe("Disk is full.");
  expect(workerWords(HEALTH)).toEqual({ sense: "good", short: "1/2 busy", long: "1 busy, 1 idle, 1 spare" });
});

test("rates are those between two heartbeats of one broker", () => {
  const counted = (at: number, requests: number, messages: number): SystemStatus =>
    ({
      ...HEALTH,
      uptimeMs: at,
      lastHeartbeat: at,
      connections: { perClient: [{ requests }] },
      streams: { byClass: { orders: { messages } } },
    }) as unknown as SystemStatus;
  expect(ratesBetween(counted(0, 10, 100), counted(2_000, 20, 2_100))).toEqual({ requests: 5, messages: 1_000 });
  expect(ratesBetween(counted(9_000, 10, 100), counted(9_050, 20, 200))).toBeUndefined();
  expect(ratesBetween(counted(9_000, 10, 100), { ...counted(12_000, 1, 1), uptimeMs: 5 })).toBeUndefined();
});

test("results that only the disk has are listed with those that the broker knows", () => {
  const known = [
    { backtestId: "a", status: "completed", algorithmId: "x@1", symbol: "S", progressPercent: 100, submitTime: 5 },
    { backtestId: "b", status: "failed", algorithmId: "y@1", symbol: "T", progressPercent: 3, submitTime: 9 },
  ] as const;
  const stored = [
    { backtestId: "a", bytes: 10, storedTime: 6, pinned: true },
    { backtestId: "c", bytes: 20, storedTime: 7 },
  ];
  const rows = joinRows(known, stored);
  expect(rows.map((one) => [one.id, one.status, one.pinned])).toEqual([
    ["b", "failed", false],
    ["c", "stored", false],
    ["a", "completed", true],
  ]);
  const summaryOf = (row: { id: string }) =>
    row.id === "c" ? { config: { algorithmId: "z@2", symbol: "U", timeframe: "1h" }, metrics: null } : undefined;
  const shown = (words: string, status: string): string[] =>
    Array.from(shownRows(rows, summaryOf, words, status), (row) => rows[row]?.id ?? "");
  expect(shown("z 1h", "")).toEqual(["c"]);
  expect(shown("", "pinned")).toEqual(["a"]);
  expect(shown("t", "failed")).toEqual(["b"]);
});
