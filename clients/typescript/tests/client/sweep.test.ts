/** Sweeps over a broker in this thread. */

import { Table as ArrowTable, Float64, tableToIPC, type Vector, vectorFromArray } from "apache-arrow";
import { describe, expect, test } from "vitest";
import {
  ClosedError,
  DataError,
  InvalidConfiguration,
  NotFound,
  SerializationError,
  type SweepOptions,
  type SweepUpdate,
  SystemFault,
  TimedOut,
} from "../../src/exports.js";
import { failed, settle } from "../support/fake-broker.js";
import { failure } from "../support/signing.js";
import { opened } from "../support/streams.js";

const CROSSING = { algorithm: "sma_cross", symbol: "S", timeframe: "1h", space: { fast: [1, 2] } };
const ACCEPTED = { cells: 6, combinations: 4, estimatedMs: 5, path: "fused", pathReason: "it is" };
const NOTHING_MISSED = {
  FetchMissed: ({ data }: { data: { topic: string; fromSeq: number } }) => ({
    topic: data.topic,
    fromSeq: data.fromSeq,
    toSeq: data.fromSeq - 1,
    oldestSeq: 1,
    messages: [],
  }),
};

function status(name: string, more: object = {}): object {
  const of = { objective: "sharpe_ratio", direction: "maximize", done: 2, of: 4, progressPercent: 50 };
  return { sweepId: "s", status: name, ...of, ...more };
}

function column(dtype: "<i8" | "<f8", ...values: number[]): object {
  const bytes = dtype === "<f8" ? Float64Array.from(values) : BigInt64Array.from(values.map(BigInt));
  return { dtype, data: new Uint8Array(bytes.buffer) };
}

/** A page of rows with these cells, of which so many last ones have no Sharpe ratio. */
function rows(cells: readonly number[], matching: number, without = 0): unknown {
  const sharpe = cells.map((cell, row) => (row < cells.length - without ? cell / 2 : null));
  const [cell, sharpe_ratio] = [cells, sharpe].map((values) => vectorFromArray(values, new Float64()));
  const bytes = tableToIPC(new ArrowTable({ cell, sharpe_ratio } as { cell: Vector }), "stream");
  const tables = [{ name: "rows", frame: 0, format: "arrow-ipc-stream", rows: cells.length }];
  return [{ sweepId: "s", stored: matching, matching, tables }, [bytes]];
}

