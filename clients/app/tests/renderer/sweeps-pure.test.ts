import type { AlgorithmInfo, SeriesInfo } from "@backtestr/client/page";
import fc from "fast-check";
import { expect, test } from "vitest";
import { distance, oklabOf, SCALE, stepOf } from "../../renderer/src/charts/colour-scale";
import { fieldAt, layoutOf, rectOf } from "../../renderer/src/charts/field-layout";
import { linesOf, MOST_LINES } from "../../renderer/src/charts/parallel-lines";
import { domainOf, shareOf } from "../../renderer/src/charts/value-domain";
import { EMPTY_DRAFT } from "../../renderer/src/screens/run/run-draft";
import { axesOf, fieldOf, fieldText, MOST_FIELDS, objectiveAxis } from "../../renderer/src/screens/sweeps/axes";
import { admitted, whereOf, withBrush } from "../../renderer/src/screens/sweeps/brushes";
import { columnsOf, MOST_CELLS, SweepCells } from "../../renderer/src/screens/sweeps/cells";
import { fieldGrid, NOT_RUN } from "../../renderer/src/screens/sweeps/field-grid";
import { checkedSweep, EMPTY_SWEEP, type SweepDraft } from "../../renderer/src/screens/sweeps/sweep-draft";
import {
  buildSweep,
  draftsOf,
  METRICS,
  pythonName,
  suggestedSpace,
} from "../../renderer/src/screens/sweeps/sweep-request";

const ALGORITHM: AlgorithmInfo = {
  algorithmId: "cross@1",
  name: "cross",
  version: "1",
  description: "",
  requires: ["fast < slow"],
  parameters: [
    { name: "fast", type: "int", default: 10, low: 2, high: 500 },
    { name: "slow", type: "int", default: 30, low: 3, high: 1000 },
    { name: "lift", type: "float", default: 0.5, low: 0, high: 1 },
    { name: "both", type: "bool", default: true },
  ],
};
const SERIES: readonly SeriesInfo[] = [{ symbol: "EUR", timeframe: "1h", startTime: 0, endTime: 3_600_000, bars: 2 }];
const RUN = { ...EMPTY_DRAFT, algorithm: "cross", symbols: ["EUR"], timeframe: "1h" };

const built = (sweep: Partial<SweepDraft>, run = RUN) =>
  buildSweep(run, { ...EMPTY_SWEEP, ...sweep }, [ALGORITHM], SERIES);

test("steps of the scale are equal in perceived colour, and lighter all the way", () => {
  const colours = Array.from({ length: 256 }, (_, step) => {
    const [red = 0, green = 0, blue = 0] = SCALE.subarray(3 * step, 3 * step + 3);
    return oklabOf((red << 16) | (green << 8) | blue);
  });
  // Eight steps at a time: a single one is as small as the rounding of a colour. Where the way bends they are a bit nearer.
  const steps = Array.from({ length: 31 }, (_, at) => distance(colours[8 * at]!, colours[8 * at + 8]!));
  expect(Math.max(...steps) / Math.min(...steps)).toBeLessThan(1.3);
  for (let at = 8; at < 256; at += 8) expect(colours[at]![0]).toBeGreaterThan(colours[at - 8]![0]);
  expect([stepOf(-1), stepOf(0), stepOf(1), stepOf(2)]).toEqual([0, 0, 255, 255]);
});

test("the domain is all values, and without far ones where there are many", () => {
  expect(domainOf([1, Number.NaN, 3, -2], false)).toEqual({ worst: -2, best: 3, isCut: false });
  expect(domainOf([1, 3], true)).toEqual({ worst: 3, best: 1, isCut: false });
  expect(domainOf([Number.NaN, Number.POSITIVE_INFINITY], false)).toBeUndefined();
  const values = [...Array.from({ length: 500 }, (_, at) => at / 500), 1e9];
  const cut = domainOf(values, false);
  expect(cut?.isCut).toBe(true);
  expect(cut?.best).toBeLessThanOrEqual(1);
  expect(shareOf(1e9, cut!)).toBe(1);
  expect(shareOf(5, { worst: 5, best: 5, isCut: false })).toBe(1);
});

test("each value of an axis has its field, and the text of that field is the value", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: -1000, max: 1000 }),
      fc.integer({ min: 1, max: 50 }),
      fc.integer({ min: 2, max: MOST_FIELDS }),
      (low, step, count) => {
        const [axis] = axesOf({ a: { low, high: low + step * (count - 1), step } });
        expect(axis!.count).toBe(count);
        for (const place of [0, 1, count - 1]) {
          expect(fieldOf(axis!, low + step * place)).toBe(place);
          expect(fieldText(axis!, place)).toBe(String(low + step * place).replace("-", "−"));
          expect(axis!.valueAt(axis!.share(low + step * place))).toBe(low + step * place);
        }
      },
    ),
  );
});

