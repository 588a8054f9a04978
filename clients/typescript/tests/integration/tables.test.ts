/** Tables and streams of prices in bulk, from a real broker: files and attachments, maps and columns, slow readers. */

import { execFileSync } from "node:child_process";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { toArrow } from "../../src/arrow.js";
import type { Client } from "../../src/client.js";
import type { Results, Table } from "../../src/exports.js";
import { TextColumn } from "../../src/tables/index.js";
import { Broker, PYTHON, ROOT, until } from "../support/broker.js";
import { connected } from "../support/clients.js";

const BARS = 1_000_000;
const MILLION = { algorithm: "sma_cross", symbol: "SYNTH", timeframe: "1m", start: "2024-01-01", end: "2100-01-01" };

let broker: Broker;

beforeAll(async () => {
  broker = new Broker();
  const script = `
import sys
from pathlib import Path
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
Catalog(Path(sys.argv[1]), cache_bytes=1 << 30).write(synthetic_bars("1m", ${BARS}))
`;
  execFileSync(PYTHON, ["-c", script, join(broker.home, "data/catalog")], { cwd: ROOT, env: broker.environment });
  await broker.start();
});

afterAll(() => broker.stop());

/** A client that has to receive its tables. */
function withoutFiles(): Promise<Client> {
  const { tablesDirectory: _, ...rest } = JSON.parse(readFileSync(broker.connectionFile, "utf8"));
  const file = join(broker.home, "attached.json");
  writeFileSync(file, JSON.stringify(rest));
  chmodSync(file, 0o600);
  return connected(broker, { connectionFile: file });
}

/** The bytes of a column: a million values are not to be printed where they differ. */
function bytes(column: Float64Array | Uint8Array | undefined): Buffer {
  return column === undefined ? Buffer.alloc(0) : Buffer.from(column.buffer, column.byteOffset, column.byteLength);
}

function expectSame(one: Table, other: Table): void {
  expect([one.rows, one.names, one.types]).toEqual([other.rows, other.names, other.types]);
  for (const name of one.names) {
    const [first, second] = [one.columns[name], other.columns[name]];
    if (first instanceof TextColumn && second instanceof TextColumn) {
      expect(first.toArray().join("\n") === second.toArray().join("\n"), name).toBe(true);
    } else {
      expect(bytes(first as Float64Array).equals(bytes(second as Float64Array)), name).toBe(true);
    }
    expect(bytes(one.nulls[name]).equals(bytes(other.nulls[name])), name).toBe(true);
  }
}

describe("the result of a million bars", () => {
  let id: string;
  let mapped: Results;
  let attached: Results;

  beforeAll(async () => {
    const client = await connected(broker);
    const run = await client.backtest({ ...MILLION, watch: [] });
    id = run.id;
    mapped = await run.result();
    attached = await (await withoutFiles()).results(id);
  });

  it("has the same columns of a file as of an attachment", () => {
    expect(mapped.equity.rows).toBe(BARS);
    // A file and a stream of Arrow do not have the same bytes: so the tables did come in two ways.
    expect(Buffer.from(mapped.equity.ipc.subarray(0, 6)).toString()).toBe("ARROW1");
    expect(Buffer.from(attached.equity.ipc.subarray(0, 6)).toString()).not.toBe("ARROW1");
    for (const name of ["equity", "trades", "orders", "positions"] as const) expectSame(mapped[name], attached[name]);
  });

  it("has its times in milliseconds, and the last equity of its metrics", () => {
    const { timestamp, equity } = mapped.equity.columns;
    expect([timestamp, equity].every((one) => one instanceof Float64Array)).toBe(true);
    expect((timestamp as Float64Array)[1]).toBe(((timestamp as Float64Array)[0] as number) + 60_000);
    expect((equity as Float64Array).at(-1)).toBe(mapped.metrics?.finalEquity);
    expect(mapped.trades.rows).toBeGreaterThanOrEqual(mapped.metrics?.totalTrades ?? Number.NaN);
  });

  it("is a table of apache-arrow too", () => {
    const arrow = toArrow(mapped.orders);
    expect(arrow.numRows).toBe(mapped.orders.rows);
    expect(arrow.getChild("side")?.get(0)).toBe((mapped.orders.columns.side as TextColumn).at(0));
    const prices = arrow.getChild("fill_price")?.toArray().slice(0, 50);
    expect(Array.from(prices as Float64Array)).toEqual(
      Array.from((mapped.orders.columns.fill_price as Float64Array).slice(0, 50)),
    );
  });

  it("is received where its files are gone", async () => {
    const client = await connected(broker);
    await client.results(id);
    execFileSync("sh", ["-c", `rm -f ${join(broker.home, "data/tables")}/*.arrow`]);
    expectSame((await client.results(id)).equity, mapped.equity);
  });
});

