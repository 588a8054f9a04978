/** Tests of results prepared for the screens: configuration, fills joined to trades, metrics as text, verdicts. */

import { METRIC_DEFINITIONS, type Metrics } from "@backtestr/client/page";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { tradeOfFill } from "../../renderer/src/charts/fill-columns";
import { flattened } from "../../renderer/src/screens/result/configuration-paths";
import {
  bestOf,
  definitionOf,
  METRIC_GROUPS,
  metricText,
  whyUndefined,
} from "../../renderer/src/screens/result/metric-text";
import {
  closedReturns,
  configOf,
  fillsOf,
  numbers,
  titleOf,
  verdictsOf,
} from "../../renderer/src/screens/result/result-data";
import { tableOf } from "../support/tables";

const CONFIG = {
  backtestId: "b1",
  algorithmId: "sma_cross@4fd09a92b6d4824c",
  symbol: "BTC",
  startDate: "2022-01-01",
  initialCapital: 100_000,
  timeframe: "1m",
  parameters: { fast: 5, slow: 15 },
  options: { pace: 100, streams: { prices: true }, statistics: "per_bar" },
};

describe("configurations", () => {
  it("are read as results have them", () => {
    expect(configOf(CONFIG)).toEqual({
      algorithm: "sma_cross",
      algorithmId: "sma_cross@4fd09a92b6d4824c",
      symbols: ["BTC"],
      timeframe: "1m",
      initialCapital: 100_000,
      startDate: "2022-01-01",
      endDate: undefined,
      price: undefined,
      parameters: { fast: 5, slow: 15 },
      options: CONFIG.options,
      pace: 100,
      hasPrices: true,
    });
    const several = configOf({ ...CONFIG, symbols: ["BTC", "ETH"], options: {} });
    expect([several.symbols, several.pace, several.hasPrices]).toEqual([["BTC", "ETH"], undefined, false]);
    expect(titleOf(configOf(CONFIG))).toBe("sma_cross on BTC 1m");
    expect(titleOf(several)).toBe("sma_cross on BTC and 1 more 1m");
    expect(configOf({}).initialCapital).toBeNaN();
  });

  it("are listed value by value", () => {
    expect(flattened({ a: 1, b: { c: "x", d: { e: [1, 2] } }, f: {}, g: null })).toEqual([
      ["a", "1"],
      ["b.c", "x"],
      ["b.d.e", "[1,2]"],
      ["f", "{}"],
      ["g", "null"],
    ]);
  });
});

/** Three trades on one symbol: a long, reversed into a short, which is closed; and an open one of another symbol. */
const TRADES = tableOf({
  position_id: ["1", "2", "3"],
  symbol: ["A", "A", "B"],
  status: ["closed", "closed", "open"],
  exit_order_id: ["12", "13", null],
  return: Float64Array.of(0.1, -0.2, 0.3),
});
const ORDERS = tableOf({
  order_id: ["11", "12", "13", "14", "15"],
  timestamp: Float64Array.of(10, 20, 30, 5, 40),
  symbol: ["A", "A", "A", "B", "A"],
  side: ["buy", "sell", "buy", "buy", "buy"],
  status: ["filled", "filled", "filled", "filled", "rejected"],
  fill_price: Float64Array.of(1, 2, 3, 4, Number.NaN),
  fill_quantity: Float64Array.of(7, 14, 7, 1, Number.NaN),
  position_id: ["1", "2", "2", "3", null],
});

describe("fills", () => {
  it("are joined to the trades that they open and close", () => {
    const fills = fillsOf(ORDERS, TRADES, "A");
    expect([...fills.times]).toEqual([10, 20, 30]);
    expect([...fills.prices]).toEqual([1, 2, 3]);
    expect([...fills.sides]).toEqual([1, -1, 1]);
    expect([...fills.opens]).toEqual([0, 1, -1]);
    expect([...fills.closes]).toEqual([-1, 0, 1]);
    expect([0, 1, 2].map((fill) => tradeOfFill(fills, fill))).toEqual([0, 1, 1]);
    expect([...fillsOf(ORDERS, TRADES, "B").opens]).toEqual([2]);
    expect(fillsOf(ORDERS, TRADES, "C").times).toHaveLength(0);
  });

  it("stand in the order of their times", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 50 }), { maxLength: 40 }), (times) => {
        const all = <Value>(value: Value): Value[] => times.map(() => value);
        const orders = tableOf({
          order_id: times.map((_, row) => String(row)),
          timestamp: Float64Array.from(times),
          symbol: all("A"),
          side: all("buy"),
          status: all("filled"),
          fill_price: Float64Array.from(times),
          fill_quantity: Float64Array.from(times),
          position_id: all(null),
        });
        expect([...fillsOf(orders, TRADES, "A").times]).toEqual([...times].sort((one, other) => one - other));
      }),
    );
  });

  it("of results of version 0.1, which join nothing, belong to no trade", () => {
    const trades = tableOf({ symbol: ["A"], return: Float64Array.of(0.1), status: ["closed"] });
    const fills = fillsOf(ORDERS, trades, "A");
    expect([[...fills.opens], [...fills.closes]]).toEqual([
      [-1, -1, -1],
      [-1, -1, -1],
    ]);
  });
});