test("lists, truths, texts, logarithms and many values have axes; one value has none", () => {
  const space = {
    one: [5],
    list: [20, 5, 10],
    both: [false, true],
    kind: ["b", "a"],
    wide: { low: 1, high: 100, distribution: "log_uniform" },
    many: { low: 0, high: 9_999, step: 1 },
    alone: 3,
  };
  const [list, both, kind, wide, many] = axesOf(space);
  expect(axesOf(space).map((one) => one.name)).toEqual(["list", "both", "kind", "wide", "many"]);
  expect([5, 10, 20].map((value) => fieldOf(list!, value))).toEqual([0, 1, 2]);
  expect([fieldText(both!, 0), fieldText(both!, 1)]).toEqual(["false", "true"]);
  expect([fieldText(kind!, 0), fieldText(kind!, 1), kind!.isNumeric]).toEqual(["b", "a", false]);
  expect(wide!.share(10)).toBeCloseTo(0.5);
  expect(wide!.valueAt(0.5)).toBeCloseTo(10);
  expect(many!.fields).toBe(MOST_FIELDS);
  expect(fieldText(many!, 0)).toBe("0 to 24");
  expect(fieldText(many!, MOST_FIELDS - 1)).toBe("9975 to 9999");
  for (const value of [0, 24, 25, 5_000, 9_974, 9_975, 9_999]) {
    const [from, to] = fieldText(many!, fieldOf(many!, value)).split(" to ").map(Number);
    expect(value >= from! && value <= to!).toBe(true);
  }
  expect(fieldOf(many!, Number.NaN)).toBe(0);
});

test("where every nth cell is known, each field of a full grid has some", () => {
  for (const [across, up] of [
    [498, 988],
    [1000, 1000],
    [256, 1024],
  ] as const) {
    const stride = Math.ceil((across * up) / MOST_CELLS);
    const space = { fast: { low: 1, high: across, step: 1 }, slow: { low: 1, high: up, step: 1 } };
    const [x, y] = axesOf(space, stride);
    const known = Array.from({ length: Math.ceil((across * up) / stride) }, (_, at) => at * stride);
    const cells = new SweepCells(["fast", "slow"]);
    const fast = known.map((cell) => 1 + Math.floor(cell / up));
    const slow = known.map((cell) => 1 + (cell % up));
    cells.add({ cell: known, value: known, parameters: { fast, slow } });
    const { best } = fieldGrid({ cells, x: x!, y: y!, isLessBetter: false, admits: () => true });
    expect(best.filter((one) => one === NOT_RUN).length / best.length).toBeLessThan(0.01);
    expect(best.length).toBeGreaterThan(5_000);
  }
});

function cellsOf(rows: readonly (readonly [cell: number, fast: number, slow: number, value: number])[]): SweepCells {
  const cells = new SweepCells(["fast", "slow"]);
  const column = (at: number): number[] => rows.map((row) => row[at] as number);
  cells.add({ cell: column(0), value: column(3), parameters: { fast: column(1), slow: column(2) } });
  return cells;
}

const AXES = axesOf({ fast: { low: 1, high: 3, step: 1 }, slow: [10, 20] });

test("a field has the best of its cells, whichever way is better, and none only where no cell has a value", () => {
  const cells = cellsOf([
    [0, 1, 10, 5],
    [1, 1, 10, 7],
    [2, 1, 10, Number.NaN],
    [3, 2, 20, Number.NaN],
  ]);
  const of = { cells, x: AXES[0]!, y: AXES[1]!, admits: () => true };
  const most = fieldGrid({ ...of, isLessBetter: false });
  expect(Array.from(most.best)).toEqual([1, NOT_RUN, NOT_RUN, NOT_RUN, 3, NOT_RUN]);
  expect(Array.from(most.counts)).toEqual([3, 0, 0, 0, 1, 0]);
  expect(fieldGrid({ ...of, isLessBetter: true }).best[0]).toBe(0);
  expect(fieldGrid({ ...of, isLessBetter: false, admits: (place) => place === 2 }).best[0]).toBe(2);
});