describe("a sweep", () => {
  test("is started with its configuration, its space in its order, and all that was asked for", async () => {
    const [broker, client] = await opened({ StartSweep: () => ({ ...ACCEPTED, sweepId: "s", status: "queued" }) });
    const options: SweepOptions = {
      ...CROSSING,
      space: {
        slow: { low: 20, high: 40, step: 10 },
        fast: new Set([1, 2]),
        ratio: Float64Array.of(0.5, 1),
        kind: "a",
        both: [true, false],
        n: 3,
        share: { low: 0.1, high: 1, distribution: "log_uniform" },
      },
      where: "fast < slow",
      objective: "totalReturn",
      direction: "minimize",
      method: "random",
      trials: 2,
      seed: 9,
      metrics: ["all"],
      blockSize: 7,
      batchSize: 8,
      scheduler: "tcp://10.0.0.5:8786",
      sweepId: "s",
      start: "2022-01-03",
      capital: 5,
      commission: 0.001,
      parameters: { from: new Date(0) },
      options: { fillAt: "close" },
    };
    const sweep = await client.sweep(options);
    expect([sweep.id, sweep.accepted?.combinations]).toEqual(["s", 4]);
    const { data } = broker.of("StartSweep")[0] as { data: { space: object } };
    expect(data).toEqual({
      sweepId: "s",
      config: {
        algorithmId: "sma_cross",
        symbol: "S",
        timeframe: "1h",
        startDate: "2022-01-03T00:00:00.000Z",
        parameters: { from: "1970-01-01T00:00:00.000Z" },
        initialCapital: 5,
        commission: 0.001,
        slippage: 0,
        options: { fillAt: "close" },
      },
      space: {
        slow: { low: 20, high: 40, step: 10 },
        fast: [1, 2],
        ratio: [0.5, 1],
        kind: ["a"],
        both: [true, false],
        n: [3],
        share: { low: 0.1, high: 1, distribution: "log_uniform" },
      },
      where: "fast < slow",
      objective: "totalReturn",
      direction: "minimize",
      method: "random",
      trials: 2,
      seed: 9,
      metrics: ["all"],
      blockSize: 7,
      batchSize: 8,
      scheduler: "tcp://10.0.0.5:8786",
    });
    expect(Object.keys(data.space)).toEqual(["slow", "fast", "ratio", "kind", "both", "n", "share"]);
    await client.close();
  });

  test("has an id of its own, and is counted without one", async () => {
    const [broker, client] = await opened({ StartSweep: () => ACCEPTED });
    const [one, other] = [await client.sweep(CROSSING), await client.sweep(CROSSING)];
    expect(one.id).not.toBe(other.id);
    expect(await client.countSweep({ ...CROSSING, sweepId: "s" })).toMatchObject({ combinations: 4 });
    const [first, , counted] = broker.of("StartSweep").map(({ data }) => data);
    expect([first.sweepId, first.dryRun]).toEqual([one.id, undefined]);
    expect([counted.sweepId, counted.dryRun]).toEqual([undefined, true]);
    await client.close();
  });

  test.each([
    [{ space: { fast: [] } }, RangeError, "space.fast is empty: give at least one value"],
    [
      { space: { fast: { low: 5, high: 4, step: 1 } } },
      RangeError,
      "space.fast has no value: it goes from low 5 up to",
    ],
    [{ space: { fast: null } }, TypeError, "space.fast: expected a value, several, or { low, high, step }; null came"],
    [{ space: 5 }, TypeError, "space: expected values by parameter; 5 came"],
    [{ objectiv: "x" }, TypeError, 'did you mean "objective"?'],
    [{ trials: "5" }, TypeError, "StartSweep.trials: expected a number"],
  ])("is refused here with %j", async (wrong, kind, reason) => {
    const [broker, client] = await opened();
    const options = { ...CROSSING, ...wrong } as never;
    await expect(client.sweep(options)).rejects.toBeInstanceOf(kind);
    await expect(client.sweep(options)).rejects.toThrow(reason);
    await expect(client.countSweep(options)).rejects.toThrow(reason);
    expect(broker.of("StartSweep")).toEqual([]);
    await client.close();
  });

  test("is found where the broker knows it, and listed", async () => {
    const [broker, client] = await opened({
      GetSweepStatus: ({ data }) => (data.sweepId === "s" ? status("running") : failed("NOT_FOUND")),
      ListSweeps: () => ({ sweeps: [status("running")], count: 1 }),
    });
    const sweep = await client.findSweep("s");
    expect([sweep.id, sweep.accepted]).toEqual(["s", null]);
    await expect(client.findSweep("t")).rejects.toBeInstanceOf(NotFound);
    expect(await client.listSweeps({ status: "running", limit: 3 })).toMatchObject([{ sweepId: "s" }]);
    expect(broker.of("ListSweeps")[0]?.data).toEqual({ status: "running", limit: 3 });
    await client.close();
  });

  test("is steered, and deleted", async () => {
    const [broker, client] = await opened({
      GetSweepStatus: () => status("running"),
      PauseSweep: () => ({ ...ACCEPTED, status: "paused" }),
      ResumeSweep: () => ({ ...ACCEPTED, status: "running" }),
      StopSweep: () => ACCEPTED,
      DeleteSweep: () => ({ sweepId: "s", freedBytes: 9 }),
    });
    const sweep = await client.findSweep("s");
    expect([await sweep.pause(), await sweep.resume(), await sweep.delete()]).toEqual(["paused", "running", 9]);
    await expect(sweep.stop()).rejects.toThrow("the answer to StopSweep has no status");
    expect(broker.asked.slice(-4).map((one) => one.data)).toEqual(Array(4).fill({ sweepId: "s" }));
    await client.close();
  });

  test("raises the failure that it has had", async () => {
    let state = status("completed");
    const [, client] = await opened({ GetSweepStatus: () => state });
    const sweep = await client.findSweep("s");
    await expect(sweep.raiseFailure()).resolves.toBeUndefined();
    state = status("failed", { error: failure("DATA_ERROR") });
    await expect(sweep.raiseFailure()).rejects.toBeInstanceOf(DataError);
    state = status("failed");
    await expect(sweep.raiseFailure()).rejects.toBeInstanceOf(SystemFault);
    await client.close();
  });

  test("has rows that are run, with their streams from the first message", async () => {
    const [broker, client] = await opened({
      GetSweepStatus: () => status("completed"),
      GetSweepRun: ({ data }) => (data.row === 7 ? { backtestId: "b", status: "queued" } : failed("VALIDATION_ERROR")),
    });
    const sweep = await client.findSweep("s");
    const run = await sweep.run(7, { backtestId: "b", watch: ["orders"] });
    expect(run.id).toBe("b");
    expect(broker.of("GetSweepRun")[0]?.data).toEqual({ sweepId: "s", row: 7, backtestId: "b" });
    expect([...broker.prefixes]).toContain("orders orders.b");
    await sweep.run(7n);
    expect(broker.of("GetSweepRun")[1]?.data).toMatchObject({ row: 7 });
    await expect(sweep.run(8)).rejects.toThrow();
    await expect(sweep.run(7, { watch: ["order" as never] })).rejects.toThrow('did you mean "orders"?');
    await expect(sweep.run("7" as never)).rejects.toBeInstanceOf(TypeError);
    await client.close();
  });
});

