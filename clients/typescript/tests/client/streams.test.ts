/** Runs, results and price replays over a broker in this thread. */

import { tableFromArrays, tableToIPC } from "apache-arrow";
import { describe, expect, test } from "vitest";
import { encode } from "../../src/core/msgpack-encoder.js";
import {
  AlgorithmError,
  type BacktestProgress,
  ClosedError,
  NotFound,
  SerializationError,
  StateConflict,
  TimedOut,
} from "../../src/exports.js";
import { failed, settle } from "../support/fake-broker.js";
import { failure, WALL_MS } from "../support/signing.js";
import { opened, price } from "../support/streams.js";

const CONFIG = { algorithm: "sma_cross", symbol: "S", timeframe: "1m" };

function progress(percent: number): object {
  return { backtestId: "b", progressPercent: percent };
}

function status(name: string, error?: object): object {
  return {
    backtestId: "b",
    status: name,
    algorithmId: "a",
    symbol: "S",
    progressPercent: 50,
    submitTime: WALL_MS,
    error,
  };
}

const STARTED = { StartBacktest: () => ({ backtestId: "b", status: "queued" }) };
const NOTHING_MISSED = {
  FetchMissed: ({ data }: { data: { topic: string; fromSeq: number } }) => ({
    topic: data.topic,
    fromSeq: data.fromSeq,
    toSeq: data.fromSeq - 1,
    oldestSeq: 1,
    messages: [],
  }),
};

