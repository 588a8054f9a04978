/** Sweeps of a real broker: the rows of the Python client, cells while they come, steering, and what a restart leaves. */

import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MessageChannel } from "node:worker_threads";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { toArrow } from "../../src/arrow.js";
import {
  type Client,
  InvalidConfiguration,
  NotFound,
  StateConflict,
  type Sweep,
  type SweepUpdate,
  type Table,
  TextColumn,
  TimedOut,
  ValidationError,
} from "../../src/exports.js";
import { connect } from "../../src/node/connect.js";
import type { Port } from "../../src/transports/port.js";
import { RemoteClient } from "../../src/worker/remote.js";
import { serveClient } from "../../src/worker/serve.js";
import { Broker, PYTHON, QUICK, ROOT, until } from "../support/broker.js";
import { afterwards, all, connected } from "../support/clients.js";

const SPACE = { fast: { low: 5, high: 29, step: 1 }, slow: { low: 20, high: 195, step: 5 } };
const CROSSING = { algorithm: "sma_cross", symbol: "SYNTH", timeframe: "1h", space: SPACE, where: "fast < slow" };
/** Its combinations take ten milliseconds each, so that a sweep can be watched and steered. */
const UNHURRIED = `
import time

from backtestr_engine.authoring import Int, Signals, algorithm


@algorithm("unhurried", n=Int(10, 1, 100_000))
def unhurried(bars, n):
    time.sleep(0.01)
    if n % 50 == 49:
        raise ValueError(f"{n} is not for me")
    return Signals.of(bars.close > bars.open, bars.close < bars.open - n / 1000)
`;

let broker: Broker;

beforeAll(async () => {
  broker = new Broker({ broker: QUICK.replace("compute = 1", "compute = 2") });
  mkdirSync(join(broker.home, "data/algorithms"), { recursive: true, mode: 0o700 });
  writeFileSync(join(broker.home, "data/algorithms/unhurried.py"), UNHURRIED, { mode: 0o600 });
  await broker.start();
});

afterAll(() => broker.stop());

function unhurried(client: Client, last = 299): Promise<Sweep> {
  const space = { n: { low: 1, high: last, step: 1 } };
  const objective = "total_return";
  return client.sweep({ algorithm: "unhurried", symbol: "SYNTH", timeframe: "1d", space, objective, blockSize: 10 });
}

/** The numbers of a column, null where there is none; whole ones of 64 bits as numbers. */
function numbers(table: Table, name: string): (number | null)[] {
  return Array.from(table.columns[name] as Float64Array, (one, row) =>
    table.nulls[name]?.[row] === 1 ? null : Number(one),
  );
}

/** The column of cells of a table: they are numbers below 2^53. */
function cells(table: Table): (number | null)[] {
  return numbers(table, "cell");
}

