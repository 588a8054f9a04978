/** The shared state of a client: it follows the broker, and writes with compare-and-set. */

import { describe, expect, test } from "vitest";
import {
  type Client,
  ClosedError,
  NotFound,
  type SharedState,
  type StateChange,
  StateConflict,
  TimedOut,
} from "../../src/exports.js";
import { type Asked, failed, settle } from "../support/fake-broker.js";
import { Keys } from "../support/keys-broker.js";

async function opened(): Promise<[Keys, Client, SharedState]> {
  const broker = new Keys();
  const client = await broker.client();
  return [broker, client, client.state];
}

describe("reading", () => {
  test("begins with the first use, and follows from then on", async () => {
    const [broker, client, state] = await opened();
    broker.set("ui.theme", "dark");
    expect(state.peek("ui.theme")).toBeUndefined();
    expect(broker.of("SnapshotState")).toEqual([]);
    expect(await state.get("ui.theme")).toBe("dark");
    expect(broker.prefixes).toContain("system state.");
    await broker.change("ui.theme", { colour: "light" });
    expect(state.peek("ui.theme")).toEqual({ colour: "light" });
    expect(state.version("ui.theme")).toBe(2);
    expect(state.read("ui.none")).toEqual({ key: "ui.none", value: undefined, version: 0 });
    await broker.change("ui.b", null);
    expect(await state.get("ui.b")).toBeNull();
    expect(state.keys()).toEqual(["ui.b", "ui.theme"]);
    expect(() => {
      (state.peek("ui.theme") as { colour: string }).colour = "mine";
    }).toThrow(TypeError);
    await client.close();
  });

  test("of a prefix knows no other keys", async () => {
    const [broker, client] = await opened();
    broker.set("ui.theme", "dark");
    broker.set("other", 1);
    const state = client.sharedState("ui.");
    await state.ready();
    expect(state.keys()).toEqual(["ui.theme"]);
    await expect(state.get("other")).rejects.toThrow('"other" does not begin with ui.');
    await expect(state.get(5 as never)).rejects.toThrow("a key is a text; 5 came");
    expect(() => client.sharedState("ui")).toThrow("expected a text that ends with a dot");
    expect(() => client.sharedState("ui.", { resolvers: { "ui.": 5 as never } })).toThrow(
      "resolvers.ui.: expected a function",
    );
    await state[Symbol.asyncDispose]();
    await expect(state.get("ui.theme")).rejects.toBeInstanceOf(ClosedError);
    expect(broker.prefixes).not.toContain("system state.ui.");
    await client.close();
  });

  test("goes on over a restart, with a new snapshot", async () => {
    const [broker, client, state] = await opened();
    await state.ready();
    broker.set("a", 1);
    await broker.restart();
    await broker.clock.advance(0);
    expect(state.peek("a")).toBe(1);
    await client.close();
  });

  test("takes snapshots until one comes", async () => {
    const [broker, client, state] = await opened();
    await state.ready();
    const snapshot = broker.handlers.SnapshotState as (asked: Asked) => unknown;
    broker.handlers.SnapshotState = () => failed("SYSTEM_ERROR");
    broker.set("a", 1);
    await broker.restart();
    await broker.clock.advance(1);
    expect(state.peek("a")).toBeUndefined();
    broker.handlers.SnapshotState = snapshot;
    await broker.clock.advance(10);
    expect(state.peek("a")).toBe(1);
    await client.close();
    expect(broker.clock.timers).toBe(0);
  });

  test("reports a message that cannot be read, and takes a snapshot instead", async () => {
    const [broker, client, state] = await opened();
    await state.ready();
    broker.set("a", 1);
    await broker.publish("state.a", "StateUpdate", { key: 5 });
    expect(client.errors.latest().map((one) => one.about)).toEqual(["state."]);
    expect(state.peek("a")).toBe(1);
    await client.close();
  });

  test("tries again where the first snapshot fails, and a watcher gets its value at last", async () => {
    const [broker, client, state] = await opened();
    const snapshot = broker.handlers.SnapshotState as (asked: Asked) => unknown;
    broker.handlers.SnapshotState = () => failed("SYSTEM_ERROR", null, ["retry"]);
    broker.set("a", 1);
    const seen: StateChange[] = [];
    state.subscribe("a", (change) => seen.push(change));
    await broker.clock.advance(2);
    expect(seen).toEqual([]);
    broker.handlers.SnapshotState = snapshot;
    await broker.clock.advance(40);
    expect(seen).toEqual([{ key: "a", value: 1, version: 1 }]);
    await client.close();
    const [other, client2, state2] = await opened();
    other.handlers.SnapshotState = () => failed("AUTHENTICATION_ERROR");
    state2.subscribe(() => undefined);
    await other.clock.advance(2);
    await expect(state2.get("a")).rejects.toMatchObject({ code: "AUTHENTICATION_ERROR" });
    await client2.close();
  });
});