describe("a run", () => {
  test("is started with its whole configuration, after its streams are subscribed to", async () => {
    const [broker, client] = await opened(STARTED);
    const run = await client.backtest({
      ...CONFIG,
      symbol: ["S", "T"],
      start: "2022-01-03",
      end: new Date("2022-02-01T00:00Z"),
      capital: 5,
      parameters: { from: new Date(0), list: [new Date(1)] },
      options: { fillAt: "close" },
      backtestId: "b",
      watch: ["orders"],
    });
    expect(run.id).toBe("b");
    expect(broker.of("StartBacktest")[0]?.data).toEqual({
      backtestId: "b",
      algorithmId: "sma_cross",
      symbol: "S",
      symbols: ["S", "T"],
      timeframe: "1m",
      startDate: "2022-01-03T00:00:00.000Z",
      endDate: "2022-02-01T00:00:00.000Z",
      initialCapital: 5,
      commission: 0,
      slippage: 0,
      parameters: { from: "1970-01-01T00:00:00.000Z", list: ["1970-01-01T00:00:00.001Z"] },
      options: { fillAt: "close" },
    });
    expect(broker.prefixes).toContain("orders orders.b");
    expect(broker.prefixes).not.toContain("progress progress.b");
    run.close();
    expect(broker.prefixes).not.toContain("orders orders.b");
    await client.close();
  });

  test("gives its streams to the end, and its end", async () => {
    const [broker, client] = await opened({ ...STARTED, ...NOTHING_MISSED });
    const run = await client.backtest({ ...CONFIG, backtestId: "b" });
    await broker.publish("progress.b", "BacktestProgress", progress(50), progress(100));
    await broker.publish("orders.b", "OrderUpdate", { orderId: "1" });
    const mark = { quantity: 1, timestamp: 1, mark: true };
    await broker.publish("positions.b", "PositionUpdate", { quantity: 1, timestamp: 1 }, mark);
    const waiting = run.wait();
    await broker.publish("system.backtests", "BacktestStatus", status("completed"));
    await expect(waiting).resolves.toMatchObject({ status: "completed" });
    const seen: BacktestProgress[] = [];
    for await (const one of run.progress()) seen.push(one);
    expect(seen.map((one) => one.progressPercent)).toEqual([50, 100]);
    const orders = [];
    for await (const one of run.orders()) orders.push(one.orderId);
    expect(orders).toEqual(["1"]);
    const positions = [];
    for await (const one of run.positions({ marks: false })) positions.push(one);
    expect(positions).toEqual([{ quantity: 1, timestamp: 1 }]);
    await client.close();
  });

  test("gives each order once, also when another broker reads them to it again", async () => {
    const [broker, client] = await opened({ ...STARTED, GetBacktestStatus: () => status("running") });
    const run = await client.backtest({ ...CONFIG, backtestId: "b" });
    await broker.publish("orders.b", "OrderUpdate", { orderId: "1" }, { orderId: "2" });
    await broker.publish("positions.b", "PositionUpdate", { quantity: 1, timestamp: 1 }, { quantity: 2, timestamp: 2 });
    await broker.restart();
    await broker.clock.advance(0);
    await broker.publish("orders.b", "OrderUpdate", { orderId: "1" }, { orderId: "2" }, { orderId: "3" });
    const changes = [1, 2, 3].map((n) => ({ quantity: n, timestamp: n }));
    await broker.publish("positions.b", "PositionUpdate", ...changes);
    const orders = run.orders();
    const ids = [];
    for (let count = 0; count < 3; count += 1) ids.push(((await orders.next()).value as { orderId: string }).orderId);
    expect(ids).toEqual(["1", "2", "3"]);
    const positions = run.positions();
    const quantities = [];
    for (let count = 0; count < 3; count += 1) {
      quantities.push(((await positions.next()).value as { quantity: number }).quantity);
    }
    expect(quantities).toEqual([1, 2, 3]);
    await client.close();
  });

  test("is controlled", async () => {
    const accepted = (name: string) => () => ({ backtestId: "b", status: name });
    const [broker, client] = await opened({
      ...STARTED,
      PauseBacktest: accepted("paused"),
      ResumeBacktest: accepted("running"),
      StopBacktest: accepted("stopped"),
      GetBacktestStatus: () => status("running"),
      DeleteBacktest: () => ({ backtestId: "b", freedBytes: 7 }),
      PinBacktest: ({ data }) => ({ backtestId: "b", pinned: data.pinned }),
    });
    const run = await client.run("b");
    expect([await run.pause(), await run.resume(), await run.stop()]).toEqual(["paused", "running", "stopped"]);
    expect(await run.status()).toMatchObject({ status: "running" });
    expect([await run.delete(), await run.pin(), await run.pin(false)]).toEqual([7, true, false]);
    expect(broker.of("GetBacktestStatus").length).toBeGreaterThan(1);
    await run[Symbol.asyncDispose]();
    await client.close();
  });

  test("that the broker refuses leaves nothing behind", async () => {
    const [broker, client] = await opened({ StartBacktest: () => failed("INVALID_CONFIGURATION") });
    await expect(client.backtest({ ...CONFIG, backtestId: "b" })).rejects.toMatchObject({
      name: "InvalidConfiguration",
    });
    expect([...broker.prefixes].filter((one) => one.endsWith(".b"))).toEqual([]);
    await client.close();
  });

  test.each<[object, string]>([
    [{ symbol: [] }, "a backtest needs at least one symbol"],
    [{ symbol: 5 }, "symbol: expected a text or several; 5 came"],
    [{ capital: "1" }, "StartBacktest.initialCapital: expected a number"],
    [{ start: "yesterday" }, 'start: "yesterday" is not a time'],
    [{ watch: ["trades"] }, 'watch: "trades" is no stream'],
    [{ watch: "orders" }, "watch: expected a list of streams"],
    [{ timeframe: undefined }, "StartBacktest.timeframe: required, and missing"],
    [{ capitl: 5 }, 'backtest: unknown option capitl; did you mean "capital"?'],
    [{ options: { a: () => 1 } }, "a value of the type function cannot be sent"],
  ])("with %o is a mistake", async (changes, text) => {
    const [broker, client] = await opened(STARTED);
    const starting = client.backtest({ ...CONFIG, ...changes } as never);
    await expect(starting).rejects.toThrow(text);
    await expect(starting).rejects.toBeInstanceOf(TypeError);
    expect(broker.of("StartBacktest")).toEqual([]);
    await client.close();
  });

  test("waits so long and no longer", async () => {
    const [broker, client] = await opened({ ...STARTED, GetBacktestStatus: () => status("running") });
    const run = await client.backtest({ ...CONFIG, backtestId: "b" });
    const text = "backtest b has not ended within 1 s; it goes on: it is running, at 50 %";
    const waiting = expect(run.wait({ timeoutMs: 1_000 })).rejects.toThrow(text);
    await broker.clock.advance(1);
    await waiting;
    run.abandon();
    await expect(run.wait()).rejects.toBeInstanceOf(ClosedError);
    await client.close();
    expect(broker.clock.timers).toBe(0);
  });

  test("that waits for a worker says behind whom", async () => {
    const running = (id: string, more: object = {}): object => ({ ...status("running"), backtestId: id, ...more });
    const others = [1, 2, 3, 4].map((n) => running(`r${n}`, { algorithmId: "macd@1" }));
    const queued = { ...status("queued"), submitTime: 9 };
    const [broker, client] = await opened({
      ...STARTED,
      GetBacktestStatus: () => queued,
      ListBacktests: () => ({
        backtests: [...others, running("lent", { lends: true }), { ...queued, backtestId: "q", submitTime: 5 }, queued],
      }),
    });
    const run = await client.backtest({ ...CONFIG, backtestId: "b" });
    const wait = async (): Promise<TimedOut> => {
      const waiting = run.wait({ timeoutMs: 1_000 }).catch((error: unknown) => error);
      await broker.clock.advance(1);
      return (await waiting) as TimedOut;
    };
    const behind = await wait();
    expect(behind).toBeInstanceOf(TimedOut);
    expect(behind.message).toContain(
      "it is queued behind r1 (macd on S, at 50 %), r2 (macd on S, at 50 %), r3 (macd on S, at 50 %) and 1 more, which " +
        "the workers run and 1 that was queued before it",
    );
    expect(behind.details).toMatchObject({ status: "queued", behind: ["r1", "r2", "r3", "r4"] });
    const many = Array.from({ length: 8 }, (_, n) => running(`lent${n}`, { lends: true }));
    broker.handlers.GetBacktestStatus = () => ({ ...queued, pace: 5 });
    broker.handlers.ListBacktests = () => ({ backtests: many });
    expect((await wait()).details?.behind).toHaveLength(8);
    const first = [1, 2].map((n) => ({ ...queued, backtestId: `q${n}`, submitTime: n }));
    broker.handlers.ListBacktests = () => ({ backtests: first });
    expect((await wait()).message).toContain("it is queued behind 2 that were queued before it");
    broker.handlers.ListBacktests = () => failed("SYSTEM_ERROR");
    expect((await wait()).message).toBe("backtest b has not ended within 1 s; it goes on");
    await client.close();
  });

  test("that failed raises its error where its result is asked for", async () => {
    const [broker, client] = await opened({ ...STARTED, ...NOTHING_MISSED });
    const run = await client.backtest({ ...CONFIG, backtestId: "b" });
    const error = failure("ALGORITHM_ERROR", { traceback: "line 1" });
    await broker.publish("system.backtests", "BacktestStatus", status("failed", error));
    const told = await run.result().catch((one: unknown) => one);
    expect(told).toBeInstanceOf(AlgorithmError);
    expect((told as Error).stack).toContain("streams.test");
    await client.close();
  });

  test("of which the broker knows nothing any more says so", async () => {
    const [broker, client] = await opened({ ...STARTED, GetBacktestStatus: () => failed("NOT_FOUND") });
    const run = await client.backtest({ ...CONFIG, backtestId: "b" });
    const waiting = expect(run.wait()).rejects.toBeInstanceOf(NotFound);
    await broker.restart();
    await broker.clock.advance(0);
    await waiting;
    await client.close();
  });
});