test("trials are counted by what they are of", async () => {
  const group = { group: "0".repeat(32), algorithm: "sma_cross", trials: 5, runs: 9 };
  const [broker, client] = await opened({ GetTrials: () => ({ groups: [group], count: 1 }) });
  expect(await client.trials({ algorithm: "sma_cross", symbol: "S", limit: 3 })).toEqual([group]);
  await client.trials();
  expect(broker.of("GetTrials").map((one) => one.data)).toEqual([
    { algorithmId: "sma_cross", symbol: "S", limit: 3 },
    {},
  ]);
  await expect(client.trials({ algoritm: "x" } as never)).rejects.toThrow('did you mean "algorithm"?');
  await client.close();
});

test("trials are counted by a sweep and by a backtest that have a group, once it has some", async () => {
  const group = { group: "0".repeat(32), algorithm: "sma_cross", trials: 5, runs: 9 };
  let [groups, trialGroup]: [object[], string | undefined] = [[group], group.group];
  const [broker, client] = await opened({
    GetSweepStatus: () => status("running", { trialGroup }),
    GetBacktestStatus: () => ({ backtestId: "b", status: "completed" }),
    GetBacktestResults: () => ({
      backtestId: "b",
      status: "completed",
      config: {},
      metrics: null,
      tables: [],
      trialGroup,
    }),
    GetTrials: () => ({ groups, count: groups.length }),
  });
  const [sweep, run] = [await client.findSweep("s"), await client.run("b")];
  expect([await sweep.trials(), await run.trials()]).toEqual([group, group]);
  expect(broker.of("GetTrials").map((one) => one.data)).toEqual(Array(2).fill({ group: group.group }));
  expect((await client.results("b")).trialGroup).toBe(group.group);
  groups = [];
  expect([await sweep.trials(), await run.trials()]).toEqual([null, null]);
  trialGroup = undefined;
  expect([await sweep.trials(), await run.trials()]).toEqual([null, null]);
  expect((await client.results("b")).trialGroup).toBeNull();
  await client.close();
});

