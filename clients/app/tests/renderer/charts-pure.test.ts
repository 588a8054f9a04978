/** Laws of the pure parts of charts. */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BarColumns, SLICE_BARS } from "../../renderer/src/charts/bar-columns";
import { barsPerCandle, isOutgrown, levelFor, MAX_IN_VIEW, windowFor } from "../../renderer/src/charts/candle-window";
import { envelope } from "../../renderer/src/charts/envelope";
import { type FillColumns, fillAt, fillsOfTrade, tradeOfFill } from "../../renderer/src/charts/fill-columns";
import { Coalesced } from "../../renderer/src/charts/frame";
import { binned } from "../../renderer/src/charts/histogram-bins";
import { buyAndHold } from "../../renderer/src/charts/market-curve";
import { largestMonth, monthlyReturns } from "../../renderer/src/charts/monthly";
import { Pyramid } from "../../renderer/src/charts/pyramid";
import { keyAction, moved, type Range, within, zoomed } from "../../renderer/src/charts/range";
import { Ring } from "../../renderer/src/charts/ring";
import { ratePerBar, rollingSharpe, rollingWindow } from "../../renderer/src/charts/rolling-sharpe";
import { lowerBound, nearestIndex, upperBound } from "../../renderer/src/charts/search";
import { sparklinePath } from "../../renderer/src/charts/sparkline-path";
import { factsOf, summaryOf } from "../../renderer/src/charts/summary";

const value = fc.oneof(
  { weight: 8, arbitrary: fc.double({ min: -1e6, max: 1e6, noNaN: true }) },
  { weight: 1, arbitrary: fc.constant(Number.NaN) },
);
const column = (max: number): fc.Arbitrary<number[]> => fc.array(value, { maxLength: max });
const finite = fc.double({ min: -1e6, max: 1e6, noNaN: true });

function plainExtremes(values: readonly number[]): [number, number] {
  const found = values.filter((one) => !Number.isNaN(one));
  return [Math.min(...found), Math.max(...found)];
}

describe("search", () => {
  it("finds the bounds of equal values, as a look at each would", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 20 })), fc.integer({ min: -1, max: 21 }), (values, wanted) => {
        const sorted = Float64Array.from(values).sort();
        expect(lowerBound(sorted, wanted)).toBe(sorted.filter((one) => one < wanted).length);
        expect(upperBound(sorted, wanted)).toBe(sorted.filter((one) => one <= wanted).length);
        const nearest = nearestIndex(sorted, wanted);
        if (sorted.length === 0) expect(nearest).toBe(-1);
        else
          for (const one of sorted)
            expect(Math.abs(sorted[nearest]! - wanted)).toBeLessThanOrEqual(Math.abs(one - wanted));
      }),
    );
  });
});

describe("Pyramid", () => {
  it("has the extremes of every range, however its values came", () => {
    fc.assert(
      fc.property(column(900), column(900), fc.nat(2000), fc.nat(2000), (given, pushed, one, other) => {
        const pyramid = new Pyramid(Float64Array.from(given));
        for (const each of pushed) pyramid.push(each);
        const all = [...given, ...pushed];
        expect(pyramid.length).toBe(all.length);
        const [from, to] = [Math.min(one, other), Math.max(one, other)];
        const { min, max } = pyramid.extremes(from, to);
        expect([min, max]).toEqual(plainExtremes(all.slice(from, to)));
      }),
      { numRuns: 300 },
    );
  });

  it("does not change a column that it was given", () => {
    const values = Float64Array.of(1, 2);
    const pyramid = new Pyramid(values.subarray(0, 1));
    pyramid.push(9);
    expect([...values]).toEqual([1, 2]);
  });

  it("grows over many levels", () => {
    const pyramid = new Pyramid();
    for (let index = 0; index < 70_000; index += 1) pyramid.push(Math.sin(index));
    const values = Array.from({ length: 70_000 }, (_, index) => Math.sin(index));
    for (const [from, to] of [
      [0, 70_000],
      [17, 69_999],
      [4096, 65_536],
      [33_333, 33_340],
    ] as const) {
      const { min, max } = pyramid.extremes(from, to);
      expect([min, max]).toEqual(plainExtremes(values.slice(from, to)));
    }
  });
});