describe("results", () => {
  const RESULTS = {
    backtestId: "b",
    status: "completed",
    config: {},
    metrics: { totalReturn: 0.5, warnings: ["few trades"] },
    tables: [] as object[],
  };

  test("have metrics, and say which tables there are not", async () => {
    const [, client] = await opened({
      GetBacktestResults: () => RESULTS,
      GetPerformanceMetrics: () => ({ backtestId: "b", metrics: null }),
    });
    const results = await client.results("b");
    expect(results.metrics?.totalReturn).toBe(0.5);
    expect(results.warnings).toEqual(["few trades"]);
    expect(results.warmupBars).toBe(0);
    expect(() => results.equity).toThrow("there is no table equity here: the backtest is completed");
    expect(() => results.trades).toThrow(RangeError);
    expect(() => results.orders).toThrow(RangeError);
    expect(() => results.positions).toThrow(RangeError);
    expect(await client.metrics("b")).toBeNull();
    await client.close();
  });

  test("come with the end of a backtest whose request waits for it", async () => {
    const [broker, client] = await opened({ ...STARTED, ...NOTHING_MISSED, GetBacktestResults: () => RESULTS });
    const run = await client.backtest({ ...CONFIG, backtestId: "b" });
    const results = await run.result();
    expect(results.metrics?.totalReturn).toBe(0.5);
    expect(broker.of("GetBacktestResults").map((one) => one.data.waitMs)).toEqual([2000]);
    await client.close();
  });

  test("are asked for again after the end, where the request could not wait for it", async () => {
    const answers = [{ ...RESULTS, status: "queued", metrics: null }, RESULTS];
    const [broker, client] = await opened({
      ...STARTED,
      ...NOTHING_MISSED,
      GetBacktestResults: () => answers.shift() ?? failed("SYSTEM_ERROR"),
    });
    const run = await client.backtest({ ...CONFIG, backtestId: "b" });
    const result = run.result({ timeoutMs: 500 });
    await broker.publish("system.backtests", "BacktestStatus", status("completed"));
    expect((await result).metrics?.totalReturn).toBe(0.5);
    expect(broker.of("GetBacktestResults").map((one) => one.data.waitMs)).toEqual([500, 0]);
    await client.close();
  });

  test("that contradict themselves are refused", async () => {
    const ref = { name: "equity", frame: 0, format: "arrow-ipc-stream", rows: 1 };
    const [broker, client] = await opened({ GetBacktestResults: () => ({ ...RESULTS, tables: [ref] }) });
    await expect(client.results("b")).rejects.toThrow("table equity is in attachment 0; 0 came");
    broker.handlers.GetBacktestResults = () => [{ ...RESULTS, tables: [ref] }, [new Uint8Array([1, 2, 3])]];
    await expect(client.results("b")).rejects.toThrow("table equity is no Arrow IPC");
    broker.handlers.GetBacktestResults = () => ({ ...RESULTS, tables: [{ ...ref, file: { name: "a" } }] });
    await expect(client.results("b")).rejects.toThrow("a table is in a file, which was not asked for");
    await client.close();
  });

  test("are mapped where they can be, and received where a file is gone", async () => {
    const [broker, client] = await opened({
      GetBacktestResults: ({ data }) =>
        data.mapped
          ? { ...RESULTS, tables: [{ name: "equity", format: "arrow-ipc-file", rows: 0, file: { name: "a" } }] }
          : RESULTS,
    });
    broker.tables = { areReadable: () => true, read: async () => null };
    const results = await client.results("b", { tables: ["equity"] });
    expect(results.tables).toEqual({});
    expect(broker.of("GetBacktestResults").map((one) => one.data.mapped)).toEqual([true, undefined]);
    expect(new Set(broker.of("GetBacktestResults").map((one) => one.id)).size).toBe(2);
    await client.close();
  });
});