describe("tables", () => {
  it("give their closed trades and columns, or say what they have", () => {
    expect([...closedReturns(TRADES)]).toEqual([0.1, -0.2]);
    expect(() => numbers(TRADES, "pnl")).toThrow("the table has no numbers pnl; it has position_id, symbol");
  });
});

describe("metrics", () => {
  it("are those of the protocol, each in one group", () => {
    const names = METRIC_GROUPS.flatMap(({ metrics }) => metrics.map(({ name }) => name));
    expect(names).toEqual(METRIC_DEFINITIONS.map(({ name }) => name));
    expect(new Set(names).size).toBe(names.length);
    expect(() => definitionOf("sharp")).toThrow("there is no metric sharp");
  });

  it("have the form of their unit", () => {
    const shown = (name: string, value: number | null): string => metricText(definitionOf(name), value);
    expect(shown("finalEquity", 1234.5)).toBe("1,234.50");
    expect(shown("totalReturn", -0.1234)).toBe("−12.34 %");
    expect(shown("sharpeRatio", 1.23456)).toBe("1.235");
    expect(shown("totalTrades", 1234)).toBe("1,234");
    expect(shown("maxDrawdownDurationMs", 90_000)).toBe("1 min 30 s");
    expect(shown("winRate", null)).toBe("—");
  });

  it("say why they have no value", () => {
    const metrics = {
      winRate: null,
      sqn: null,
      cagr: 0,
      undefined: { winRate: "there is no closed trade" },
    } as Metrics;
    expect(whyUndefined(metrics, "winRate")).toBe("Undefined: there is no closed trade.");
    expect(whyUndefined(metrics, "sqn")).toBe("Undefined: no reason was stated.");
    expect(whyUndefined(metrics, "beta")).toBe("This metric was not computed for this backtest.");
    expect(whyUndefined(metrics, "cagr")).toBeUndefined();
  });

  it("mark the best where one way is better and values differ", () => {
    expect(bestOf("sharpeRatio", [1, 2, null])).toEqual([false, true, false]);
    expect(bestOf("maxDrawdown", [0.3, 0.1, 0.1])).toEqual([false, true, true]);
    expect(bestOf("totalTrades", [1, 2])).toEqual([false, false]);
    expect(bestOf("sharpeRatio", [2, 2])).toEqual([false, false]);
    expect(bestOf("sharpeRatio", [undefined])).toEqual([false]);
  });
});

describe("verdicts", () => {
  it("name warnings, an early end, rejected orders, a silent algorithm, the warm-up and the calendar", () => {
    const metrics = {
      warnings: ["1 order was rejected for lack of cash"],
      rejectedOrders: { "lack of cash": 1, "too small": 2 },
      annualisation: { calendar: "24/7", barsPerYear: 525_600, riskFree: 0.02, reason: "weekends have bars" },
    } as unknown as Metrics;
    expect(verdictsOf(metrics, "stopped", 30, 0).map(({ kind, text }) => `${kind}: ${text}`)).toEqual([
      "warning: 1 order was rejected for lack of cash",
      "warning: The backtest was stopped early: all figures are of the bars until then.",
      "warning: 2 orders were rejected: too small.",
      "warning: The algorithm made no trade, so the account never changed.",
      "note: The algorithm saw 30 bars before the start to warm up; they count in no figure.",
      "note: Figures per year take 525,600 bars a year (calendar 24/7: weekends have bars) and a risk-free rate of 2 %.",
    ]);
    expect(verdictsOf(null, "completed", 0, undefined)).toEqual([]);
  });
});