it("gives bars with indicators, of a file as of an attachment", async () => {
  const options = { indicators: ["SMA", { name: "RSI", parameters: { timeperiod: 7 }, outputNames: ["rsi"] }] };
  const [one, other] = [await connected(broker), await withoutFiles()];
  const bars = await one.marketData("SYNTH", "1m", options);
  expect(bars.rows).toBe(BARS);
  expect(bars.names.slice(0, 6)).toEqual(["timestamp", "open", "high", "low", "close", "volume"]);
  expect((bars.columns.rsi as Float64Array)[0]).toBeNaN();
  expectSame(bars, await other.marketData("SYNTH", "1m", options));
});

describe.each([
  ["as columns", true],
  ["as maps", false],
])("a million prices %s", (_how, columns) => {
  it("reach a fast reader and a slow one: each price once and in order, or stated as lost", async () => {
    const client = await connected(broker);
    const slowed: string[] = [];
    client.on("slowConsumer", ({ topic }) => slowed.push(topic));
    const topic = "prices.SYNTH.1m";
    const [fast, slow] = [client.subscribe(topic), client.subscribe(topic)];
    // A subscription takes effect some time after it is made: a price of a feed shows that.
    const price = { symbol: "SYNTH", timestamp: 1, bid: 1, ask: 1, last: 1, volume: 0, timeframe: "1m" };
    const first = [fast, slow].map((one) => one.next());
    let isHeard = false;
    void Promise.all(first).then(() => {
      isHeard = true;
    });
    await until(async () => {
      if (!isHeard) await client.publishPrices([price]);
      return isHeard;
    }, "the subscriptions");
    const heard = await Promise.all(first);
    const start = heard.map((one) => (one?.kind === "update" ? one.seq + 1 : Number.NaN)) as [number, number];
    const { messages } = await client.request("FetchMissed", { topic, fromSeq: 1 });
    const end = (messages.at(-1)?.seq ?? Number.NaN) + BARS;
    let [gap, last] = [0, performance.now()];
    const timer = setInterval(() => {
      const now = performance.now();
      gap = Math.max(gap, now - last);
      last = now;
    }, 1);
    const options = { streams: { prices: true, columns } };
    const run = await client.backtest({ ...MILLION, options, watch: [] });
    const read = async (subscription: typeof fast, from: number, pause: () => Promise<void>): Promise<number[]> => {
      let [seen, lost, next] = [0, 0, from];
      for await (const one of subscription.batches()) {
        if (one.kind === "restarted") throw new Error("the broker was not restarted");
        if (one.kind === "gap") {
          expect(one.fromSeq).toBe(next);
          next = one.toSeq + 1;
          lost += one.toSeq - one.fromSeq + 1;
        } else {
          expect(one.seq[0]).toBe(next);
          expect(one.seq.at(-1)).toBe((one.seq[0] as number) + one.rows - 1);
          next = (one.seq.at(-1) as number) + 1;
          seen += one.rows;
        }
        if (next > end) return [seen, lost];
        await pause();
      }
      throw new Error("the subscription has ended");
    };
    const quick = read(fast, start[0], async () => undefined);
    await run.wait();
    clearInterval(timer);
    expect(await quick).toEqual([end - start[0] + 1, 0]);
    let pauses = 0;
    const [seen, lost] = (await read(slow, start[1], () => {
      pauses += 1;
      return pauses % 20 === 0 ? new Promise((resolve) => setTimeout(resolve, 1)) : Promise.resolve();
    })) as [number, number];
    expect(seen + lost).toBe(end - start[1] + 1);
    expect(client.statistics.messagesLost).toBeLessThanOrEqual(lost);
    // The largest gap is a figure of the benchmarks (30 ms); here is what a broken loop would take.
    expect(gap).toBeLessThan(1_000);
    fast.close();
    slow.close();
  }, 180_000);
});