test("ticks come page by page, and all of one version", async () => {
  const rows = 3;
  const ticks = { timestamp: Float64Array.of(1, 2, 3), bid: Float64Array.of(4, 5, 6) };
  const bytes = tableToIPC(tableFromArrays(ticks), "stream");
  const page = (rest: number | undefined, version: string): unknown => {
    const tables = [{ name: "ticks", frame: 0, format: "arrow-ipc-stream", rows }];
    return [{ symbol: "S", timeframe: "tick", tables, rest, version }, [bytes]];
  };
  const [broker, client] = await opened({
    GetMarketData: ({ data }) => page(data.skip === 0 ? rows : undefined, "v1"),
  });
  const pages = [];
  for await (const one of client.ticks("S", { start: 0 })) pages.push(one.rows);
  expect(pages).toEqual([rows, rows]);
  expect(broker.of("GetMarketData").map((one) => one.data)).toEqual(
    [0, rows].map((skip) => ({ symbol: "S", timeframe: "tick", startTime: 0, keep: "first", limit: 1_000_000, skip })),
  );
  let version = 0;
  broker.handlers.GetMarketData = () => page(1, `v${version++}`);
  const changing = client.ticks("S");
  await changing.next();
  await expect(changing.next()).rejects.toThrow("the ticks of S were stored anew");
  expect(() => client.ticks("S", { limit: 5 } as never)).toThrow("ticks: unknown option limit");
  await client.close();
});

const REPLAY = { replayId: "r", topic: "prices.S.1m", fromSeq: 3, bars: 3 };