describe("envelope", () => {
  const points = fc.array(fc.tuple(fc.integer({ min: 1, max: 50 }), value, value), { minLength: 1, maxLength: 600 });

  it("has at each pixel the extremes of all values there", () => {
    fc.assert(
      fc.property(points, fc.integer({ min: 1, max: 40 }), fc.nat(100), fc.nat(100), (rows, pixels, one, other) => {
        let x = 0;
        const xs = Float64Array.from(rows, ([step]) => {
          x += step;
          return x;
        });
        const columns = [1, 2].map((index) => Float64Array.from(rows, (row) => row[index]!));
        const [from, to] = [(Math.min(one, other) / 100) * x, (Math.max(one, other) / 100) * x + 1];
        const shown = envelope(
          xs,
          columns.map((each) => new Pyramid(each)),
          { from, to, pixels },
        );
        expect([...shown.xs].sort((a, b) => a - b)).toEqual(shown.xs);
        const pixelOf = (at: number): number => Math.floor((at - from) / ((to - from) / pixels));
        for (const [index, each] of columns.entries()) {
          const drawn = new Map<number, number[]>();
          for (const [place, at] of shown.xs.entries()) {
            const y = shown.series[index]![place]!;
            drawn.set(pixelOf(at), [...(drawn.get(pixelOf(at)) ?? []), y === null ? Number.NaN : y]);
          }
          const raw = new Map<number, number[]>();
          for (const [place, at] of xs.entries()) {
            if (at >= from && at <= to) raw.set(pixelOf(at), [...(raw.get(pixelOf(at)) ?? []), each[place]!]);
          }
          // The pixels at the edges have the neighbours outside as well.
          for (const [pixel, values] of raw) {
            if (pixel > 0 && pixel < pixels - 1)
              expect(plainExtremes(drawn.get(pixel)!)).toEqual(plainExtremes(values));
          }
        }
      }),
      { numRuns: 200 },
    );
  });

  it("draws each point where there is room, with gaps for what is no number", () => {
    const xs = Float64Array.of(1, 2, 3, 4, 5);
    const shown = envelope(xs, [new Pyramid(Float64Array.of(1, Number.NaN, 3, 4, 5))], { from: 2, to: 4, pixels: 100 });
    expect(shown).toEqual({ xs: [1, 2, 3, 4, 5], series: [[1, null, 3, 4, 5]], isExact: true });
  });

  it("has few points of a million", () => {
    const xs = Float64Array.from({ length: 1_000_000 }, (_, index) => index);
    const shown = envelope(xs, [new Pyramid(xs)], { from: 0, to: 999_999, pixels: 1000 });
    expect(shown.isExact).toBe(false);
    expect(shown.xs.length).toBeLessThanOrEqual(2 * 1001);
  });
});

describe("ranges", () => {
  const range = fc
    .tuple(finite, fc.double({ min: 1e-3, max: 1e6, noNaN: true }))
    .map(([from, span]): Range => ({ from, to: from + span }));

  it("stay within their bounds", () => {
    fc.assert(
      fc.property(
        range,
        range,
        fc.double({ min: 0.01, max: 100, noNaN: true }),
        finite,
        (one, bounds, factor, anchor) => {
          const start = within(one, bounds);
          for (const made of [start, zoomed(start, factor, anchor, bounds, 1e-3), moved(start, factor - 50, bounds)]) {
            expect(made.from).toBeGreaterThanOrEqual(bounds.from - 1e-6);
            expect(made.to).toBeLessThanOrEqual(bounds.to + 1e-6);
            expect(made.to).toBeGreaterThan(made.from);
          }
        },
      ),
    );
  });

  it("zoom about a place that stays", () => {
    const made = zoomed({ from: 0, to: 100 }, 0.5, 25, { from: 0, to: 1000 }, 1);
    expect(made).toEqual({ from: 12.5, to: 62.5 });
    expect(zoomed({ from: 0, to: 10 }, 0.001, 5, { from: 0, to: 1000 }, 2)).toEqual({ from: 4, to: 6 });
  });

  it("follow the keys", () => {
    const bounds = { from: 0, to: 100 };
    const view = { from: 40, to: 60 };
    expect(keyAction("ArrowRight", true, view, bounds, 1)).toEqual({ kind: "range", range: { from: 44, to: 64 } });
    expect(keyAction("ArrowLeft", false, view, bounds, 1)).toEqual({ kind: "cursor", steps: -1 });
    expect(keyAction("+", false, view, bounds, 1)).toEqual({ kind: "range", range: { from: 45, to: 55 } });
    expect(keyAction("-", false, view, bounds, 1)).toEqual({ kind: "range", range: { from: 30, to: 70 } });
    expect(keyAction("PageUp", false, view, bounds, 1)).toEqual({ kind: "range", range: { from: 22, to: 42 } });
    expect(keyAction("0", false, view, bounds, 1)).toEqual({ kind: "range", range: bounds });
    expect(keyAction("End", false, view, bounds, 1)).toEqual({ kind: "end", side: "last" });
    expect(keyAction("a", false, view, bounds, 1)).toBeUndefined();
  });
});