describe("watching", () => {
  test("begins with the present value, and has every change in order", async () => {
    const [broker, client, state] = await opened();
    broker.set("a", 1);
    const seen: unknown[] = [];
    const all: unknown[] = [];
    state.subscribe("a", ({ value, version }) => seen.push([value, version]));
    const end = state.subscribe(({ key }) => all.push(key));
    await settle();
    await broker.change("a", 2);
    await broker.change("b", 1);
    await state.set("a", 3);
    await state.delete("a");
    end();
    await broker.change("a", 4);
    expect(seen).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
      [undefined, 0],
      [4, 5],
    ]);
    expect(all).toEqual(["a", "a", "b", "a", "a"]);
    const late: unknown[] = [];
    state.subscribe("a", ({ value }) => late.push(value));
    await settle();
    expect(late).toEqual([4]);
    await client.close();
  });

  test("goes on after a function that throws, and ends when it is told to", async () => {
    const [broker, client, state] = await opened();
    await state.ready();
    state.subscribe("a", () => {
      throw new RangeError("mine");
    });
    const seen: unknown[] = [];
    const end = state.subscribe("a", ({ value }) => seen.push(value));
    end();
    await settle();
    await broker.change("a", 1);
    expect(seen).toEqual([]);
    expect(client.errors.latest().map((one) => one.error.message)).toEqual(["callback: mine", "callback: mine"]);
    expect(() => state.subscribe("a", 5 as never)).toThrow("subscribe takes a function");
    expect(() => state.subscribe(5 as never)).toThrow("subscribe takes a function");
    await client.close();
  });
});