describe("a sweep", () => {
  let client: Client;
  let sweep: Sweep;

  beforeAll(async () => {
    client = await connect({ connectionFile: broker.connectionFile, timeoutMs: 20_000 });
    sweep = await client.sweep({ ...CROSSING, capital: 10_000, commission: 0.001 });
    await sweep.wait();
  });

  afterAll(() => client.close());

  it("has the rows of the Python client, to the bit", async () => {
    const script = `
import json, sys
import backtestr
with backtestr.connect() as client:
    found = client.sweep("sma_cross", "SYNTH", timeframe="1h", space={"fast": range(5, 30), "slow": range(20, 200, 5)},
                         where="fast < slow", capital=10_000.0, commission=0.001)
    found.wait()
    rows = found.results()
    json.dump({"rows": rows.to_dict(as_series=False), "best": found.best(3)["cell"].to_list()}, sys.stdout)
`;
    const options = { cwd: ROOT, env: broker.environment, encoding: "utf8", maxBuffer: 1 << 26 } as const;
    const python = JSON.parse(execFileSync(PYTHON, ["-c", script], options));
    const rows = await sweep.results();
    expect(rows.rows).toBe(sweep.accepted?.combinations);
    expect(rows.names).toEqual(Object.keys(python.rows));
    for (const name of rows.names) {
      const values = rows.columns[name];
      if (values instanceof TextColumn) expect(values.toArray(), name).toEqual(python.rows[name]);
      else if (rows.types[name] === "float64[16]") {
        expect(Array.from(values as Float64Array), name).toEqual(python.rows[name].flat());
      } else expect(numbers(rows, name), name).toEqual(python.rows[name]);
    }
    expect(cells(await sweep.best(3))).toEqual(python.best);
    expect(toArrow(rows).getChild("return_sums")?.get(7)?.toArray()).toEqual(
      (rows.columns.return_sums as Float64Array).slice(7 * 16, 8 * 16),
    );
  });

  it("has rows by a filter, an order, a number and columns", async () => {
    const options = { where: "slow > 100 and fast < 10", sort: "total_return", descending: true, limit: 7 };
    const some = await sweep.results({ ...options, columns: ["slow", "total_return"] });
    expect([some.rows, some.names]).toEqual([7, ["cell", "slow", "total_return"]]);
    const returns = numbers(some, "total_return") as number[];
    expect(returns).toEqual(returns.toSorted((one, other) => other - one));
    expect(numbers(some, "slow").every((slow) => (slow as number) > 100)).toBe(true);
    expect((await sweep.results({ where: "slow > 1000" })).rows).toBe(0);
    await expect(sweep.results({ sort: "total_retrun" })).rejects.toThrow("did you mean 'total_return'?");
    await expect(sweep.results({ where: "sharp_ratio > 1" })).rejects.toBeInstanceOf(ValidationError);
  });

  it("has a best row, which is the backtest that one gets", async () => {
    const best = await sweep.best(1);
    const status = await sweep.status();
    expect(cells(best)).toEqual([status.best?.cell]);
    const run = await sweep.run(cells(best)[0] as number, { watch: ["progress"] });
    expect((await all(run.progress())).at(-1)?.progressPercent).toBe(100);
    const { metrics, trades, config } = await run.result();
    expect(config.parameters).toEqual(status.best?.parameters);
    const figures = { sharpe_ratio: "sharpeRatio", total_return: "totalReturn", max_drawdown: "maxDrawdown" } as const;
    for (const [column, name] of Object.entries(figures)) {
      expect(numbers(best, column)[0], column).toBe(metrics?.[name as "sharpeRatio"]);
    }
    expect(numbers(best, "total_trades")).toEqual([metrics?.totalTrades]);
    expect(trades.rows).toBeGreaterThanOrEqual(metrics?.totalTrades ?? Number.NaN);
    await expect(sweep.run(10_000_000)).rejects.toBeInstanceOf(ValidationError);
  });

  it("is counted without being started", async () => {
    const counted = await client.countSweep(CROSSING);
    expect(counted).toMatchObject({ cells: 25 * 36, combinations: sweep.accepted?.combinations, path: "fused" });
    expect(counted.status).toBeUndefined();
    const known = await client.listSweeps();
    expect(known.map((one) => one.sweepId)).toContain(sweep.id);
    expect((await client.listSweeps({ limit: 1 })).length).toBe(1);
  });

  it("counts as trials of its algorithm on its bars, each combination once", async () => {
    const group = await sweep.trials();
    const { of, trialGroup } = await sweep.status();
    expect(group).toMatchObject({ group: trialGroup, algorithm: "sma_cross", symbols: ["SYNTH"], timeframe: "1h" });
    // The Python client has run the same ones, and so does a backtest of one of them.
    expect(group?.trials).toBe(of);
    const run = await sweep.run(cells(await sweep.best(1))[0] as number, { watch: [] });
    expect((await run.result({ tables: [] })).trialGroup).toBe(trialGroup);
    expect(await run.trials()).toMatchObject({ group: trialGroup, trials: of });
    expect((await client.trials({ algorithm: "sma_cross", timeframe: "1h" })).map((one) => one.group)).toEqual([
      trialGroup,
    ]);
  });

  it("is the same sweep where it is asked for again with its id, and a conflict as another one", async () => {
    const again = await client.sweep({ ...CROSSING, capital: 10_000, commission: 0.001, sweepId: sweep.id });
    expect(again.accepted?.status).toBe("completed");
    await expect(client.sweep({ ...CROSSING, sweepId: sweep.id })).rejects.toBeInstanceOf(StateConflict);
    expect(await all(again.updates())).toEqual([]);
    await expect(again.pause()).rejects.toBeInstanceOf(StateConflict);
    await expect(again.raiseFailure()).resolves.toBeUndefined();
  });

  it("is refused with what is wrong", async () => {
    const refused = (wrong: object): Promise<unknown> => client.sweep({ ...CROSSING, ...wrong });
    await expect(refused({ space: { fats: [1] } })).rejects.toThrow("did you mean 'fast'?");
    await expect(refused({ objective: "sharp_ratio" })).rejects.toBeInstanceOf(ValidationError);
    await expect(refused({ where: "fast > slow + 1000" })).rejects.toThrow(/leave.* no combination of 900/);
    await expect(refused({ space: {} })).rejects.toBeInstanceOf(InvalidConfiguration);
    await expect(client.findSweep("nothing")).rejects.toBeInstanceOf(NotFound);
  });
});