describe("a price replay", () => {
  const replayed = (n: number): object => ({ ...price(n), replayId: "r" });
  const state = (name: string, more: object = {}): object => ({ replayId: "r", status: name, lastSeq: 6, ...more });

  test("gives its own prices in order, and stops when its reader leaves", async () => {
    const [broker, client] = await opened({
      StartPriceReplay: () => REPLAY,
      StopPriceReplay: () => ({ replayId: "r", status: "stopped" }),
      GetPriceReplayStatus: () => state("running"),
    });
    const replay = await client.replay("S", "1m", { barsPerSecond: 5, start: 0, end: "2022-01-01T00:00+01:00" });
    expect([replay.id, replay.topic, replay.bars]).toEqual(["r", "prices.S.1m", 3]);
    expect(broker.of("StartPriceReplay")[0]?.data).toMatchObject({ startTime: 0, endTime: 1_640_991_600_000 });
    broker.lose("prices.S.1m", 2);
    await broker.publish("prices.S.1m", "PriceUpdate", replayed(1), price(9), replayed(2), replayed(3));
    const seen = [];
    for await (const one of replay) seen.push(one.timestamp);
    expect(seen).toEqual([1, 2, 3]);
    expect(broker.of("StopPriceReplay")).toEqual([]);
    const other = await client.replay("S", "1m", { speed: 60 });
    await broker.publish("prices.S.1m", "PriceUpdate", replayed(1));
    for await (const _ of other) break;
    expect(broker.of("StopPriceReplay")).toHaveLength(1);
    await client.close();
  });

  test("asks for its status when nothing comes, and ends when it has ended", async () => {
    const [broker, client] = await opened({
      StartPriceReplay: () => REPLAY,
      GetPriceReplayStatus: () => state("stopped", { lastSeq: 3 }),
    });
    const replay = await client.replay("S", "1m", { barsPerSecond: 5 });
    broker.lose("prices.S.1m", 2);
    await broker.publish("prices.S.1m", "PriceUpdate", replayed(1));
    await expect(replay.next()).resolves.toMatchObject({ timestamp: 1 });
    const next = replay.next();
    await broker.clock.advance(2);
    await expect(next).resolves.toBeNull();
    await client.close();
  });

  test("that failed raises its error, and one that ended with its broker says so", async () => {
    const [broker, client] = await opened({
      StartPriceReplay: () => REPLAY,
      GetPriceReplayStatus: () => state("failed", { lastSeq: 0, error: failure("DATA_ERROR") }),
    });
    const replay = await client.replay("S", "1m", { barsPerSecond: 5 });
    const next = expect(replay.next()).rejects.toMatchObject({ name: "DataError" });
    await broker.clock.advance(2);
    await next;
    const other = await client.replay("S", "1m", { barsPerSecond: 5 });
    const gone = expect(other.next()).rejects.toThrow("the broker was restarted, and replay r ended with it");
    await broker.restart();
    await broker.clock.advance(0);
    await gone;
    await client.close();
  });

  test("as fast as it is read is acknowledged", async () => {
    const [broker, client] = await opened({
      StartPriceReplay: () => ({ ...REPLAY, fromSeq: 1, bars: 5_001 }),
      GetPriceReplayStatus: () => state("running"),
      AcknowledgePrices: () => ({ replayId: "r", status: "running" }),
      PausePriceReplay: () => ({ replayId: "r", status: "paused" }),
      ResumePriceReplay: () => ({ replayId: "r", status: "running" }),
    });
    const replay = await client.replay("S", "1m", { asFastAsRead: true });
    const messages = Array.from({ length: 2_500 }, (_, n) => ({ type: "PriceUpdate", data: replayed(n) }));
    const batch = { count: 2_500, compression: "none", rawBytes: encode(messages).length, messages };
    await broker.publishBatch("prices.S.1m", batch);
    for (let count = 0; count < 2_500; count += 1) await replay.next();
    await settle();
    expect(broker.of("AcknowledgePrices").map((one) => one.data.seq)).toEqual([2_500]);
    const late = expect(replay.next({ timeoutMs: 1_500 })).rejects.toBeInstanceOf(TimedOut);
    await broker.clock.advance(3);
    await late;
    expect(broker.of("AcknowledgePrices").length).toBeGreaterThan(1); // an acknowledgement may have been refused
    expect([await replay.pause(), await replay.resume()]).toEqual(["paused", "running"]);
    replay.close();
    await expect(replay.next()).resolves.toBeNull();
    await client.close();
  });

  test("needs one rate, and is stopped if it starts too late", async () => {
    const [broker, client] = await opened({
      StartPriceReplay: () => undefined,
      StopPriceReplay: () => failed("NOT_FOUND"),
    });
    await expect(client.replay("S", "1m", {})).rejects.toThrow("give one of barsPerSecond, speed");
    await expect(client.replay("S", "1m", { speed: 1, asFastAsRead: true })).rejects.toThrow(TypeError);
    const starting = expect(client.replay("S", "1m", { speed: 1 })).rejects.toBeInstanceOf(TimedOut);
    await broker.clock.advance(31);
    await starting;
    expect(broker.of("StopPriceReplay")).toHaveLength(1);
    await client.close();
  });
});

