/** TypeScript knows requests, topics and events: a wrong name or type does not compile. */

import { expect, expectTypeOf, test } from "vitest";
import type {
  BacktestProgress,
  BacktestStatus,
  Client,
  ErrorData,
  MarketData,
  OrderUpdate,
  PositionUpdate,
  PriceUpdate,
  Received,
  StateUpdate,
  Subscription,
  SweepProgress,
  SystemStatus,
  TopicData,
} from "../../src/exports.js";
import { FakeBroker } from "../support/fake-broker.js";

test("topics have the types of their messages", () => {
  expectTypeOf<TopicData<"orders.">>().toEqualTypeOf<OrderUpdate>();
  expectTypeOf<TopicData<"orders.b1">>().toEqualTypeOf<OrderUpdate>();
  expectTypeOf<TopicData<`positions.${string}`>>().toEqualTypeOf<PositionUpdate>();
  expectTypeOf<TopicData<"prices.BTC.PERP.1m">>().toEqualTypeOf<PriceUpdate>();
  expectTypeOf<TopicData<"progress.b">>().toEqualTypeOf<BacktestProgress | SweepProgress>();
  expectTypeOf<TopicData<"system.status">>().toEqualTypeOf<SystemStatus>();
  expectTypeOf<TopicData<"system.errors">>().toEqualTypeOf<ErrorData>();
  expectTypeOf<TopicData<"system.backtests">>().toEqualTypeOf<BacktestStatus>();
  expectTypeOf<TopicData<"state.a.b">>().toEqualTypeOf<StateUpdate>();
  expectTypeOf<SystemStatus | ErrorData>().toExtend<TopicData<"system.">>();
  expectTypeOf<OrderUpdate | StateUpdate>().toExtend<TopicData<string>>();
});

test("requests have the types of their data and answers", async () => {
  const client = await new FakeBroker().client();
  const ask = (one: Client) => ({
    bars: () => one.request("GetMarketData", { symbol: "S", timeframe: "1m" }),
    ping: () => one.request("Ping"),
    // @ts-expect-error a symbol is missing
    missing: () => one.request("GetMarketData", { timeframe: "1m" }),
    // @ts-expect-error a limit is a number
    wrong: () => one.request("GetMarketData", { symbol: "S", timeframe: "1m", limit: "5" }),
    // @ts-expect-error data are needed
    without: () => one.request("GetState"),
    // @ts-expect-error there is no such request
    unknown: () => one.request("GetMarketDat", {}),
    // @ts-expect-error there is no such event
    event: () => one.on("gaps", () => undefined),
    // @ts-expect-error orders have no such field
    field: async () => (await one.subscribe("orders.b").next())?.kind === "update" && one.data.nothing,
  });
  const calls = ask(client);
  expectTypeOf<Awaited<ReturnType<typeof calls.bars>>>().toEqualTypeOf<MarketData>();
  expectTypeOf<Awaited<ReturnType<typeof calls.ping>>["timestamp"]>().toEqualTypeOf<number>();
  // What does not compile is refused where there is no compiler.
  await expect(calls.missing()).rejects.toThrow("GetMarketData.symbol: required, and missing");
  await expect(calls.wrong()).rejects.toThrow("GetMarketData.limit: expected a number");
  await expect(calls.without()).rejects.toThrow("GetState.key: required, and missing");
  await expect(calls.unknown()).rejects.toThrow("there is no request");
  expect(calls.event).toThrow('did you mean "gap"?');
  await client.close();
});

test("what a subscription gives is told apart by its kind", () => {
  type Given = Received<OrderUpdate>;
  expectTypeOf<Extract<Given, { kind: "update" }>["data"]>().toEqualTypeOf<OrderUpdate>();
  expectTypeOf<Extract<Given, { kind: "gap" }>["fromSeq"]>().toEqualTypeOf<number>();
  expectTypeOf<Subscription<"orders.b">>().toExtend<AsyncIterable<Given>>();
});
