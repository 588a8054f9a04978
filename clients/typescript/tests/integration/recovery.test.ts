/** A client keeps its promises over faults of a real broker: nothing is lost silently, and nothing is done twice. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { OrderUpdate, PositionUpdate } from "../../src/generated/contracts.js";
import { Broker, SLOW_ENGINE, until } from "../support/broker.js";
import { afterwards, all, connected } from "../support/clients.js";
import { fastClock } from "../support/fast-clock.js";
import { type Mischief, UnrulyProxy } from "../support/unruly-proxy.js";

let broker: Broker;

beforeAll(async () => {
  broker = await Broker.started({ engine: SLOW_ENGINE });
});

afterAll(() => broker.stop());

/** A backtest that takes some seconds with a worker that simulates bar by bar. */
const LONG = { algorithm: "sma_cross", symbol: "SYNTH", timeframe: "1m", parameters: { fast: 10, slow: 30 } };

interface Story {
  readonly orders: readonly OrderUpdate[];
  readonly positions: readonly PositionUpdate[];
  readonly finalEquity: number | null;
  readonly rows: number;
}

/** Runs that backtest, has something done in its middle, and returns what its readers were given. */
async function told(during: () => Promise<void>): Promise<Story> {
  const client = await connected(broker, { requestTimeoutMs: 90_000 });
  const run = await client.backtest(LONG);
  const orders = all(run.orders());
  const positions = all(run.positions({ marks: false }));
  const progress = run.progress();
  await progress.next();
  expect((await run.status()).status).toBe("running");
  await during();
  const result = await run.result();
  const story = {
    orders: await orders,
    positions: await positions,
    finalEquity: result.metrics?.finalEquity ?? null,
    rows: result.orders.rows,
  };
  await progress.return();
  return story;
}

const idless = ({ orders, positions, ...rest }: Story): object => ({
  ...rest,
  orders: orders.map(({ backtestId: _, orderId: __, ...one }) => one),
  positions: positions.map(({ backtestId: _, positionId: __, ...one }) => one),
});

describe("a backtest", () => {
  let undisturbed: Story;

  beforeAll(async () => {
    undisturbed = await told(async () => undefined);
    expect(undisturbed.orders.length).toBeGreaterThan(500);
    expect(undisturbed.rows).toBeGreaterThan(500);
  });

  it("gives every order and position once, and the same result, though its broker is killed and started again", async () => {
    const story = await told(async () => {
      await broker.kill();
      await broker.start();
    });
    expect(idless(story)).toEqual(idless(undisturbed));
  });

  it("does so though its worker is killed", async () => {
    const story = await told(async () => {
      for (const pid of broker.workerPids()) process.kill(pid, "SIGKILL");
    });
    expect(idless(story)).toEqual(idless(undisturbed));
  });

  it("does so through a proxy that replays, reorders, drops and forges stream messages", async () => {
    const kinds: Mischief[] = [
      "pass",
      "twice",
      "swap",
      "again later",
      "pass",
      "drop",
      "forge",
      "pass",
      "swap",
      "twice",
    ];
    const proxy = await UnrulyProxy.started(broker, { messages: (number) => kinds[number % kinds.length] as Mischief });
    afterwards(() => proxy.close());
    const client = await connected(broker, { connectionFile: proxy.connectionFile });
    const seen: string[] = [];
    for (const name of ["gap", "repaired", "lost"] as const) client.on(name, () => seen.push(name));
    const run = await client.backtest(LONG);
    const [orders, positions] = await Promise.all([all(run.orders()), all(run.positions({ marks: false }))]);
    const result = await run.result();
    const story = { orders, positions, finalEquity: result.metrics?.finalEquity ?? null, rows: result.orders.rows };
    expect(idless(story)).toEqual(idless(undisturbed));
    expect(seen).toContain("gap");
    expect(seen).toContain("repaired");
    expect(seen).not.toContain("lost");
    const { gapsSeen, gapsRepaired, messagesLost } = client.statistics;
    expect(gapsRepaired).toBeGreaterThan(0);
    expect(gapsSeen).toBeGreaterThanOrEqual(gapsRepaired);
    expect(messagesLost).toBe(0);
    const forged = proxy.messages.reduce((sum, way) => sum + way.count.forge, 0);
    expect(forged).toBeGreaterThan(0);
    expect(client.errors.latest().some((report) => report.error.code === "AUTHENTICATION_ERROR")).toBe(true);
  });
});

describe("requests", () => {
  // The broker's answer to a copy comes at once, and that to the request when the change is on disk.
  it.each<[string, Mischief[], Mischief[]]>([
    [
      "each is replayed, at once or later, and answers come twice and out of order",
      ["twice", "again later", "twice"],
      ["swap", "twice", "pass"],
    ],
    ["every fifth answer is lost, and others come late", ["pass"], ["swap", "twice", "pass", "drop", "again later"]],
  ])("are executed once, though %s", async (_what, there, back) => {
    const proxy = await UnrulyProxy.started(broker, {
      requests: (number) => there[number % there.length] as Mischief,
      answers: (number) => (number < 3 ? "pass" : (back[number % back.length] as Mischief)),
    });
    afterwards(() => proxy.close());
    const client = await connected(broker, {
      connectionFile: proxy.connectionFile,
      clock: fastClock(5),
      requestTimeoutMs: 300_000,
    });
    const key = `proxy.once${Date.now()}`;
    for (let version = 1; version <= 40; version += 1) {
      const made = await client.request("UpdateState", { key, value: version });
      expect(made.version).toBe(version);
    }
    const many = Array.from({ length: 60 }, (_, at) =>
      client.request("UpdateState", { key: `${key}.m${at}`, value: at }),
    );
    expect((await Promise.all(many)).map((one) => one.version)).toEqual(many.map(() => 1));
    const straight = await connected(broker);
    expect(await straight.request("GetState", { key })).toMatchObject({ version: 40, value: 40 });
    if (there.includes("twice")) expect(proxy.requests.count.twice).toBeGreaterThan(50);
    if (back.includes("drop")) expect(proxy.answers.count.drop).toBeGreaterThan(10);
  });

  it("made while the broker is away are executed once when it is back", async () => {
    const client = await connected(broker, { requestTimeoutMs: 90_000 });
    const key = `away.key${Date.now()}`;
    await client.request("UpdateState", { key, value: 0 });
    const states: string[] = [];
    client.on("status", ({ state }) => states.push(state));
    await broker.kill();
    await until(() => client.status === "reconnecting", "the loss");
    const waiting = Array.from({ length: 50 }, (_, at) =>
      client.request("UpdateState", { key: `${key}.n${at}`, value: at }),
    );
    await broker.start();
    expect((await Promise.all(waiting)).map((one) => one.version)).toEqual(waiting.map(() => 1));
    expect((await client.request("UpdateState", { key, value: 1 })).version).toBe(2);
    expect(states.at(-1)).toBe("ready");
  });
});