describe("the updates of a sweep", () => {
  test("have cells as columns of numbers, up to the end", async () => {
    const [broker, client] = await opened({ GetSweepStatus: () => status("running"), ...NOTHING_MISSED });
    const updates = (await client.findSweep("s")).updates();
    const first = updates.next();
    await settle();
    const cellsDone = { cell: column("<i8", 4, 6), fast: column("<i8", 1, 2), value: column("<f8", 0.5, Number.NaN) };
    const further = status("running", { cellsDone, stride: 2 });
    await broker.publish("progress.s", "SweepProgress", further, status("running"), status("stopped"));
    const { value } = (await first) as { value: SweepUpdate };
    expect(value).toMatchObject({ status: "running", done: 2, stride: 2 });
    expect(value.cellsDone).toEqual({
      cell: Float64Array.of(4, 6),
      fast: Float64Array.of(1, 2),
      value: Float64Array.of(0.5, Number.NaN),
    });
    expect((await updates.next()).value).toMatchObject({ cellsDone: {}, stride: 1 });
    expect((await updates.next()).value).toMatchObject({ status: "stopped" });
    expect((await updates.next()).done).toBe(true);
    expect([...broker.prefixes]).not.toContain("progress progress.s");
    await client.close();
  });

  test("go on after a failure that is over, and end with one that is not", async () => {
    let state = status("running");
    const [broker, client] = await opened({ GetSweepStatus: () => state, ...NOTHING_MISSED });
    const updates = (await client.findSweep("s")).updates();
    const first = updates.next();
    await settle();
    await broker.publish("progress.s", "SweepProgress", status("failed"), status("running"));
    expect([(await first).value, (await updates.next()).value]).toMatchObject([
      { status: "failed" },
      { status: "running" },
    ]);
    state = status("failed");
    await broker.publish("progress.s", "SweepProgress", state);
    expect((await updates.next()).value).toMatchObject({ status: "failed" });
    expect((await updates.next()).done).toBe(true);
    await client.close();
  });

  test("end without a message where the sweep has ended, also while they wait", async () => {
    let state = status("completed");
    const [broker, client] = await opened({ GetSweepStatus: () => state, ...NOTHING_MISSED });
    const sweep = await client.findSweep("s");
    expect((await sweep.updates().next()).done).toBe(true);
    state = status("running");
    const next = sweep.updates().next();
    await broker.clock.advance(3);
    state = status("failed");
    await broker.clock.advance(3);
    expect((await next).done).toBe(true);
    await client.close();
  });

  test("go on while the broker is away, and end when the sweep is deleted meanwhile", async () => {
    let answer: unknown = status("running");
    const [broker, client] = await opened({ GetSweepStatus: () => answer, ...NOTHING_MISSED });
    const sweep = await client.findSweep("s");
    const next = sweep.updates().next();
    await settle();
    answer = undefined; // no answer
    await broker.clock.advance(100);
    answer = failed("NOT_FOUND");
    const deleted = expect(next).rejects.toBeInstanceOf(NotFound);
    await broker.clock.advance(10);
    await deleted;
    await client.close();
  });

  test("are ended by close, at once and by the client's", async () => {
    const [broker, client] = await opened({ GetSweepStatus: () => status("running"), ...NOTHING_MISSED });
    const sweep = await client.findSweep("s");
    const next = sweep.updates().next();
    await settle();
    expect([...broker.prefixes]).toContain("progress progress.s");
    await sweep[Symbol.asyncDispose]();
    expect((await next).done).toBe(true);
    expect([...broker.prefixes]).not.toContain("progress progress.s");
    const other = sweep.updates().next();
    await settle();
    const closed = expect(other).rejects.toBeInstanceOf(ClosedError);
    await client.close();
    await closed;
    await expect(sweep.status()).rejects.toBeInstanceOf(ClosedError);
  });

  test("with cells that are no columns raise a SerializationError", async () => {
    const [broker, client] = await opened({ GetSweepStatus: () => status("running"), ...NOTHING_MISSED });
    const next = (await client.findSweep("s")).updates().next();
    await settle();
    await broker.publish("progress.s", "SweepProgress", status("running", { cellsDone: { cell: 5 } }));
    await expect(next).rejects.toBeInstanceOf(SerializationError);
    await client.close();
  });
});

