/** Tests of what a running backtest tells, in bounded columns and in words; and of comparisons. */

import type { BacktestProgress, OrderUpdate, PositionUpdate, RemoteResults } from "@backtestr/client/page";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { digitsFor, numberLabel, percentLabel } from "../../renderer/src/charts/axis-labels";
import { BarColumns } from "../../renderer/src/charts/bar-columns";
import { ChartGroup } from "../../renderer/src/charts/chart-group";
import { withOpacity } from "../../renderer/src/charts/opacity";
import { Pyramid } from "../../renderer/src/charts/pyramid";
import { readIndex, steppedPlace } from "../../renderer/src/charts/series-readout";
import { barAxis, TIME_AXIS, timeTicks } from "../../renderer/src/charts/time-ticks";
import { configRows, extentOf, namesOf, returnCurve } from "../../renderer/src/screens/compare/compare-data";
import { GrowingBars } from "../../renderer/src/screens/live/growing-bars";
import {
  EquityPoints,
  GrowingFills,
  MAX_FILLS,
  MAX_POINTS,
  MAX_ROWS,
  noOrders,
  TimeLeft,
} from "../../renderer/src/screens/live/live-columns";
import { lineOfOrder, lineOfPosition, lineOfStatus } from "../../renderer/src/screens/live/live-log";
import { framesOf } from "../../renderer/src/screens/live/traceback";
import { configOf } from "../../renderer/src/screens/result/result-data";
import { tableOf } from "../support/tables";

function progress(timestamp: number, equity = timestamp, drawdown = 0.1): BacktestProgress {
  return { equityCurvePoint: { timestamp, equity, drawdown, returns: 0 } } as BacktestProgress;
}

function order(orderId: string, more: Partial<OrderUpdate> = {}): OrderUpdate {
  return {
    orderId,
    backtestId: "b",
    symbol: "A",
    side: "buy",
    quantity: 2,
    price: 10,
    orderType: "market",
    status: "filled",
    timestamp: 1000,
    fillPrice: 10.5,
    fillQuantity: 2,
    ...more,
  };
}

describe("the equity of a running backtest", () => {
  it("takes each point once, in order", () => {
    const points = new EquityPoints();
    expect([1, 2, 2, 1, 3].map((time) => points.add(progress(time)))).toEqual([true, true, false, false, true]);
    expect([...points.times.values.subarray(0, points.times.length)]).toEqual([1, 2, 3]);
    expect(points.drawdown.values[0]).toBe(-0.1);
  });

  it("stays within its bound, and keeps the last point", () => {
    const points = new EquityPoints();
    for (let time = 1; time <= MAX_POINTS + 1; time += 1) points.add(progress(time));
    expect(points.times.length).toBe(MAX_POINTS / 2 + 1);
    expect(points.halved).toBe(1);
    expect(points.times.values[points.times.length - 1]).toBe(MAX_POINTS + 1);
  });
});

describe("orders of a running backtest", () => {
  it("are shown in their latest state, the newest first, within a bound", () => {
    const orders = noOrders();
    orders.put(order("1", { status: "pending" }));
    orders.put(order("2"));
    orders.put(order("1"));
    expect([orders.length, orders.seen]).toEqual([2, 2]);
    expect([orders.newest(0)?.orderId, orders.newest(1)?.status]).toEqual(["2", "filled"]);
    for (let id = 3; id <= MAX_ROWS + 1; id += 1) orders.put(order(String(id)));
    expect(orders.length).toBeLessThanOrEqual(MAX_ROWS);
    expect(orders.seen).toBe(MAX_ROWS + 1);
    expect(orders.newest(0)?.orderId).toBe(String(MAX_ROWS + 1));
    orders.put(order(String(MAX_ROWS), { status: "cancelled" }));
    expect(orders.newest(1)?.status).toBe("cancelled");
  });

  it("become fills in columns, within a bound", () => {
    const fills = new GrowingFills();
    fills.add(order("0", { fillPrice: undefined }));
    for (let id = 1; id <= MAX_FILLS + 1; id += 1)
      fills.add(order(String(id), { timestamp: id, side: id % 2 === 0 ? "sell" : "buy" }));
    const { times, sides, prices } = fills.columns();
    expect(fills.seen).toBe(MAX_FILLS + 1);
    expect(times).toHaveLength(MAX_FILLS / 2 + 1);
    expect([times[0], times.at(-1)]).toEqual([MAX_FILLS / 2 + 1, MAX_FILLS + 1]);
    expect([sides.at(-1), prices.at(-1)]).toEqual([1, 10.5]);
  });
});