describe("summaries", () => {
  const wording = { value: String, time: (at: number) => `t${at}` };

  it("say the first, the last and the extremes of finite values", () => {
    fc.assert(
      fc.property(column(50), (values) => {
        const facts = factsOf(
          values.map((_, index) => index),
          values,
        );
        const found = values.filter(Number.isFinite);
        if (found.length === 0) {
          expect(facts).toBeUndefined();
          return;
        }
        expect([facts!.lowest.value, facts!.highest.value]).toEqual([Math.min(...found), Math.max(...found)]);
        expect([facts!.first.value, facts!.last.value]).toEqual([found[0], found.at(-1)]);
        expect(facts!.count + facts!.missing).toBe(values.length);
      }),
    );
  });

  it("are sentences", () => {
    const said = (values: number[]): string => summaryOf("Equity", factsOf([0, 1, 2], values), wording);
    expect(said([10, 5, 20])).toBe(
      "Equity rises from 10 at t0 to 20 at t2. Lowest 5 at t1, highest 20 at t2. 3 values.",
    );
    expect(said([10, Number.NaN, 5])).toContain("Equity falls from 10 at t0 to 5 at t2.");
    expect(said([10, Number.NaN, 5])).toContain("1 values are missing.");
    expect(said([7, 7, 7])).toContain("stays level");
    expect(said([Number.NaN])).toBe("Equity has no values.");
    expect(said([3])).toBe("Equity has one value: 3 at t0.");
  });
});