describe("a flood of prices", () => {
  it("states the restart of its broker, and has each price of each instance once and in order", async () => {
    const reader = await connected(broker, { requestTimeoutMs: 90_000 });
    const feed = await connected(broker, { requestTimeoutMs: 90_000 });
    const subscription = reader.subscribe("prices.FLOOD.tick");
    const instances: { seqs: number[]; lost: number; stated: number }[] = [{ seqs: [], lost: 0, stated: 0 }];
    const reading = (async () => {
      for await (const one of subscription) {
        const instance = instances.at(-1) as (typeof instances)[number];
        if (one.kind === "restarted") instances.push({ seqs: [], lost: 0, stated: 0 });
        else if (one.kind === "gap") {
          instance.lost += one.toSeq - one.fromSeq + 1;
          instance.stated = one.toSeq;
        } else instance.seqs.push(one.seq);
      }
    })();
    let published = 0;
    let isOver = false;
    const publishing = (async () => {
      while (!isOver) {
        const prices = Array.from({ length: 500 }, (_, at) => ({
          symbol: "FLOOD",
          timestamp: 1_700_000_000_000 + published + at,
          bid: 1,
          ask: 1,
          last: 1,
          volume: 0,
          timeframe: "tick",
        }));
        published += await feed.publishPrices(prices);
      }
    })();
    const read = (): number => instances.reduce((sum, one) => sum + one.seqs.length, 0);
    await until(() => read() > 20_000, "the flood");
    await broker.kill();
    await broker.start();
    await until(
      () => instances.length > 1 && (instances.at(-1)?.seqs.length ?? 0) > 20_000,
      "the flood to go on",
      60_000,
    );
    isOver = true;
    await publishing;
    const last = await feed.request("FetchMissed", { topic: subscription.topic, fromSeq: 1 });
    const reached = (): number => Math.max(instances.at(-1)?.seqs.at(-1) ?? 0, instances.at(-1)?.stated ?? 0);
    await until(() => reached() >= last.toSeq, "the last price", 60_000);
    subscription.close();
    await reading;
    for (const { seqs, lost } of instances) {
      const inOrder = seqs.every((seq, at) => at === 0 || seq > (seqs[at - 1] as number));
      expect(inOrder).toBe(true);
      const first = seqs[0] as number;
      const last = seqs.at(-1) as number;
      // Dense but for what was stated as lost; the subscription may have begun after the first.
      expect(seqs.length + lost).toBeGreaterThanOrEqual(last - first + 1);
      expect(new Set(seqs).size).toBe(seqs.length);
    }
  });
});

describe("a broker that is stopped for forty seconds", () => {
  // The client's clock runs ten times as fast as the machine's: its 30 s without a heartbeat are 3 s of the broker's.
  const TIMES = Number(process.env.BACKTESTR_CLOCK ?? 10);
  const SECONDS = 40 / TIMES;

  it("is told to be silent though its connection stands, and everything goes on when it is back", async () => {
    const client = await connected(broker, { clock: fastClock(TIMES), requestTimeoutMs: 120_000 });
    const key = `stopped.key${Date.now()}`;
    const silences: unknown[] = [];
    client.on("silence", (event) => silences.push(event));
    await until(() => client.heartbeat.pulse === "alive", "a heartbeat");
    const beats = client.subscribe("system.status");
    await beats.next();
    broker.signal("SIGSTOP");
    const stopped = performance.now();
    const waiting = Array.from({ length: 10 }, (_, at) =>
      client.request("UpdateState", { key: `${key}.n${at}`, value: at }),
    );
    await until(() => silences.length > 0, "the silence", 1000 * SECONDS);
    expect(client.heartbeat.pulse).toBe("silent");
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, 1000 * SECONDS - (performance.now() - stopped))));
    broker.signal("SIGCONT");
    expect((await Promise.all(waiting)).map((one) => one.version)).toEqual(waiting.map(() => 1));
    await until(() => client.heartbeat.pulse === "alive", "the next heartbeat");
    const next = await beats.next();
    expect(["update", "gap"]).toContain(next?.kind);
    expect(silences.length).toBe(1);
    expect(await client.ping()).toBeGreaterThan(0);
    expect(client.status).toBe("ready");
  }, 120_000);
});

it("closes cleanly in the middle of everything", async () => {
  const client = await connected(broker);
  const run = await client.backtest(LONG);
  const orders = all(run.orders()).catch((error) => error);
  const state = client.state.ready();
  await client.close();
  await Promise.allSettled([orders, state, run.wait().catch(() => undefined)]);
  expect(client.status).toBe("closed");
});