describe("the time that is left", () => {
  it("follows from the last seconds, and is not told too early", () => {
    const time = new TimeLeft();
    expect(time.left()).toBeUndefined();
    time.note(10, 0);
    expect(time.left()).toBeUndefined();
    for (let tick = 1; tick <= 40; tick += 1) time.note(10 + tick, 500 * tick);
    expect(time.left()).toBeCloseTo(25_000, 6);
    time.reset();
    expect(time.left()).toBeUndefined();
  });

  it("begins again after a restart that goes back", () => {
    const time = new TimeLeft();
    time.note(50, 0);
    time.note(60, 5000);
    time.note(0, 6000);
    expect(time.left()).toBeUndefined();
  });
});

describe("the log", () => {
  it("says what happened", () => {
    expect(lineOfOrder(order("1"))?.text).toBe("Bought 2.0000 A at 10.50");
    expect(lineOfOrder(order("1", { side: "sell", reason: "stop_loss" }))?.text).toBe(
      "Sold 2.0000 A at 10.50 (stop_loss)",
    );
    expect(lineOfOrder(order("1", { status: "rejected", reason: "lack of cash" }))).toEqual({
      time: 1000,
      text: "The order to buy 2.0000 A was rejected: lack of cash",
      kind: "warning",
    });
    expect(lineOfOrder(order("1", { status: "cancelled" }))?.text).toBe("The order to buy 2.0000 A was cancelled");
    expect(lineOfOrder(order("1", { status: "pending" }))).toBeUndefined();
    const closed = { positionId: "7", symbol: "A", quantity: 0, realizedPnL: -3, timestamp: 5 } as PositionUpdate;
    expect(lineOfPosition(closed)?.text).toBe("Position 7 in A closed, PnL −3.00");
    expect(lineOfPosition({ ...closed, mark: true })).toBeUndefined();
    expect(lineOfStatus("running", "paused").text).toBe("Resumed");
    expect(lineOfStatus("queued", "running").kind).toBe("warning");
  });
});

describe("tracebacks", () => {
  const text = `Traceback (most recent call last):
  File "/x/lib/python3.13/site-packages/backtestr_engine/worker/run.py", line 10, in call
    return function(bars)
  File "/home/me/dip.py", line 12, in dip
    level = ratio(bars)
  File "/home/me/dip.py", line 5, in ratio
    return np.divide(1, 0)
  File "/x/lib/python3.13/site-packages/numpy/core.py", line 99, in divide
    raise ZeroDivisionError
ZeroDivisionError: division by zero
`;
  it("point to the last line of the user's own", () => {
    const frames = framesOf(text);
    expect(frames.map(({ line, isOwn }) => [line, isOwn])).toEqual([
      [10, false],
      [12, false],
      [5, true],
      [99, false],
    ]);
    expect(frames[2]).toEqual({
      file: "/home/me/dip.py",
      line: 5,
      name: "ratio",
      code: "return np.divide(1, 0)",
      isOwn: true,
    });
    expect(framesOf("SyntaxError: no")).toEqual([]);
  });
});

