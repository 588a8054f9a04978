/** The host and the client of a page, without screens: a worker of Chromium, the tunnel, a real broker. */

import type { Page } from "playwright-core";
import { beforeAll, expect, inject } from "vitest";
import { until } from "../../../typescript/tests/support/broker";
import { test } from "./support/app";
import { buildClientPage, showClientPage } from "./support/client-page";
import { Stage } from "./support/stage";

beforeAll(() => buildClientPage(inject("servedCopy")), 60_000);

type Open = (hash?: string, options?: { stage?: Stage }) => Promise<Page>;

async function tried(open: Open, stage?: Stage): Promise<Page> {
  const page = await open("#/data", stage === undefined ? {} : { stage });
  await showClientPage(page);
  return page;
}

/** The status of the page's client, once it is this. */
function status(page: Page, wanted: string): Promise<unknown> {
  return page.waitForFunction((state) => window.tried.host.connect().status === state, wanted);
}

test("gives columns as typed arrays, errors as their classes, and counters", async ({ open }) => {
  const page = await tried(open);
  await status(page, "ready");
  const found = await page.evaluate(async () => {
    const client = window.tried.host.connect();
    const bars = await client.marketData("SYNTH", "1d", { limit: 7 });
    const { backtestId } = await client.backtest({ algorithm: "sma_cross", symbol: "SYNTH", timeframe: "1d" });
    const kinds = new Set<string>();
    for await (const one of client.orders(backtestId)) kinds.add(one.side);
    await client.wait(backtestId);
    const { metrics, tables } = await client.results(backtestId);
    const error = await client.results("nothing").catch((one: Error & { code: string }) => [one.name, one.code]);
    const { answered, gapsLost } = await client.statistics();
    return {
      bars: [bars.rows, bars.columns.close?.constructor.name],
      sides: [...kinds].sort(),
      isWhole: (tables.equity?.columns.equity as Float64Array | undefined)?.at(-1) === metrics?.finalEquity,
      error,
      counted: [answered > 0, gapsLost],
      welcome: typeof client.welcome?.instanceId,
    };
  });
  expect(found).toEqual({
    bars: [7, "Float64Array"],
    sides: ["buy", "sell"],
    isWhole: true,
    error: ["NotFound", "NOT_FOUND"],
    counted: [true, 0],
    welcome: "string",
  });
});

test("follows the shared state beside another program, and writes into it", async ({ open, client }) => {
  const page = await tried(open);
  await client.state.set("tried.theirs", 1);
  await page.evaluate(async () => {
    const state = window.tried.host.connect().follow("tried.");
    await state.ready();
    Object.assign(window, { state });
  });
  const mine = (): Promise<unknown> =>
    page.evaluate(() => {
      const { state } = window as unknown as { state: import("@backtestr/client/page").RemoteState };
      return Object.fromEntries(state.keys().map((key) => [key, state.peek(key)]));
    });
  expect(await mine()).toEqual({ "tried.theirs": 1 });
  await client.state.set("tried.theirs", { now: 2 });
  await expect.poll(mine).toEqual({ "tried.theirs": { now: 2 } });
  const seen = await page.evaluate(async () => {
    const { state } = window as unknown as { state: import("@backtestr/client/page").RemoteState };
    const written = state.set("tried.mine", [1]);
    const atOnce = state.peek("tried.mine");
    await written;
    await state.delete("tried.theirs");
    return atOnce;
  });
  expect(seen).toEqual([1]);
  await expect.poll(() => client.state.peek("tried.mine")).toEqual([1]);
  expect([client.state.peek("tried.theirs"), await mine()]).toEqual([undefined, { "tried.mine": [1] }]);
});