describe("the wait for a sweep", () => {
  test("ends with a message that it has ended, and takes no other for that", async () => {
    let state = status("running");
    const [broker, client] = await opened({ GetSweepStatus: () => state, ...NOTHING_MISSED });
    const waiting = (await client.findSweep("s")).wait();
    await settle();
    const looks = broker.of("GetSweepStatus").length;
    await broker.publish("progress.s", "SweepProgress", status("running"), status("running"));
    expect(broker.of("GetSweepStatus").length).toBe(looks);
    state = status("completed");
    await broker.publish("progress.s", "SweepProgress", state);
    expect(await waiting).toMatchObject({ status: "completed" });
    expect([...broker.prefixes]).not.toContain("progress progress.s");
    await client.close();
    expect(broker.clock.timers).toBe(0);
  });

  test("ends with a status where no message comes, however long the broker was away", async () => {
    let answer: unknown = status("running");
    const [broker, client] = await opened({ GetSweepStatus: () => answer, ...NOTHING_MISSED });
    const waiting = (await client.findSweep("s")).wait();
    await settle();
    answer = undefined;
    await broker.clock.advance(200);
    answer = status("stopped");
    await broker.clock.advance(40);
    expect(await waiting).toMatchObject({ status: "stopped" });
    await client.close();
  });

  test("is over in time, and says how far the sweep is", async () => {
    let answer: unknown = status("running");
    const [broker, client] = await opened({ GetSweepStatus: () => answer, ...NOTHING_MISSED });
    const sweep = await client.findSweep("s");
    const late = expect(sweep.wait({ timeoutMs: 5_000 })).rejects.toThrow(
      "sweep s has not ended within 5 s; it goes on: it is running, at 2 of 4",
    );
    await broker.clock.advance(6);
    await late;
    const waiting = sweep.wait({ timeoutMs: 100 });
    answer = undefined;
    const lost = expect(waiting).rejects.toThrow("sweep s has not ended within 0.1 s; it goes on");
    await broker.clock.advance(40);
    await lost;
    await expect(sweep.wait({ timeoutMs: 0 })).rejects.toBeInstanceOf(TypeError);
    await expect(sweep.wait({ timeout: 5 } as never)).rejects.toThrow('did you mean "timeoutMs"?');
    const last = expect(sweep.wait()).rejects.toBeInstanceOf(ClosedError);
    await settle();
    await client.close();
    await last;
  });

  test("that is over in time is a TimedOut", async () => {
    const [broker, client] = await opened({ GetSweepStatus: () => status("paused"), ...NOTHING_MISSED });
    const waiting = (await client.findSweep("s")).wait({ timeoutMs: 1_000 });
    const late = waiting.catch((error: unknown) => error);
    await broker.clock.advance(2);
    const error = (await late) as TimedOut;
    expect(error).toBeInstanceOf(TimedOut);
    expect(error.details).toEqual({ timeoutSeconds: 1, status: "paused", progressPercent: 50 });
    await client.close();
  });
});