describe("bars that grow", () => {
  it("have the candles of bars that came at once, and leave out what came twice", () => {
    const pages = fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(pages, (sizes) => {
        const total = sizes.reduce((sum, one) => sum + one, 0);
        const times = Float64Array.from({ length: total }, (_, bar) => 1000 * (bar + 1));
        const close = times.map((_, bar) => Math.sin(bar));
        const all = { times, open: close, high: close.map((one) => one + 1), low: close.map((one) => one - 1), close };
        const grown = new GrowingBars();
        grown.candles(2);
        let at = 0;
        for (const size of sizes) {
          const begin = Math.max(0, at - 3);
          const part = (column: Float64Array): Float64Array => column.subarray(begin, at + size);
          grown.append({
            times: part(times),
            open: part(all.open),
            high: part(all.high),
            low: part(all.low),
            close: part(close),
          });
          at += size;
        }
        const whole = new BarColumns(times);
        for (let slice = 0; slice < whole.slices; slice += 1) whole.put(slice, all);
        expect(grown.length).toBe(total);
        for (const level of [0, 1, 2]) {
          const count = Math.ceil(total / 4 ** level);
          for (const name of ["open", "high", "low", "close"] as const) {
            expect([...grown.candles(level)[name].subarray(0, count)]).toEqual([...whole.candles(level)[name]]);
          }
        }
      }),
      { numRuns: 25 },
    );
  });
});

describe("labels of axes", () => {
  it("tell neighbours apart", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(0.001, 0.005, 0.01, 0.02, 0.25, 1, 2, 50, 500, 2500, 1e6),
        fc.integer({ min: -400, max: 400 }),
        (step, times) => {
          const [one, other] = [step * times, step * (times + 1)];
          expect(numberLabel(one, step)).not.toBe(numberLabel(other, step));
          expect(percentLabel(one, step)).not.toBe(percentLabel(other, step));
        },
      ),
    );
    expect([numberLabel(100_500, 500), numberLabel(-1250, 250), numberLabel(2e6, 1e6)]).toEqual([
      "100.5k",
      "−1,250",
      "2M",
    ]);
    expect([percentLabel(-0.025, 0.005), percentLabel(0.2, 0.1)]).toEqual(["−2.5 %", "20 %"]);
    expect([digitsFor(0), digitsFor(1 / 3)]).toEqual([0, 6]);
  });

  it("stand at round times, each at its bar, within the view and not too close", () => {
    const day = 86_400_000;
    const bars = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 2, maxLength: 400 });
    fc.assert(
      fc.property(
        bars,
        fc.constantFrom(60_000, 3_600_000, day),
        fc.integer({ min: 1, max: 12 }),
        (gaps, step, most) => {
          let time = Date.UTC(2023, 10, 3);
          const times = Float64Array.from(gaps, (gap) => {
            time += gap * step;
            return time;
          });
          const axis = barAxis(() => times);
          const [from, to] = [0, times.length - 1];
          const ticks = timeTicks(axis, from, to, most);
          for (const [index, { at }] of ticks.entries()) {
            expect(at).toBeGreaterThanOrEqual(from);
            expect(at).toBeLessThanOrEqual(to);
            if (index > 0) expect(at - ticks[index - 1]!.at).toBeGreaterThanOrEqual((to - from) / (most * 1.6) - 1e-9);
          }
          expect(ticks.length).toBeLessThanOrEqual(1.6 * most + 1);
        },
      ),
    );
  });

  it("are words of their span", () => {
    const texts = (from: number, to: number): string[] => timeTicks(TIME_AXIS, from, to, 6).map(({ text }) => text);
    expect(texts(Date.UTC(2020, 0, 1), Date.UTC(2025, 0, 1))).toEqual(["2020", "2021", "2022", "2023", "2024", "2025"]);
    expect(texts(Date.UTC(2022, 0, 1, 22), Date.UTC(2022, 0, 2, 2))).toEqual([
      "22:00",
      "23:00",
      "2 Jan",
      "01:00",
      "02:00",
    ]);
    expect(texts(Date.UTC(2022, 0, 1), Date.UTC(2022, 5, 1))).toEqual(["2022", "Feb", "Mar", "Apr", "May", "Jun"]);
    expect(texts(1, 1)).toEqual([]);
  });
});