describe("while a sweep runs", () => {
  it("its updates have every cell once, with numbers, the best row and the end", async () => {
    const sweep = await unhurried(await connected(broker));
    await expect(sweep.delete()).rejects.toBeInstanceOf(StateConflict);
    await expect(sweep.wait({ timeoutMs: 100 })).rejects.toBeInstanceOf(TimedOut);
    const updates = await all(sweep.updates());
    const last = updates.at(-1) as SweepUpdate;
    expect(last).toMatchObject({ status: "completed", done: 299, of: 299, failed: 6, stride: 1 });
    const [found, n, value] = ["cell", "n", "value"].map((name) =>
      updates.flatMap(({ cellsDone }) => [...(cellsDone[name] ?? [])]),
    ) as [number[], number[], number[]];
    expect(found.toSorted((one, other) => one - other)).toEqual(Array.from({ length: 299 }, (_, cell) => cell));
    expect(n).toEqual(found.map((cell) => cell + 1));
    const rows = await sweep.results({ columns: ["total_return", "failure"] });
    const returns = numbers(rows, "total_return");
    expect(value).toEqual(found.map((cell) => returns[cell] ?? Number.NaN));
    expect((rows.columns.failure as TextColumn).at(48)).toContain("49 is not for me");
    expect(last.best?.value).toBe(Math.max(...value.filter((one) => !Number.isNaN(one))));
  });

  it("it is paused, goes on, and is stopped with the rows so far", async () => {
    const sweep = await unhurried(await connected(broker), 5_000);
    expect(await sweep.pause()).toBe("paused");
    await until(async () => ((await sweep.status()).blocks ?? 0) === 0, "the blocks that were being computed");
    expect((await sweep.status()).status).toBe("paused");
    const waiting = sweep.wait();
    expect(["queued", "running"]).toContain(await sweep.resume());
    await until(async () => (await sweep.status()).done > 0, "a block");
    expect(await sweep.stop()).toBe("stopped");
    expect((await waiting).status).toBe("stopped");
    await until(async () => ((await sweep.status()).blocks ?? 0) === 0, "the blocks that were being computed");
    const { done } = await sweep.status();
    expect((await sweep.results({ columns: [] })).rows).toBe(done);
    expect(await sweep.delete()).toBeGreaterThan(0);
    await expect(sweep.status()).rejects.toBeInstanceOf(NotFound);
  });

  it("the loss of the broker costs none of its rows, and a reader reads on", async () => {
    const client = await connected(broker);
    const sweep = await unhurried(client, 1_000); // it runs for seconds, so that it is lost in its middle
    const updates = sweep.updates();
    await updates.next();
    await broker.kill();
    await broker.start();
    const rest = await all(updates);
    expect(rest.at(-1)).toMatchObject({ status: "completed", done: 1_000 });
    const again = await client.findSweep(sweep.id);
    expect([again.accepted, (await again.wait()).status]).toEqual([null, "completed"]);
    expect(cells(await again.results())).toEqual(Array.from({ length: 1_000 }, (_, cell) => cell));
  });
});

describe("in another thread, a sweep", () => {
  async function served(): Promise<[Client, RemoteClient]> {
    const { port1, port2 } = new MessageChannel();
    const client = await connected(broker);
    void serveClient(port1 as unknown as Port, client);
    const remote = new RemoteClient(port2 as unknown as Port);
    afterwards(() => remote.close());
    await remote.ready();
    return [client, remote];
  }

  it("has the same handle: counted, watched, read and run", async () => {
    const [client, remote] = await served();
    expect((await remote.countSweep(CROSSING)).cells).toBe(900);
    const sweep = await remote.sweep(CROSSING);
    expect(sweep.accepted?.combinations).toBeGreaterThan(0);
    const updates = await all(sweep.updates());
    expect((await sweep.wait()).status).toBe("completed");
    expect(updates.every(({ cellsDone }) => Object.values(cellsDone).every((one) => one instanceof Float64Array))).toBe(
      true,
    );
    const [own, other] = [await (await client.findSweep(sweep.id)).results(), await sweep.results()];
    expect(own.names).toEqual(other.names);
    for (const name of own.names) {
      const [one, two] = [own.columns[name], other.columns[name]];
      if (one instanceof TextColumn) expect((two as TextColumn).toArray()).toEqual(one.toArray());
      else expect(two, name).toEqual(one);
    }
    const best = await sweep.best(1);
    const { backtestId } = await sweep.run(cells(best)[0] as number);
    await remote.wait(backtestId);
    expect((await sweep.trials())?.trials).toBeGreaterThanOrEqual((await sweep.status()).of);
    const { metrics } = await remote.results(backtestId, { tables: [] });
    expect(metrics?.sharpeRatio).toBe(numbers(best, "sharpe_ratio")[0]);
    expect((await remote.listSweeps()).some((one) => one.sweepId === sweep.id)).toBe(true);
    expect(await sweep.delete()).toBeGreaterThan(0);
    await expect(remote.findSweep(sweep.id)).rejects.toBeInstanceOf(NotFound);
  });

  it("is steered, and its updates end at once when they are returned from", async () => {
    const [client, remote] = await served();
    const { id } = await unhurried(client, 5_000);
    const sweep = await remote.findSweep(id);
    const updates = sweep.updates();
    await updates.next();
    expect(await sweep.pause()).toBe("paused");
    await until(async () => ((await sweep.status()).blocks ?? 0) === 0, "the blocks that were being computed");
    await updates.return?.();
    expect(["queued", "running"]).toContain(await sweep.resume());
    expect(await sweep.stop()).toBe("stopped");
    await expect(sweep.resume()).rejects.toBeInstanceOf(StateConflict);
    await expect(sweep.raiseFailure()).resolves.toBeUndefined();
    await expect(remote.sweep({ ...CROSSING, space: { fast: [] } })).rejects.toBeInstanceOf(RangeError);
  });
});