describe("the rows of a sweep", () => {
  test("are read in pages, and are one table", async () => {
    const pages: { [offset: number]: number[] } = { 0: [1, 2, 3], 3: [4, 5], 5: [6, 7] };
    const [broker, client] = await opened({
      GetSweepStatus: () => status("running"),
      GetSweepResults: ({ data }) => rows(pages[data.offset] ?? [], 7),
    });
    const sweep = await client.findSweep("s");
    const table = await sweep.results({ where: "fast > 1", sort: "fast", descending: true, columns: ["fast"] });
    expect([table.rows, Array.from(table.columns.cell as Float64Array)]).toEqual([7, [1, 2, 3, 4, 5, 6, 7]]);
    const request = { sweepId: "s", where: "fast > 1", sort: "fast", descending: true, columns: ["fast"] };
    expect(broker.of("GetSweepResults").map((one) => one.data)).toEqual(
      [0, 3, 5].map((offset) => ({ ...request, offset, limit: 50_000 })),
    );
    await client.close();
  });

  test("come once each while others are added before them: a page begins behind the last cell", async () => {
    const pages = new Map<string | undefined, [number[], number]>([
      [undefined, [[1, 3], 5]],
      ["cell > 3", [[5, 7], 4]], // 2, too, is done meanwhile
      ["cell > 7", [[8, 9], 2]],
      ["fast > 1", [[1, 3], 3]],
      ["(fast > 1) and cell > 3", [[5], 1]],
    ]);
    const [broker, client] = await opened({
      GetSweepStatus: () => status("running"),
      GetSweepResults: ({ data }) => rows(...(pages.get(data.where) ?? [[], 0])),
    });
    const sweep = await client.findSweep("s");
    const cells = async (options: object) => Array.from((await sweep.results(options)).columns.cell as Float64Array);
    expect(await cells({})).toEqual([1, 3, 5, 7, 8, 9]);
    expect(await cells({ where: "fast > 1" })).toEqual([1, 3, 5]);
    expect(await cells({ limit: 4 })).toEqual([1, 3, 5, 7]);
    expect(broker.of("GetSweepResults").slice(-2)).toMatchObject([{ data: { limit: 4 } }, { data: { limit: 2 } }]);
    await client.close();
  });

  test("that grow fewer while they are read are those that came", async () => {
    const [, client] = await opened({
      GetSweepStatus: () => status("running"),
      GetSweepResults: ({ data }) => rows(data.where === undefined ? [1, 2] : [], 7),
    });
    expect((await (await client.findSweep("s")).results()).rows).toBe(2);
    await client.close();
  });

  test.each([
    ["no table", [{ sweepId: "s", stored: 0, matching: 0, tables: [] }, []], "are one table; 0 came"],
    [
      "a table that is not there",
      [{ stored: 1, matching: 1, tables: [{ name: "rows", frame: 3, format: "a", rows: 1 }] }, []],
      "table rows is in attachment 3; 0 came",
    ],
    [
      "another number of rows",
      [{ matching: 1, tables: [{ name: "rows", frame: 0, format: "a", rows: 1 }] }, (rows([1, 2], 2) as [0, []])[1]],
      "the rows of a sweep are 2; 1 were announced",
    ],
  ])("are refused with %s", async (_what, answer, reason) => {
    const [, client] = await opened({ GetSweepStatus: () => status("running"), GetSweepResults: () => answer });
    const sweep = await client.findSweep("s");
    await expect(sweep.results()).rejects.toBeInstanceOf(SerializationError);
    await expect(sweep.results()).rejects.toThrow(reason);
    await expect(sweep.results({ filter: "x" } as never)).rejects.toThrow("results: unknown option filter");
    await client.close();
  });

  test("are the best ones by the objective, without those that have none", async () => {
    let [direction, without] = ["maximize", 0];
    const [broker, client] = await opened({
      GetSweepStatus: () => status("completed", { direction }),
      GetSweepResults: ({ data }) => {
        const found = [9, 8, 7, 6].slice(0, data.limit);
        return rows(found, 4, Math.max(0, without + found.length - 4));
      },
    });
    const sweep = await client.findSweep("s");
    expect((await sweep.best(2, { where: "fast > 1" })).rows).toBe(2);
    expect(broker.of("GetSweepResults").at(-1)?.data).toMatchObject({
      where: "fast > 1",
      sort: "sharpe_ratio",
      descending: true,
      limit: 2,
    });
    [direction, without] = ["minimize", 3];
    const one = await sweep.best(undefined, { columns: ["fast"] });
    expect(Array.from(one.columns.cell as Float64Array)).toEqual([9]);
    expect(broker.of("GetSweepResults").at(-1)?.data).toMatchObject({
      descending: false,
      limit: 1,
      columns: ["sharpe_ratio", "fast"],
    });
    without = 4;
    await expect(sweep.best()).rejects.toBeInstanceOf(InvalidConfiguration);
    await expect(sweep.best()).rejects.toThrow("sharpe_ratio is undefined for each of the 2 finished rows");
    await expect(sweep.best(0)).rejects.toBeInstanceOf(RangeError);
    await client.close();
  });

  test("have no best one before there is any", async () => {
    const [, client] = await opened({ GetSweepStatus: () => status("queued"), GetSweepResults: () => rows([], 0) });
    expect((await (await client.findSweep("s")).best()).rows).toBe(0);
    await client.close();
  });
});