describe("rolling Sharpe ratio", () => {
  const steps = fc.array(fc.double({ min: -0.05, max: 0.05, noNaN: true }), { minLength: 1, maxLength: 200 });

  it("is that of each window, computed alone", () => {
    fc.assert(
      fc.property(steps, fc.integer({ min: 2, max: 60 }), (returns, window) => {
        let worth = 1000;
        const equity = returns.map((one) => (worth *= 1 + one));
        const ratios = rollingSharpe(equity, 1000, window, 252, 0.03);
        const f = ratePerBar(0.03, 252);
        const made = equity.map((one, bar) => one / (bar === 0 ? 1000 : equity[bar - 1]!) - 1 - f);
        for (let bar = 0; bar < equity.length; bar += 1) {
          if (bar < window - 1) {
            expect(ratios[bar]).toBeNaN();
            continue;
          }
          const within = made.slice(bar - window + 1, bar + 1);
          const mean = within.reduce((sum, one) => sum + one, 0) / window;
          const deviation = Math.sqrt(within.reduce((sum, one) => sum + (one - mean) ** 2, 0) / (window - 1));
          if (deviation > 1e-9) {
            const alone = (mean / deviation) * Math.sqrt(252);
            // Returns are rounded to 1e-17 or so, that is 1e-8 of a spread of 1e-9.
            expect(Math.abs(ratios[bar]! - alone)).toBeLessThanOrEqual(1e-6 * Math.max(1, Math.abs(alone)));
          }
        }
      }),
    );
  });

  it("is undefined where nothing varies, and before a window is full", () => {
    expect([...rollingSharpe([100, 100, 100], 100, 2, 252, 0)]).toEqual([Number.NaN, Number.NaN, Number.NaN]);
    expect([...rollingSharpe([100, 101], 100, 3, 252, 0)]).toEqual([Number.NaN, Number.NaN]);
  });

  it("is undefined where an account rests after it has moved", () => {
    const moves = Array.from({ length: 50 }, (_, bar) => 100 * (1 + 0.3 * Math.sin(bar)));
    const equity = [...moves, ...new Array(60).fill(moves.at(-1))];
    expect([...rollingSharpe(equity, 100, 20, 252, 0.02).slice(50 + 19)].every(Number.isNaN)).toBe(true);
  });

  it("forgets a large return that has left the window", () => {
    const small = Array.from({ length: 40 }, (_, bar) => 1 + 1e-8 * Math.sin(bar));
    const calm = rollingSharpe(small, 1, 20, 252, 0.03);
    const after = rollingSharpe([...[0.5, 0.7, 0.9, 1], ...small], 1, 20, 252, 0.03);
    for (let bar = 20; bar < small.length; bar += 1) {
      expect(after[bar + 4]! / calm[bar]! - 1).toBeCloseTo(0, 9);
    }
  });

  it("has no error that grows with the bars", () => {
    const equity = Float64Array.from({ length: 50_000 }, (_, bar) => 1e5 * Math.exp(bar * 1e-5 + 0.01 * Math.sin(bar)));
    const all = rollingSharpe(equity, 1e5, 500, 252, 0);
    const tail = rollingSharpe(equity.subarray(49_400), equity[49_399]!, 500, 252, 0);
    expect(all.at(-1)).toBeCloseTo(tail.at(-1)!, 8);
  });

  it("takes a quarter of a year, or of the bars", () => {
    expect(rollingWindow(252, 10_000)).toBe(63);
    expect(rollingWindow(252, 100)).toBe(25);
    expect(rollingWindow(525_600, 1000)).toBe(250);
    expect(rollingWindow(252, 10)).toBe(20);
  });
});

describe("monthly returns", () => {
  it("compound to the total return", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 90 }), fc.double({ min: 50, max: 200, noNaN: true })), {
          minLength: 1,
          maxLength: 60,
        }),
        (rows) => {
          let day = 0;
          const times = rows.map(([gap]) => {
            day += gap;
            return Date.UTC(2020, 0, 1) + day * 86_400_000;
          });
          const equity = rows.map(([, one]) => one);
          const years = monthlyReturns(times, equity, 100);
          const compounded = years.reduce(
            (product, { months }) => months.reduce((so, one) => (Number.isNaN(one) ? so : so * (1 + one)), product),
            1,
          );
          const byYear = years.reduce((so, { total }) => (Number.isNaN(total) ? so : so * (1 + total)), 1);
          expect(100 * compounded).toBeCloseTo(equity.at(-1)!, 6);
          expect(100 * byYear).toBeCloseTo(equity.at(-1)!, 6);
          expect(years.map(({ year }) => year)).toEqual(years.map((_, index) => years[0]!.year + index));
        },
      ),
    );
  });

  it("end where nothing is left", () => {
    const times = [Date.UTC(2020, 0, 5), Date.UTC(2020, 1, 5), Date.UTC(2020, 2, 5)];
    const [year] = monthlyReturns(times, [110, 0, 50], 100);
    expect([...year!.months.slice(0, 3)]).toEqual([110 / 100 - 1, -1, Number.NaN]);
    expect(largestMonth([year!])).toBe(1);
  });
});

describe("histogram", () => {
  it("counts every finite value in a bin that holds it, and zero is an edge", () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.double({ min: -1, max: 1, noNaN: true }), fc.constant(Number.NaN)), { maxLength: 300 }),
        (values) => {
          const bins = binned(values);
          const found = values.filter(Number.isFinite);
          expect(bins.reduce((sum, { count }) => sum + count, 0)).toBe(found.length);
          expect(bins.length).toBeLessThanOrEqual(61);
          for (const { from, to } of bins) expect(from < 0 && to > 1e-12).toBe(false);
          if (found.length > 0) {
            const slack = (bins[0]!.to - bins[0]!.from) * 1e-6;
            expect(bins[0]!.from).toBeLessThanOrEqual(Math.min(...found) + slack);
            expect(bins.at(-1)!.to).toBeGreaterThanOrEqual(Math.max(...found) - slack);
          }
        },
      ),
    );
  });

  it("has one bin for one value", () => {
    expect(binned([0, 0])).toEqual([{ from: 0, to: 1, count: 2 }]);
    expect(binned([0.02]).map(({ count }) => count)).toEqual([1]);
    expect(binned([])).toEqual([]);
  });
});