describe("writing", () => {
  test("shows the value at once, and takes it back where the broker refuses", async () => {
    const [broker, client, state] = await opened();
    broker.set("a", { n: 1 });
    await state.ready();
    broker.handlers.UpdateState = () => failed("VALIDATION_ERROR");
    const writing = state.set("a", { n: 2 });
    await settle();
    await expect(writing).rejects.toMatchObject({ name: "ValidationError" });
    expect(state.peek("a")).toEqual({ n: 1 });
    broker.handlers.UpdateState = () => undefined;
    const silent = state.set("a", { n: 3 });
    await settle();
    expect(state.peek("a")).toEqual({ n: 3 });
    expect(state.read("a")).toMatchObject({ value: { n: 1 }, version: 1 });
    const late = expect(silent).rejects.toBeInstanceOf(TimedOut);
    await broker.clock.advance(31);
    await late;
    expect(state.peek("a")).toEqual({ n: 1 });
    await client.close();
  });

  test("keeps its own copy of a value", async () => {
    const [, client, state] = await opened();
    const value = { list: [1] };
    const writing = state.set("a", value);
    value.list.push(2);
    expect(await writing).toEqual({ list: [1] });
    await expect(state.set("a", undefined)).rejects.toThrow("undefined is no value");
    await expect(state.set("a", { f: () => 1 })).rejects.toThrow("$.value.f: a value of the type function");
    await expect(state.set("a", 1, { baseVersion: -1 })).rejects.toThrow(
      "baseVersion: expected the version of a value",
    );
    await expect(state.update("a", 5 as never)).rejects.toThrow("update takes a function; 5 came");
    await client.close();
  });

  test("that lost a race is resolved as the prefix says", async () => {
    const [broker, client, state] = await opened();
    broker.set("algorithm.x", { fast: 1, slow: 2 });
    expect(await state.get("algorithm.x")).toEqual({ fast: 1, slow: 2 });
    broker.set("algorithm.x", { fast: 1, slow: 9 }); // by another client, and the news is late
    const writing = state.set("algorithm.x", { fast: 5, slow: 2 });
    await broker.clock.advance(1);
    expect(await writing).toEqual({ fast: 5, slow: 9 });
    broker.set("algorithm.x", { fast: 7, slow: 9 });
    await expect(state.set("algorithm.x", { fast: 8, slow: 9 })).rejects.toMatchObject({
      details: { fields: ["fast"] },
    });
    expect(state.peek("algorithm.x")).toEqual({ fast: 7, slow: 9 });
    broker.set("backtest.x", { lastUpdate: 1 });
    await state.get("backtest.x");
    broker.set("backtest.x", { lastUpdate: 9 });
    expect(await state.set("backtest.x", { lastUpdate: 5 })).toEqual({ lastUpdate: 9 }); // theirs is later
    await client.close();
  });

  test("may be resolved by one's own rule", async () => {
    const [broker, client] = await opened();
    const state = client.sharedState("n.", { resolvers: { "n.": (mine, theirs) => Number(mine) + Number(theirs) } });
    broker.set("n.a", 1);
    await state.get("n.a");
    broker.set("n.a", 10);
    const writing = state.set("n.a", 2);
    await broker.clock.advance(1);
    expect(await writing).toBe(12);
    await client.close();
  });

  test("by a function is made again of the new value", async () => {
    const [broker, client, state] = await opened();
    await state.ready();
    expect(await state.update("n", (now) => Number(now ?? 0) + 1)).toBe(1);
    broker.set("n", 10);
    const writing = state.update("n", (now) => Number(now) + 1);
    await broker.clock.advance(1);
    expect(await writing).toBe(11);
    await client.close();
  });

  test("of a contended key gives up after some tries", async () => {
    const [broker, client, state] = await opened();
    const update = broker.handlers.UpdateState as (asked: Asked) => unknown;
    broker.handlers.UpdateState = (asked) => {
      broker.set("n", broker.revision);
      return update(asked);
    };
    const writing = expect(state.update("n", () => "mine")).rejects.toThrow(
      "was changed by others each of the 4 times",
    );
    await broker.clock.advance(10);
    await writing;
    expect(broker.of("UpdateState")).toHaveLength(4);
    expect(state.peek("n")).toBe(3);
    await client.close();
  });

  test("of one key is done in turn, on what became of the one before", async () => {
    const [broker, client, state] = await opened();
    await state.ready();
    const first = state.set("a", 1);
    await settle();
    expect(state.peek("a")).toBe(1);
    const second = state.set("a", 2);
    await expect(Promise.all([first, second])).resolves.toEqual([1, 2]);
    const held = broker.handlers.UpdateState as (asked: Asked) => unknown;
    broker.handlers.UpdateState = () => failed("VALIDATION_ERROR");
    const refused = state.set("a", 3);
    await settle();
    state.peek("a");
    broker.handlers.UpdateState = held;
    const third = state.set("a", 4);
    await expect(refused).rejects.toThrow();
    await expect(third).resolves.toBe(4);
    expect(broker.entries.get("a")?.value).toBe(4);
    await client.close();
  });

  test("that is based on an update which was taken back asks the resolver", async () => {
    const [broker, client] = await opened();
    const asked: unknown[][] = [];
    const state = client.sharedState("k.", {
      resolvers: {
        "k.": (...values) => {
          asked.push(values);
          return values[0];
        },
      },
    });
    await state.ready();
    const answers: Asked[] = [];
    const update = broker.handlers.UpdateState as (asked: Asked) => unknown;
    broker.handlers.UpdateState = (one) => {
      answers.push(one);
      return undefined;
    };
    const first = state.set("k.a", "first");
    await settle();
    expect(state.peek("k.a")).toBe("first"); // what is not confirmed yet is the base of what follows
    const second = state.set("k.a", "second");
    await settle();
    broker.handlers.UpdateState = update;
    await broker.answer(answers[0]?.id ?? "", failed("VALIDATION_ERROR"));
    await expect(first).rejects.toMatchObject({ name: "ValidationError" });
    await expect(second).resolves.toBe("second");
    expect(asked).toEqual([["second", null, "first"]]);
    await client.close();
  });

  test("with a base of one's own is checked against that version", async () => {
    const [broker, client, state] = await opened();
    broker.set("algorithm.x", { a: 1, b: 1 });
    await state.ready();
    const read = state.read("algorithm.x");
    await broker.change("algorithm.x", { a: 1, b: 2 });
    const writing = state.set("algorithm.x", { a: 5, b: 1 }, { baseVersion: read.version });
    await broker.clock.advance(1);
    expect(await writing).toEqual({ a: 5, b: 2 });
    const present = state.set("algorithm.x", { a: 6, b: 2 }, { baseVersion: state.version("algorithm.x") });
    expect(await present).toEqual({ a: 6, b: 2 });
    await client.close();
  });

  test("null where the key is gone meanwhile writes nothing", async () => {
    const [broker, client, state] = await opened();
    broker.set("a", 1);
    await state.get("a");
    broker.entries.delete("a");
    expect(await state.set("a", null)).toBeUndefined();
    expect(broker.entries.has("a")).toBe(false);
    await client.close();
  });

  test("deletes at once, and puts the key back where that fails", async () => {
    const [broker, client, state] = await opened();
    broker.set("a", 1);
    await state.ready();
    broker.handlers.DeleteState = () => failed("BUSY");
    const deleting = state.delete("a");
    await settle();
    await expect(deleting).rejects.toMatchObject({ name: "Busy" });
    expect(state.peek("a")).toBe(1);
    await expect(state.delete("none")).rejects.toBeInstanceOf(Error);
    expect(new NotFound("x")).toBeInstanceOf(Error);
    expect(new StateConflict("x").code).toBe("STATE_CONFLICT");
    await client.close();
  });

  test("waits for the broker while that is away", async () => {
    const [broker, client, state] = await opened();
    await state.ready();
    broker.absence = "gone";
    await broker.event({ type: "lost", reason: "x" });
    const writing = state.set("a", 1);
    await broker.clock.advance(1);
    expect(state.peek("a")).toBe(1);
    broker.absence = null;
    await broker.clock.advance(5);
    expect(await writing).toBe(1);
    await client.close();
  });
});