describe("a group of charts", () => {
  it("keeps a view of all, follows the end, and leaves any other view", () => {
    const group = new ChartGroup(TIME_AXIS, { from: 0, to: 100 }, 1);
    let moves = 0;
    const end = group.onRange(() => {
      moves += 1;
    });
    group.extend({ from: 0, to: 200 });
    expect(group.range).toEqual({ from: 0, to: 200 });
    group.show({ from: 150, to: 200 });
    group.extend({ from: 0, to: 210 });
    expect(group.range).toEqual({ from: 160, to: 210 });
    group.show({ from: 20, to: 40 });
    group.extend({ from: 0, to: 300 });
    expect(group.range).toEqual({ from: 20, to: 40 });
    end();
    group.show({ from: 0, to: 300 });
    expect(moves).toBe(5);
  });

  it("tells of the crosshair when it moves", () => {
    const group = new ChartGroup(TIME_AXIS, { from: 0, to: 100 }, 1);
    const seen: (number | null)[] = [];
    group.onCursor(() => seen.push(group.cursor));
    for (const place of [5, 5, null]) group.point(place);
    expect(seen).toEqual([5, null]);
  });

  it("reads the value at the crosshair, and steps from value to value", () => {
    const values = new Pyramid(Float64Array.of(1, 2, 3));
    const xs = [10, 20, 30];
    expect([readIndex(xs, values, null), readIndex(xs, values, 14), readIndex(xs, values, 99)]).toEqual([2, 0, 2]);
    expect(readIndex([], new Pyramid(), 1)).toBe(-1);
    expect([
      steppedPlace(xs, 3, 14, 1),
      steppedPlace(xs, 3, 30, 1),
      steppedPlace(xs, 3, 20, Number.NEGATIVE_INFINITY),
    ]).toEqual([20, 30, 10]);
    expect(steppedPlace([], 0, 7, 1)).toBe(7);
  });

  it("draws with faint colours", () => {
    expect(withOpacity("rgb(1, 2, 3)", 0.5)).toBe("rgba(1, 2, 3, 0.5)");
    expect(withOpacity("rgb(1 2 3)", 0.5)).toBe("rgb(1 2 3 / 0.5)");
    expect(withOpacity("#123456", 0.5)).toBe("#123456");
  });
});

describe("comparisons", () => {
  const results = (initialCapital: number): RemoteResults =>
    ({
      config: { initialCapital },
      tables: {
        equity: tableOf({
          timestamp: Float64Array.of(1, 2),
          equity: Float64Array.of(initialCapital, 2 * initialCapital),
        }),
      },
    }) as unknown as RemoteResults;

  it("lay accounts of any size over each other", () => {
    const [one, other] = [returnCurve(results(10)), returnCurve(results(1e6))];
    expect([...one.returns.values]).toEqual([0, 1]);
    expect([...other.returns.values]).toEqual([0, 1]);
    expect(extentOf([one, other])).toEqual({ from: 1, to: 2 });
    expect(extentOf([])).toBeUndefined();
    expect(() => returnCurve({ config: {}, tables: {} } as unknown as RemoteResults)).toThrow("no equity");
  });

  it("show what differs in configurations, and name results by it", () => {
    const configs = [
      { backtestId: "1", algorithmId: "a@1", symbol: "X", timeframe: "1d", parameters: { fast: 5, slow: 9 } },
      {
        backtestId: "2",
        algorithmId: "a@1",
        symbol: "X",
        timeframe: "1d",
        parameters: { fast: 7, slow: 9 },
        warmup: 3,
      },
    ];
    const rows = configRows(configs);
    expect(rows.filter(({ differs }) => differs)).toEqual([
      { path: "parameters.fast", values: ["5", "7"], differs: true },
      { path: "warmup", values: [undefined, "3"], differs: true },
    ]);
    expect(rows.some(({ path }) => path === "backtestId")).toBe(false);
    expect(namesOf(configs.map(configOf))).toEqual(["1. a X 1d, fast 5", "2. a X 1d, fast 7"]);
  });
});