describe("fills", () => {
  const fills: FillColumns = {
    times: Float64Array.of(10, 20, 20, 30),
    prices: Float64Array.of(1, 2, 3, 4),
    sides: Int8Array.of(1, -1, 1, -1),
    quantities: Float64Array.of(1, 1, 1, 1),
    opens: Int32Array.of(0, -1, 1, -1),
    closes: Int32Array.of(-1, 0, -1, 1),
  };

  it("are found by their trade", () => {
    expect(fillsOfTrade(fills, 1)).toEqual([2, 3]);
    expect([0, 1, 2, 3].map((fill) => tradeOfFill(fills, fill))).toEqual([0, 0, 1, 1]);
  });

  it("are hit by what is nearest within the radius", () => {
    const drawn = { first: 5, count: 3, xs: Float32Array.of(0, 10, 10), ys: Float32Array.of(0, 0, 0) };
    expect(fillAt(drawn, 1, 1, 5)).toBe(5);
    expect(fillAt(drawn, 9, 0, 5)).toBe(7);
    expect(fillAt(drawn, 5, 5, 5)).toBe(-1);
  });
});

describe("candle windows", () => {
  it("hold their view, with a bounded number of candles", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2_000_000 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (bars, one, other) => {
          const view = { from: Math.min(one, other) * bars, to: Math.max(one, other) * bars };
          const made = windowFor(view, bars);
          const size = barsPerCandle(made.level);
          expect(made.end).toBeGreaterThan(made.first);
          expect(made.first * size).toBeLessThanOrEqual(Math.min(view.from, bars - 1));
          expect(made.end * size).toBeGreaterThanOrEqual(view.to);
          expect(made.end - made.first).toBeLessThanOrEqual(2 * MAX_IN_VIEW + 3);
          expect((view.to - view.from) / size).toBeLessThanOrEqual(MAX_IN_VIEW);
          expect(isOutgrown(made, view, bars)).toBe(false);
          expect(isOutgrown(undefined, view, bars)).toBe(true);
        },
      ),
    );
  });

  it("are outgrown by another level, and by a view beyond them", () => {
    const bars = 1_000_000;
    const made = windowFor({ from: 5000, to: 6000 }, bars);
    expect(isOutgrown(made, { from: 5400, to: 6400 }, bars)).toBe(false);
    expect(isOutgrown(made, { from: 5600, to: 6600 }, bars)).toBe(true);
    expect(isOutgrown(made, { from: 0, to: 100_000 }, bars)).toBe(true);
    expect(levelFor({ from: 0, to: 1_000_000 })).toBe(4);
  });
});

