/** Subscriptions over a broker in this thread. */

import { describe, expect, test } from "vitest";
import { type Received, TimedOut } from "../../src/exports.js";
import { settle } from "../support/fake-broker.js";
import { columns, opened, price } from "../support/streams.js";

describe("a subscription", () => {
  test("gives messages in order, and ends when it is closed", async () => {
    const [broker, client] = await opened();
    const subscription = client.subscribe("orders.b");
    await broker.publish("orders.b", "OrderUpdate", { n: 1 }, { n: 2 });
    subscription.close();
    const seen: Received[] = [];
    for await (const one of subscription) seen.push(one);
    expect(seen).toMatchObject([
      { kind: "update", topic: "orders.b", seq: 1, type: "OrderUpdate", data: { n: 1 } },
      { kind: "update", seq: 2 },
    ]);
    expect(await subscription.next()).toBeNull();
    await client.close();
  });

  test("is closed when its reader leaves, or at the end of a block", async () => {
    const [broker, client] = await opened();
    const subscription = client.subscribe("orders.");
    await broker.publish("orders.b", "OrderUpdate", { n: 1 }, { n: 2 });
    for await (const _ of subscription) break;
    expect(broker.prefixes).not.toContain("orders orders.");
    const other = client.subscribe("orders.");
    expect(broker.prefixes).toContain("orders orders.");
    await other[Symbol.asyncDispose]();
    expect(broker.prefixes).not.toContain("orders orders.");
    await client.close();
  });

  test("waits so long and no longer, and loses nothing by that", async () => {
    const [broker, client] = await opened();
    const subscription = client.subscribe("orders.b");
    const first = subscription.next({ timeoutMs: 100 });
    const late = expect(first).rejects.toBeInstanceOf(TimedOut);
    await broker.clock.advance(0.2);
    await late;
    const second = subscription.next({ timeoutMs: 100 });
    await broker.publish("orders.b", "OrderUpdate", { n: 1 });
    await expect(second).resolves.toMatchObject({ seq: 1 });
    await expect(subscription.next({ timeoutMs: Number.NaN })).rejects.toBeInstanceOf(TypeError);
    await client.close();
    expect(broker.clock.timers).toBe(0);
  });

  test("passes what its filter wants", async () => {
    const [broker, client] = await opened();
    const subscription = client.subscribe("prices.", { filters: { symbol: "S" } });
    expect(broker.prefixes).toContain("prices prices.S.");
    const both = client.subscribe("prices.", { filters: { symbol: ["S", "T"] } });
    await broker.publish("prices.S.1m", "PriceUpdate", price(1));
    await broker.publish("prices.U.1m", "PriceUpdate", price(2, "U"));
    await broker.publish("prices.T.1m", "PriceUpdate", price(3, "T"));
    await expect(both.next()).resolves.toMatchObject({ topic: "prices.S.1m" });
    await expect(both.next()).resolves.toMatchObject({ topic: "prices.T.1m" });
    await expect(subscription.next()).resolves.toMatchObject({ topic: "prices.S.1m" });
    await client.close();
  });

  test("refuses what it cannot read", async () => {
    const [, client] = await opened();
    expect(() => client.subscribe("oders.")).toThrow(TypeError);
    expect(() => client.subscribe("orders.b", { filter: {} } as never)).toThrow('did you mean "filters"?');
    expect(() => client.subscribe("orders.b", 5 as never)).toThrow("subscribe: expected a plain object of options");
    expect(() => client.subscribe("prices.", { filters: { side: "buy" } })).toThrow("cannot be filtered by side");
    await expect(client.subscribe("orders.b").batches().next()).rejects.toThrow("is no topic of prices");
    await client.close();
  });

  test("tells of gaps, repairs, losses and a slow reader", async () => {
    const [broker, client] = await opened({
      FetchMissed: ({ data }) => ({
        topic: data.topic,
        fromSeq: data.fromSeq,
        toSeq: data.toSeq ?? 3,
        oldestSeq: 3,
        messages: [{ seq: 3, payload: { type: "OrderUpdate", data: { n: 3 } } }],
      }),
    });
    const events: unknown[] = [];
    for (const name of ["gap", "repaired", "lost", "slowConsumer"] as const) {
      client.on(name, (event) => events.push([name, event]));
    }
    const subscription = client.subscribe("orders.b");
    await broker.publish("orders.b", "OrderUpdate", { n: 1 });
    broker.lose("orders.b", 2);
    await broker.publish("orders.b", "OrderUpdate", { n: 4 });
    const seen: Received[] = [];
    for (let count = 0; count < 4; count += 1) seen.push((await subscription.next()) as Received);
    expect(seen.map((one) => (one.kind === "gap" ? `${one.fromSeq}-${one.toSeq}` : one.kind))).toEqual([
      "update",
      "2-2",
      "update",
      "update",
    ]);
    expect(events).toEqual([
      ["gap", { topic: "orders.b", fromSeq: 2, toSeq: 3 }],
      ["lost", { topic: "orders.b", fromSeq: 2, toSeq: 2 }],
    ]);
    expect(client.errors.latest().map((one) => one.error.name)).toEqual(["MessagesLost"]);
    await client.close();
  });

  test("is told when what it has not read fills its bound, and gets what it misses once it has read", async () => {
    const weight = 50_000_000;
    const batch = {
      count: 1,
      compression: "none",
      rawBytes: weight,
      messages: [{ type: "OrderUpdate", data: { n: 1 } }],
    };
    const [broker, client] = await opened({
      FetchMissed: ({ data }) => ({
        topic: data.topic,
        fromSeq: data.fromSeq,
        toSeq: 5,
        oldestSeq: 1,
        messages: [{ seq: 5, payload: { type: "OrderUpdate", data: { n: 5 } } }].filter(
          ({ seq }) => seq >= data.fromSeq,
        ),
      }),
    });
    const slow: unknown[] = [];
    const repaired: unknown[] = [];
    client.on("slowConsumer", (event) => slow.push(event));
    client.on("repaired", (event) => repaired.push(event));
    const subscription = client.subscribe("orders.b");
    for (let count = 0; count < 5; count += 1) await broker.publishBatch("orders.b", batch);
    await settle();
    expect(slow).toEqual([{ topic: "orders.b" }]);
    for (let seq = 1; seq <= 5; seq += 1) await expect(subscription.next()).resolves.toMatchObject({ seq });
    await client.close();
  });

  test("reads prices as columns, joined as far as they follow each other", async () => {
    const [broker, client] = await opened();
    const subscription = client.subscribe("prices.S.1m");
    await broker.publishBatch("prices.S.1m", columns(1, 3));
    await broker.publishBatch("prices.S.1m", columns(4, 2));
    await broker.publish("prices.S.1m", "PriceUpdate", price(6), price(7));
    const messages = [8, 9].map((n) => ({ type: "PriceUpdate", data: price(n) }));
    await broker.publishBatch("prices.S.1m", { count: 2, compression: "none", rawBytes: 90, messages } as {
      count: number;
    });
    subscription.close();
    const batches = [];
    for await (const one of subscription.batches()) batches.push(one);
    expect(batches.map((one) => (one.kind === "prices" ? [...one.seq] : one))).toEqual([
      [1, 2, 3, 4, 5],
      [6, 7],
      [8, 9],
    ]);
    const [first, second] = batches;
    expect(first).toMatchObject({ topic: "prices.S.1m", symbol: "S", timeframe: "1m", rows: 5 });
    expect(first?.kind === "prices" && [...first.timestamp]).toEqual([1, 2, 3, 4, 5]);
    expect(first?.kind === "prices" && [...first.volume]).toEqual([4, 5, 6, 7, 8]);
    expect(second?.kind === "prices" && [...second.bid]).toEqual([6.25, 7.25]);
    await client.close();
  });

  test("reads the columns of the wanted symbols, and what began as messages goes on as columns", async () => {
    const [broker, client] = await opened();
    const subscription = client.subscribe("prices.", { filters: { symbol: ["T", "U"] } });
    await broker.publishBatch("prices.S.1m", columns(1, 3));
    await broker.publish("prices.T.1m", "PriceUpdate", price(1, "T"));
    await broker.publish("prices.V.1m", "PriceUpdate", price(1, "V"));
    const messages = ["T", "V", "U"].map((one, n) => ({ type: "PriceUpdate", data: price(n, one) }));
    await broker.publishBatch("prices.X.1m", { count: 3, compression: "none", rawBytes: 90, messages } as {
      count: number;
    });
    await broker.restart();
    await broker.clock.advance(0);
    const batches = subscription.batches();
    const next = async () => (await batches.next()).value;
    expect(await next()).toMatchObject({ symbol: "T", rows: 1 });
    expect(await next()).toMatchObject({ symbol: ["T", "U"], rows: 2 });
    expect(await next()).toMatchObject({ kind: "restarted" });
    await batches.return();
    const other = client.subscribe("prices.S.1m");
    await broker.publish("prices.S.1m", "PriceUpdate", price(1));
    await broker.publish("prices.S.1m", "Odd", price(2));
    const odd = other.batches();
    await expect(odd.next()).rejects.toThrow("a Odd came on a topic of prices");
    await client.close();
  });

  test("from history begins with what is retained", async () => {
    const [broker, client] = await opened({
      FetchMissed: ({ data }) => ({ topic: data.topic, fromSeq: 1, toSeq: 0, oldestSeq: 1, messages: [] }),
    });
    client.subscribe("orders.b", { history: true });
    await settle();
    expect(broker.of("FetchMissed")[0]?.data).toEqual({ topic: "orders.b", fromSeq: 1 });
    await client.close();
  });

  test("of missed messages fetches page by page", async () => {
    const [, client] = await opened({
      FetchMissed: ({ data }) => {
        const seqs = [2, 3, 4, 5].filter((seq) => seq >= data.fromSeq).slice(0, 2);
        const messages = seqs.map((seq) => ({ seq, payload: { type: "OrderUpdate", data: { n: seq } } }));
        return { topic: data.topic, fromSeq: data.fromSeq, toSeq: seqs.at(-1) ?? 5, oldestSeq: 2, messages };
      },
    });
    const all = await client.fetchMissed("orders.b");
    expect(all.map((one) => (one.kind === "gap" ? "gap" : one.seq))).toEqual(["gap", 2, 3, 4, 5]);
    const some = await client.fetchMissed("orders.b", { fromSeq: 3, toSeq: 4 });
    expect(some.map((one) => (one.kind === "gap" ? "gap" : one.seq))).toEqual([3, 4]);
    await client.close();
  });
});