test("cells come once, in any order and number, up to the most that are kept", () => {
  const cells = cellsOf([
    [7, 1, 10, 1],
    [7, 1, 10, 1],
    [3, 2, 20, 2],
  ]);
  expect([cells.count, cells.placeOf(3), cells.placeOf(4)]).toEqual([2, 1, undefined]);
  const many = MOST_CELLS + 10;
  const all = Float64Array.from({ length: many }, (_, at) => at);
  cells.add({ cell: all, value: all, parameters: { fast: all, slow: all } });
  expect(cells.count).toBe(MOST_CELLS);
  expect(cells.values[cells.placeOf(60_000)!]).toBe(60_000);
  expect(Array.from(cells.values.subarray(0, 2))).toEqual([1, 2]); // what was there stays
});

test("columns of progress are read as the wire has them", () => {
  const whole = new DataView(new ArrayBuffer(16));
  whole.setBigInt64(0, 5n, true);
  whole.setBigInt64(8, -(2n ** 40n), true);
  const bytes = new Uint8Array(whole.buffer);
  const value = new Uint8Array(new Float64Array([1.5, Number.NaN]).buffer);
  const read = columnsOf({
    cell: { dtype: "<i8", data: bytes },
    fast: { dtype: "<i8", data: bytes },
    value: { dtype: "<f8", data: value },
  });
  expect(Array.from(read.cell)).toEqual([5, -(2 ** 40)]);
  expect(Array.from(read.value)).toEqual([1.5, Number.NaN]);
  expect(Object.keys(read.parameters)).toEqual(["fast"]);
});

test("brushes choose the rows that their filter chooses at the broker", () => {
  const cells = cellsOf(Array.from({ length: 6 }, (_, at) => [at, 1 + (at % 3), at < 3 ? 10 : 20, at * 1.5] as const));
  const axes = [...AXES, objectiveAxis("sharpe_ratio", { worst: 0, best: 7.5 }, String)];
  let brushes = withBrush({}, "fast", { from: 0.4, to: 1 });
  brushes = withBrush(brushes, "sharpe_ratio", { from: 0, to: 0.7 });
  const test = admitted(brushes, axes, cells);
  expect([0, 1, 2, 3, 4, 5].filter(test)).toEqual([1, 2]);
  expect(whereOf(brushes, axes)).toBe("fast >= 2 and sharpe_ratio <= 5.25");
  expect(withBrush(brushes, "fast", { from: 0, to: 1 })).toEqual({ sharpe_ratio: { from: 0, to: 0.7 } });
  expect(whereOf({}, axes)).toBeUndefined();
  // Where less is better the axis falls.
  const falling = objectiveAxis("max_drawdown", { worst: 0.5, best: 0.1 }, String);
  expect(whereOf({ max_drawdown: { from: 0.5, to: 1 } }, [falling])).toBe("max_drawdown <= 0.3");
  expect(fieldText(objectiveAxis("a", { worst: 2, best: 2 }, String), 0)).toBe("2");
});

test("of many rows the best are drawn as lines, and some of all others", () => {
  const count = 50_000;
  const quality = Float64Array.from({ length: count }, (_, row) => ((row * 7919) % count) / count);
  quality[3] = Number.NaN;
  const lines = linesOf({ shares: [], quality, admits: (row) => row !== 5 });
  const drawn = new Set(lines.steps.flatMap((one) => one.rows));
  expect(lines.isPart).toBe(true);
  expect(drawn.size).toBeLessThanOrEqual(MOST_LINES);
  expect(drawn.size).toBeGreaterThan(MOST_LINES / 2);
  expect(drawn.has(quality.indexOf((count - 1) / count))).toBe(true); // the best of all
  expect(lines.others).toEqual([3, 5]);
  expect(lines.steps.map((one) => one.step)).toEqual(lines.steps.map((one) => one.step).sort((a, b) => a - b));
});

test("a point of the map is in the field that is drawn there", () => {
  const context = { measureText: (text: string) => ({ width: 6 * text.length }) as TextMetrics };
  const side = (fields: number) => ({ name: "a", fields, text: (field: number) => String(field) });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 60 }), fc.nat(), (across, up, at) => {
      const layout = layoutOf(context, 700, 500, side(across), side(up));
      const field = at % (across * up);
      const [x, y, width, height] = rectOf(layout, field);
      expect(fieldAt(layout, x + width / 2, y + height / 2)).toBe(field);
      expect(fieldAt(layout, layout.left - 1, y)).toBeUndefined();
    }),
  );
  expect(layoutOf(context, 300, 200, side(400), side(400)).columns.length).toBeLessThan(12);
});