test("reads every update of a topic in order, at a rate", async ({ open, client }) => {
  const page = await tried(open);
  await status(page, "ready");
  await page.evaluate(() => {
    const read: number[] = [];
    Object.assign(window, { read });
    const stream = window.tried.host.connect().subscribe("prices.RATE.tick");
    void (async () => {
      for await (const one of stream) read.push(one.kind === "update" ? one.seq : -1);
    })();
  });
  const read = (): Promise<number[]> => page.evaluate(() => (window as unknown as { read: number[] }).read);
  const price = { symbol: "RATE", timestamp: 5, bid: 1, ask: 2, last: 1.5, volume: 3, timeframe: "tick" };
  await until(async () => {
    await client.publishPrices([price]);
    return (await read()).length > 0;
  }, "the subscription");
  const [first = 0] = await read();
  for (let times = 0; times < 50; times += 1) await client.publishPrices(Array(100).fill(price));
  const { latest } = await latestOf(client, "prices.RATE.tick");
  await expect.poll(async () => (await read()).at(-1), { timeout: 20_000 }).toBe(latest);
  expect(await read()).toEqual(Array.from({ length: latest - first + 1 }, (_, index) => first + index));
});

async function latestOf(client: { request: import("@backtestr/client").Client["request"] }, topic: string) {
  const { toSeq } = await client.request("FetchMissed", { topic, fromSeq: 1 });
  return { latest: toSeq };
}

test("uploads a file, imports it, and has the copy removed", async ({ open, client }) => {
  const page = await tried(open);
  await status(page, "ready");
  const days = Array.from({ length: 28 }, (_, index) => `2024-01-${String(index + 1).padStart(2, "0")}`);
  const text = `date,open,high,low,close,volume\n${days.map((day) => `${day},1,2,0.5,1.5,10`).join("\n")}\n`;
  const found = await page.evaluate(async (csv) => {
    const { host } = window.tried;
    const shares: number[] = [];
    const { path } = await host.upload(new File([csv], "tried.csv"), (share) => shares.push(share));
    const options = { path, symbol: "TRIED", timeframe: "1d" };
    const imported = await host.connect().request("ImportMarketData", options);
    await host.discard(path);
    const again = await host
      .connect()
      .request("ImportMarketData", options)
      .catch((error: Error & { code: string }) => error.code);
    return { imported, again, shares };
  }, text);
  expect(found.shares[0]).toBe(0);
  expect(found.again).toBe("DATA_ERROR");
  expect((await client.describeMarketData("TRIED", "1d")).bars).toBe(28);
});

test("is there before the broker, has one started, and tells of a server that ends, an old link and a new one", async ({
  open,
  foresee,
}) => {
  foresee(/WebSocket connection/, /Failed to load resource/, /ERR_CONNECTION_REFUSED/);
  const stage = await Stage.started(inject("servedCopy"), { withBroker: false });
  try {
    const page = await tried(open, stage);
    await status(page, "connecting");
    const states = (): Promise<string[]> => page.evaluate(() => window.tried.states.map((one) => one.kind));
    const refused = await page.evaluate(async () => {
      const { host } = window.tried;
      const error = await host
        .connect()
        .request("Ping", {}, { timeoutMs: 100 })
        .catch((one: Error) => one.name);
      Object.assign(window, { queued: host.connect().request("UpdateState", { key: "tried.queued", value: 1 }) });
      return error;
    });
    expect(refused).toBe("NetworkError");
    await page.evaluate(() => window.tried.host.startBroker());
    await status(page, "ready");
    const version = await page.evaluate(
      async () => (await (window as unknown as { queued: Promise<{ version: number }> }).queued).version,
    );
    expect([version, await states()]).toEqual([1, ["reachable"]]);

    const port = Number(new URL(page.url()).port);
    await stage.endServer();
    await expect.poll(async () => (await states()).at(-1), { timeout: 20_000 }).toBe("unreachable");
    await stage.restartServer(port);
    await expect.poll(async () => (await states()).at(-1), { timeout: 20_000 }).toBe("expired");
    const other = await page.context().newPage();
    await other.goto(await stage.anotherLink());
    await expect.poll(async () => (await states()).at(-1), { timeout: 20_000 }).toBe("reachable");
    await status(page, "ready");
    const value = await page.evaluate(async () => {
      const answer = await window.tried.host.connect().request("GetState", { key: "tried.queued" });
      return answer.value;
    });
    expect(value).toBe(1);
  } finally {
    await stage.stop();
  }
}, 120_000);