describe("BarColumns", () => {
  const bars = SLICE_BARS + 100;
  const times = Float64Array.from({ length: bars }, (_, index) => 1000 * index);

  function part(from: number, to: number): { [name in "times" | "open" | "high" | "low" | "close"]: Float64Array } {
    const at = Float64Array.from({ length: to - from }, (_, index) => from + index);
    return {
      times: at.map((one) => 1000 * one),
      open: at,
      high: at.map((one) => one + 2),
      low: at.map((one) => one - 2),
      close: at.map((one) => one + 1),
    };
  }

  it("makes candles of what is loaded", () => {
    const made = new BarColumns(times);
    expect(made.missing(0, 0, bars)).toEqual([0, 1]);
    made.put(1, part(SLICE_BARS, bars));
    const { open, high, low, close } = made.candles(2);
    expect(open[0]).toBeNaN();
    const candle = SLICE_BARS / 16;
    expect([open[candle], high[candle], low[candle], close[candle]]).toEqual([
      SLICE_BARS,
      SLICE_BARS + 17,
      SLICE_BARS - 2,
      SLICE_BARS + 16,
    ]);
    made.put(0, part(0, SLICE_BARS));
    expect(open[0]).toBe(0);
    expect(made.isComplete).toBe(true);
    expect(made.missing(2, 0, Math.ceil(bars / 16))).toEqual([]);
    expect(made.spanOf(0)).toEqual({ from: 0, to: 1000 * SLICE_BARS });
    expect(made.spanOf(1)).toEqual({ from: 1000 * SLICE_BARS, to: null });
  });

  it("leaves a place without a bar empty", () => {
    const made = new BarColumns(Float64Array.of(0, 1000, 2000, 3000));
    const two = part(0, 4);
    const keep = (from: Float64Array): Float64Array => from.filter((_, index) => index !== 1);
    made.put(0, {
      times: keep(two.times),
      open: keep(two.open),
      high: keep(two.high),
      low: keep(two.low),
      close: keep(two.close),
    });
    expect([...made.candles(0).close]).toEqual([1, Number.NaN, 3, 4]);
    expect([...made.candles(1).close]).toEqual([4]);
  });
});

describe("buying and holding", () => {
  it("is the capital at the first close, in equal parts", () => {
    expect([...buyAndHold([[10, 20, 5]], 100, 3)]).toEqual([100, 200, 50]);
    expect([
      ...buyAndHold(
        [
          [10, Number.NaN, 20],
          [Number.NaN, 4, 2],
        ],
        100,
        3,
      ),
    ]).toEqual([100, 100, 125]);
    expect([...buyAndHold([], 100, 1)]).toEqual([Number.NaN]);
  });
});

describe("Ring", () => {
  it("keeps the latest", () => {
    fc.assert(
      fc.property(fc.array(fc.integer()), fc.integer({ min: 1, max: 9 }), (items, capacity) => {
        const ring = new Ring<number>(capacity);
        for (const one of items) ring.push(one);
        const kept = items.slice(-capacity);
        expect(Array.from({ length: ring.length }, (_, age) => ring.newest(age))).toEqual([...kept].reverse());
        expect(ring.newest(ring.length)).toBeUndefined();
        expect([ring.seen, ring.dropped]).toEqual([items.length, items.length - kept.length]);
      }),
    );
  });
});

describe("Coalesced", () => {
  it("draws once a frame", () => {
    const asked: (() => void)[] = [];
    let drawn = 0;
    const frames = {
      request: (callback: () => void) => asked.push(callback),
      cancel: (id: number) => {
        asked[id - 1] = () => undefined;
      },
    };
    const drawing = new Coalesced(() => {
      drawn += 1;
    }, frames);
    drawing.request();
    drawing.request();
    expect(asked).toHaveLength(1);
    asked[0]!();
    expect(drawn).toBe(1);
    drawing.request();
    drawing.cancel();
    asked[1]!();
    expect(drawn).toBe(1);
  });
});

describe("sparklines", () => {
  it("break at gaps, and are empty without values", () => {
    expect(sparklinePath([], 100, 20)).toBe("");
    expect(sparklinePath([Number.NaN], 100, 20)).toBe("");
    expect(sparklinePath([1, 2, Number.NaN, 3, 4], 100, 20).match(/M/g)).toHaveLength(2);
    expect(sparklinePath([5], 100, 20)).toContain("h0");
  });

  it("stay within their size", () => {
    fc.assert(
      fc.property(fc.array(finite, { minLength: 1, maxLength: 2000 }), (values) => {
        const numbers = [...sparklinePath(values, 100, 20).matchAll(/[ML]([\d.-]+) ([\d.-]+)/g)];
        expect(numbers.length).toBeLessThanOrEqual(4 * 100 + 101);
        for (const [, x, y] of numbers) {
          expect(Number(x)).toBeGreaterThanOrEqual(1);
          expect(Number(x)).toBeLessThanOrEqual(99);
          expect(Number(y)).toBeGreaterThanOrEqual(1);
          expect(Number(y)).toBeLessThanOrEqual(19);
        }
      }),
    );
  });
});