test("the form suggests ranges of the first two numbers, which can be sent as they are", () => {
  expect(suggestedSpace(ALGORITHM)).toMatchObject({
    fast: { kind: "range", low: "5", high: "20", step: "2" },
    slow: { kind: "range", low: "15", high: "60", step: "5" },
    lift: { kind: "fixed" },
    both: { kind: "fixed" },
  });
  const { request, errors, counts } = built({});
  expect(errors).toEqual({});
  expect(counts).toEqual({ fast: 8, slow: 10 });
  expect(request).toEqual({
    config: expect.objectContaining({ algorithmId: "cross", symbol: "EUR", parameters: {} }),
    space: { fast: { low: 5, high: 20, step: 2 }, slow: { low: 15, high: 60, step: 5 } },
    method: "grid",
    objective: "sharpe_ratio",
    direction: "maximize",
  });
});

test("lists, fixed values, distributions and the numbers of a method are sent, and no pace", () => {
  const space = {
    cross: {
      fast: { kind: "list", list: "5, 10;20" },
      slow: { kind: "fixed" },
      lift: { kind: "log_uniform", low: "0.1", high: "1", step: "" },
      both: { kind: "list", list: "true,false" },
    },
  };
  const run = { ...RUN, pace: "10", parameters: { cross: { fast: "99999", slow: "44" } } };
  const { request, errors } = built(
    { space, method: "tpe", trials: "1,000", seed: "4", batchSize: "8", where: " fast > 5 ", metrics: "all" },
    run,
  );
  expect(errors).toEqual({});
  expect(request?.config.parameters).toEqual({ slow: 44 });
  expect(request?.config.options).toEqual({});
  expect(request).toMatchObject({
    space: {
      fast: [5, 10, 20],
      lift: { low: 0.1, high: 1, distribution: "log_uniform" },
      both: [true, false],
    },
    method: "tpe",
    trials: 1000,
    seed: 4,
    batchSize: 8,
    where: "fast > 5",
    metrics: ["all"],
  });
});

test("mistakes of the space are said at their parameter, before anything is sent", () => {
  const wrong = (axis: object): string | undefined => built({ space: { cross: { fast: axis } } }).errors["space.fast"];
  expect(wrong({ kind: "range", low: "1" })).toBe(
    "parameter 'fast' of cross must be a whole number within 2..500, not '1'",
  );
  expect(wrong({ kind: "range", low: "50", high: "20" })).toContain("not from 50 to 20");
  expect(wrong({ kind: "range", step: "0" })).toBe("The step is a number above 0.");
  expect(wrong({ kind: "range", step: "1.5" })).toBe("The step is a whole number.");
  expect(wrong({ kind: "list", list: " " })).toContain("at least one value");
  expect(wrong({ kind: "list", list: "5, x" })).toContain("not 'x'");
  expect(wrong({ kind: "list", list: "5 5" })).toBe("5 is there more than once.");
  const none = built({ space: { cross: { fast: { kind: "fixed" }, slow: { kind: "fixed" } } } });
  expect(none.errors.space).toContain("Choose a parameter to sweep");
  expect(none.request).toBeUndefined();
  expect(built({ method: "random", trials: "0" }).errors.trials).toBe("A whole number, 1 or more.");
  expect(built({ method: "grid", trials: "0" }).errors).toEqual({});
});

test("a sweep's request comes back from the drafts that it fills", () => {
  const { request } = built({ method: "random", trials: "50", where: "slow > 2 * fast" });
  const drafts = draftsOf({ ...request!, seed: 0 }, [ALGORITHM], EMPTY_SWEEP);
  expect(buildSweep(drafts.run, drafts.sweep, [ALGORITHM], SERIES).request).toEqual(request);
});

test("what was kept of another version, or is no draft, breaks nothing", () => {
  expect(checkedSweep("x")).toBeUndefined();
  expect(checkedSweep({ where: 5, space: { a: { b: { low: 5 } } }, more: 1 })).toEqual({
    ...EMPTY_SWEEP,
    space: { a: { b: { low: "5" } } },
  });
  fc.assert(
    fc.property(fc.anything(), (kept) => {
      const draft = checkedSweep(kept);
      if (draft !== undefined) expect(Object.keys(draft)).toEqual(Object.keys(EMPTY_SWEEP));
    }),
  );
});

test("metrics have the names of Python", () => {
  expect(pythonName("conditionalValueAtRisk95")).toBe("conditional_value_at_risk_95");
  expect(METRICS.get("max_drawdown_duration_ms")?.name).toBe("maxDrawdownDurationMs");
});