test("every other request becomes what the protocol says", async () => {
  const [broker, client] = await opened({
    ListAlgorithms: () => ({ algorithms: [{ name: "a" }] }),
    RegisterAlgorithm: () => ({ name: "mine" }),
    GetAlgorithmStatus: () => ({ name: "a" }),
    ListMarketData: () => ({ series: [] }),
    GetMarketData: () => ({ symbol: "S", timeframe: "1m", tables: [] }),
    EvaluateAlgorithm: () => ({ algorithmId: "a", tables: [] }),
    ImportMarketData: () => ({ symbol: "S" }),
    DescribeMarketData: () => ({ symbol: "S" }),
    ResampleMarketData: () => ({ symbol: "S" }),
    DeleteMarketData: () => ({ symbol: "S", timeframes: ["1m"] }),
    ListBacktests: () => ({ backtests: [] }),
    ListResults: () => ({ results: [], count: 0, bytes: 0 }),
    DeleteBacktest: () => ({ backtestId: "b", freedBytes: 1 }),
    PinBacktest: () => failed("STATE_CONFLICT"),
    PruneResults: () => ({ results: [], freedBytes: 0, dryRun: true, remaining: 0 }),
    ListPriceReplays: () => ({ replays: [] }),
    StopPriceReplay: () => ({ replayId: "r", status: "stopped" }),
    PublishPrices: ({ data }) => ({ published: data.prices.length }),
    StopBroker: () => ({}),
  });
  expect(await client.ping()).toBe(WALL_MS);
  expect(await client.listAlgorithms()).toEqual([{ name: "a" }]);
  expect(await client.algorithmProblems()).toEqual([]);
  const source = 'from x import algorithm\n@algorithm("mine", 5)\ndef f(): ...\n';
  expect(await client.registerAlgorithm(source)).toEqual({ name: "mine" });
  expect(broker.of("RegisterAlgorithm")[0]?.data).toEqual({ name: "mine", source });
  await expect(client.registerAlgorithm("x = 1")).rejects.toThrow("it declares none that can be told");
  await expect(client.registerAlgorithm(source + source)).rejects.toThrow("it declares mine, mine");
  await expect(client.registerAlgorithm(5 as never)).rejects.toThrow("source: expected the text of a file");
  await client.algorithmStatus("a");
  await client.listMarketData();
  const bars = client.marketData("S", "1m", { start: new Date(5), limit: 3, keep: "first", indicators: ["SMA"] });
  await expect(bars).rejects.toBeInstanceOf(SerializationError);
  expect(broker.of("GetMarketData")[0]?.data).toEqual({
    symbol: "S",
    timeframe: "1m",
    startTime: 5,
    limit: 3,
    keep: "first",
    indicators: [{ name: "SMA" }],
  });
  await expect(client.evaluate({ ...CONFIG, warmup: 3 })).rejects.toThrow(
    "the answer has no table signals; it has none",
  );
  await client.importMarketData("/a.csv", { symbol: "S", dateOrder: "dmy", timeoutMs: 1_000 });
  expect(broker.of("ImportMarketData")[0]?.data).toEqual({ path: "/a.csv", symbol: "S", dateOrder: "dmy" });
  await client.describeMarketData("S", "1m", { price: "bid" });
  await client.resampleMarketData("S", "1m", "1h");
  expect(await client.deleteMarketData("S")).toEqual(["1m"]);
  await client.listBacktests({ status: "running" });
  await client.storedResults({ limit: 5 });
  expect(await client.deleteBacktest("b")).toBe(1);
  await expect(client.pinBacktest("b")).rejects.toBeInstanceOf(StateConflict);
  await client.pruneResults({ dryRun: true, maxAgeDays: 2 });
  expect(broker.of("PruneResults")[0]?.data).toEqual({ dryRun: true, maxAgeMs: 172_800_000 });
  await client.listReplays();
  expect(await client.stopReplay("r")).toBe("stopped");
  const live = { symbol: "S", bid: 1, ask: 2, last: 1, volume: 0, timeframe: "tick" };
  expect(await client.publishPrices([{ ...live, timestamp: new Date(7) }])).toBe(1);
  await expect(client.publishPrices(5 as never)).rejects.toThrow("prices: expected a list");
  await expect(client.publishPrices([5 as never])).rejects.toThrow("prices[0]: expected a price");
  await expect(client.publishPrices([{ ...live, timestamp: Number.NaN }])).rejects.toThrow(
    "prices[0].timestamp: NaN is not a time",
  );
  await client.stopBroker();
  await client.close();
});
