/** Subscriptions over a broker that loses, repeats and restarts: nothing is silently lost, and nothing comes twice. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { StreamCounters } from "../../src/core/counters.js";
import type { Delivery, Purpose, SubscriptionEffect, TopicRepair } from "../../src/core/effects.js";
import { NetworkError, NotFound, SystemFault } from "../../src/core/errors.js";
import { FollowedBacktests } from "../../src/core/followed-backtests.js";
import { Subscriptions, type Wanted } from "../../src/core/subscriptions.js";
import { checkedMissed, MAX_AHEAD, MAX_INCONCLUSIVE, TopicStream } from "../../src/core/topic-stream.js";
import { published, RIGHT } from "../support/signing.js";

const none = (): never => {
  throw new Error("no batch is compressed");
};
const TOPIC = "orders.b1";

/** A broker of one topic that retains its last messages, and a client's subscriptions at the other end of a link. */
class Broker {
  readonly subscriptions = new Subscriptions(none);
  readonly received: Delivery[] = [];
  readonly ended: SubscriptionEffect[] = [];
  last = 0;
  retained: number;
  page = 1_000_000;
  #instance = 1;
  #watermarks = 0;
  #asked: (SubscriptionEffect & { kind: "ask" })[] = [];
  #waits: TopicRepair[] = [];

  constructor(retained = 1_000_000) {
    this.retained = retained;
    this.take(this.subscriptions.connected(RIGHT, "i1"));
  }

  take(effects: readonly SubscriptionEffect[]): void {
    for (const one of effects) {
      if (one.kind === "deliver") this.received.push(...one.deliveries);
      else if (one.kind === "ask") this.#asked.push(one);
      else if (one.kind === "wait") this.#waits.push(one.repair);
      else if (one.kind === "end" || one.kind === "finished" || one.kind === "unattributed") this.ended.push(one);
    }
    expect(this.subscriptions.violation()).toBeNull();
  }

  open(wanted: Partial<Wanted> = {}): void {
    this.take(this.subscriptions.open(1, { prefix: TOPIC, since: "start", space: 1_000_000, ...wanted }));
  }

  publish(count: number, isLost: boolean, isTwice = false): void {
    const first = this.last + 1;
    this.last += count;
    if (isLost) return;
    const messages = Array.from({ length: count }, (_, index) => this.#payload(first + index));
    const frames =
      count === 1
        ? published(TOPIC, first, "Number", messages[0]?.data, `i${this.#instance}`)
        : published(
            TOPIC,
            first,
            "Batch",
            { count, compression: "none", rawBytes: 10 * count, messages },
            `i${this.#instance}`,
          );
    this.take(this.subscriptions.receive(frames));
    if (isTwice) this.take(this.subscriptions.receive(frames));
  }

  #payload(n: number) {
    return { type: "Number", data: { n } };
  }

  watermark(): void {
    this.#watermarks += 1;
    const data = { topics: { [TOPIC]: this.last, "orders.other": 5 } };
    this.take(
      this.subscriptions.receive(
        published("system.watermarks", this.#watermarks, "Watermarks", data, `i${this.#instance}`),
      ),
    );
  }

  restart(): void {
    this.#instance += 1;
    this.last = 0;
    this.#watermarks = 0;
    this.take(this.subscriptions.connected(RIGHT, `i${this.#instance}`));
  }

  /** Lets the time of the next wait pass; returns false if there is none. */
  wait(): boolean {
    const repair = this.#waits.shift();
    if (repair !== undefined) this.take(this.subscriptions.waited(repair));
    return repair !== undefined;
  }

  /** Answers the next request, or lets the time of a wait pass; returns false if there is neither. */
  answer(isFailure = false): boolean {
    return this.reply(isFailure) || this.wait();
  }

  /** Answers the next request; returns false if there is none. */
  reply(isFailure = false): boolean {
    const ask = this.#asked.shift();
    if (ask === undefined) return false;
    if (isFailure) {
      this.take(this.subscriptions.failed(ask.purpose, new NetworkError("lost")));
      return true;
    }
    if (ask.data.topic === TOPIC) {
      const fromSeq = Number(ask.data.fromSeq);
      const toSeq = Math.min(this.last, Number(ask.data.toSeq ?? this.last), fromSeq + this.page - 1);
      const oldestSeq = Math.max(1, this.last - this.retained + 1);
      const numbers = Array.from({ length: toSeq }, (_, index) => index + 1).filter(
        (n) => n >= fromSeq && n >= oldestSeq,
      );
      const messages = numbers.map((seq) => ({ seq, payload: this.#payload(seq) }));
      this.take(this.subscriptions.answered(ask.purpose, { topic: TOPIC, fromSeq, toSeq, oldestSeq, messages }));
    } else {
      this.take(this.subscriptions.failed(ask.purpose, new NotFound("no such topic")));
    }
    return true;
  }

  /** Everything that was delivered since the last restart, as numbers; a gap as its bounds. */
  numbers(): (number | string)[] {
    const at = this.received.findLastIndex((one) => one.kind === "restarted");
    return this.received.slice(at + 1).flatMap((one): (number | string)[] => {
      if (one.kind === "gap") return [`${one.fromSeq}-${one.toSeq}`];
      if (one.kind === "message") return [one.seq];
      return one.kind === "batch" ? one.content.payloads().map((payload) => (payload.data as { n: number }).n) : [];
    });
  }
}

const steps = fc.array(
  fc.tuple(
    fc.constantFrom("publish", "publish", "lose", "twice", "answer", "fail", "watermark", "taken", "restart"),
    fc.integer({ min: 1, max: 6 }),
  ),
  { maxLength: 80 },
);

test("a subscriber gets every message once and in order, whatever the link does", () => {
  fc.assert(
    fc.property(steps, fc.constantFrom(3, 1_000_000), (script, space) => {
      const broker = new Broker();
      broker.open({ space });
      for (const [step, count] of script) {
        if (step === "publish" || step === "lose" || step === "twice")
          broker.publish(count, step === "lose", step === "twice");
        else if (step === "answer") broker.answer();
        else if (step === "fail") broker.answer(true);
        else if (step === "watermark") broker.watermark();
        else if (step === "taken") broker.take(broker.subscriptions.taken(1, count));
        else broker.restart();
      }
      for (let turn = 0; turn < 300; turn += 1) {
        broker.watermark();
        while (broker.answer());
        broker.take(broker.subscriptions.taken(1, 20));
      }
      expect(broker.numbers()).toEqual(Array.from({ length: broker.last }, (_, index) => index + 1));
      expect(broker.subscriptions.counters.messagesLost).toBe(0);
      expect(broker.subscriptions.counters.gapsOpen).toBe(0);
    }),
    { numRuns: 100 },
  );
});

test("what the broker no longer retains is stated as a gap, and nothing else is lost", () => {
  fc.assert(
    fc.property(steps, (script) => {
      const broker = new Broker(4);
      broker.open();
      for (const [step, count] of script) {
        if (step === "publish" || step === "lose") broker.publish(count, step === "lose");
        else if (step === "answer") broker.answer();
      }
      for (let turn = 0; turn < 20; turn += 1) {
        broker.watermark();
        while (broker.answer());
      }
      let next = 1;
      for (const one of broker.numbers()) {
        const [from = 0, to = 0] = typeof one === "number" ? [one, one] : one.split("-").map(Number);
        expect(from).toBe(next);
        next = to + 1;
      }
      expect(next).toBe(broker.last + 1);
    }),
    { numRuns: 100 },
  );
});

describe("a subscription", () => {
  test("from now begins with the first message that comes", () => {
    const broker = new Broker();
    broker.publish(3, true);
    broker.open({ since: "now" });
    broker.watermark();
    broker.publish(2, false);
    expect(broker.numbers()).toEqual([4, 5]);
  });

  test("does not take a backlog that a watermark overtakes for lost", () => {
    const broker = new Broker(4);
    broker.open();
    broker.publish(1, false);
    const backlog = Array.from({ length: 30 }, (_, index) => published(TOPIC, index + 2, "Number", { n: index + 2 }));
    broker.publish(30, true); // they are in a queue, and come later
    for (const frames of backlog) {
      broker.watermark();
      while (broker.reply());
      broker.take(broker.subscriptions.receive(frames));
      broker.wait(); // something has come meanwhile
    }
    while (broker.answer());
    expect(broker.numbers()).toEqual(Array.from({ length: 31 }, (_, index) => index + 1));
    expect(broker.subscriptions.counters.messagesLost).toBe(0);
    expect(broker.subscriptions.counters.gapsSeen).toBe(0);
  });

  test("reads an ended topic, of which nothing more is told, page by page to its end", () => {
    const broker = new Broker();
    broker.page = 3;
    broker.publish(8, true);
    broker.open({ since: "retained", space: 4 });
    while (broker.reply());
    expect(broker.numbers()).toEqual([1, 2, 3, 4]);
    broker.take(broker.subscriptions.taken(1, 100));
    while (broker.reply());
    expect(broker.numbers()).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(broker.subscriptions.taken(1, 1)).toEqual([]);
  });

  test("takes an empty answer for no news of messages that were told of since it was asked for", () => {
    const broker = new Broker();
    const effects = broker.subscriptions.open(1, { prefix: TOPIC, since: "retained", space: 100 });
    const check = effects.find((one) => one.kind === "ask");
    if (check?.purpose.kind !== "repair") throw new Error("it asks for what is retained");
    broker.publish(2, true);
    broker.watermark();
    const nothing = { topic: TOPIC, fromSeq: 1, toSeq: 0, oldestSeq: 1, messages: [] };
    expect(broker.subscriptions.answered(check.purpose, nothing).map((one) => one.kind)).toEqual(["wait"]);
    expect(broker.subscriptions.counters.messagesLost).toBe(0);
  });

  test("from a sequence number begins there", () => {
    const broker = new Broker();
    broker.publish(5, true);
    broker.open({ since: "retained", firstSeq: 4 });
    while (broker.answer());
    expect(broker.numbers()).toEqual([4, 5]);
  });

  test("ends with its backtest once everything was delivered", () => {
    const broker = new Broker();
    broker.open({ until: "b1" });
    broker.take(broker.subscriptions.started("b1"));
    broker.publish(2, false);
    broker.publish(1, true);
    const status = { backtestId: "b1", status: "completed" };
    broker.take(broker.subscriptions.receive(published("system.backtests", 1, "BacktestStatus", status)));
    while (broker.answer());
    expect(broker.numbers()).toEqual([1, 2, 3]);
    expect(broker.ended.map((one) => one.kind)).toEqual(["finished", "end"]);
    expect(broker.subscriptions.prefixes).toContain("system.backtests");
  });

  test("ends with the error of a backtest that is not known", () => {
    const broker = new Broker();
    broker.open({ since: "retained", until: "b1" });
    broker.take(broker.subscriptions.failed({ kind: "status", backtestId: "b1" }, new NotFound("forgotten")));
    expect(broker.ended).toMatchObject([{ kind: "finished" }, { kind: "end", error: { code: "NOT_FOUND" } }]);
    expect(broker.subscriptions.failed({ kind: "status", backtestId: "b1" }, new NetworkError("late"))).toEqual([]);
  });

  test("asks again after a passing failure, and ends with any other", () => {
    const subscriptions = new Subscriptions(none);
    const [, , ask] = subscriptions.open(1, { prefix: TOPIC, since: "retained", space: 5 });
    const purpose = (ask as { purpose: Purpose }).purpose;
    const [again] = subscriptions.failed(purpose, new NetworkError("lost"));
    expect(again?.kind).toBe("ask");
    const effects = subscriptions.failed((again as { purpose: Purpose }).purpose, new SystemFault("broken"));
    expect(effects.map((one) => one.kind)).toEqual(["end", "unsubscribe", "unsubscribe"]);
    expect(subscriptions.failed(purpose, new SystemFault("broken"))).toEqual([]);
    expect(subscriptions.answered(purpose, {})).toEqual([]);
    expect(subscriptions.close(1)).toEqual([]);
    expect(subscriptions.taken(1, 5)).toEqual([]);
  });

  test("ends with an answer or a message that is damaged", () => {
    const broker = new Broker();
    broker.open();
    broker.take(broker.subscriptions.receive(published(TOPIC, 1, "Batch", { count: 0 })));
    expect(broker.ended).toMatchObject([{ kind: "end", error: { code: "IPC_SERIALIZATION_ERROR" } }]);
    const other = new Broker();
    other.open({ since: "retained" });
    const purpose = { kind: "repair", number: 1, subscriptionId: 1, topic: TOPIC, isLast: false } as const;
    other.take(other.subscriptions.answered(purpose, { messages: 5 }));
    expect(other.ended).toMatchObject([{ kind: "end", error: { code: "VALIDATION_ERROR" } }]);
  });

  test("does not stop at a message of the client's own that cannot be read", () => {
    const broker = new Broker();
    broker.take(broker.subscriptions.follow("b1", true));
    broker.take(broker.subscriptions.receive(published("system.backtests", 1, "BacktestStatus", { status: 5 })));
    broker.take(broker.subscriptions.receive(published("system.watermarks", 1, "Watermarks", { topics: { a: "x" } })));
    broker.take(broker.subscriptions.receive(published("system.watermarks", 2, "Watermarks", 7)));
    broker.take(broker.subscriptions.receive(published("system.backtests", 2, "Batch", { count: 0 })));
    expect(broker.ended.map((one) => one.kind)).toEqual([
      "unattributed",
      "unattributed",
      "unattributed",
      "unattributed",
    ]);
    expect(broker.subscriptions.answered({ kind: "status", backtestId: "b1" }, { status: 5 })).toEqual([]);
    broker.subscriptions.unfollow("b1");
  });

  test("takes nothing before it is connected, nor from a broker that is gone", () => {
    const subscriptions = new Subscriptions(none);
    subscriptions.open(1, { prefix: "orders.", since: "now", space: 5 });
    expect(subscriptions.receive(published(TOPIC, 1, "Number", 1))).toEqual([]);
    subscriptions.connected(RIGHT, "i2");
    expect(subscriptions.receive(published(TOPIC, 1, "Number", 1, "i1"))).toEqual([]);
  });

  test("raises a defect of this client instead of hiding it", () => {
    const subscriptions = new Subscriptions(() => {
      throw new Error("unused");
    });
    subscriptions.connected(
      {
        sign: RIGHT.sign,
        verify: () => {
          throw new RangeError("mine");
        },
      },
      "i1",
    );
    expect(() => subscriptions.receive(published(TOPIC, 1, "Number", 1))).toThrow("mine");
  });
});

describe("a topic stream", () => {
  const payload = (n: number) => ({ type: "Number", data: n });

  test("holds so many messages ahead of a missing one, and no more", () => {
    const stream = new TopicStream(TOPIC, true, none);
    for (let seq = 2; seq <= MAX_AHEAD + 50; seq += 1) stream.offer([[seq, payload(seq)]], 10);
    expect(stream.violation()).toBeNull();
    expect(stream.missing()).toEqual([1, 1]);
    expect(stream.offer([[1, payload(1)]], 1_000_000)).toHaveLength(MAX_AHEAD + 1);
    expect(stream.missing()).toEqual([MAX_AHEAD + 2, MAX_AHEAD + 50]);
  });

  test("keeps the nearest of an answer that is larger than it holds", () => {
    const stream = new TopicStream(TOPIC, true, none);
    const messages = Array.from({ length: MAX_AHEAD + 5 }, (_, index) => ({ seq: index + 1, payload: payload(index) }));
    expect(stream.fetched({ fromSeq: 1, toSeq: messages.length, oldestSeq: 1, messages }, 2)).toHaveLength(2);
    expect(stream.violation()).toBeNull();
    expect(stream.resume(1_000_000)).toHaveLength(MAX_AHEAD);
  });

  test("believes a loss only once it is certain", () => {
    const stream = new TopicStream(TOPIC, true, none, new StreamCounters());
    stream.noteWatermark(3);
    for (let round = 0; round < MAX_INCONCLUSIVE; round += 1) {
      expect(stream.fetched({ fromSeq: 1, toSeq: 0, oldestSeq: 4, messages: [] }, 10)).toEqual([]);
    }
    expect(stream.fetched({ fromSeq: 1, toSeq: 0, oldestSeq: 4, messages: [] }, 10)).toEqual([
      { kind: "gap", topic: TOPIC, fromSeq: 1, toSeq: 3 },
    ]);
    expect(stream.giveUp(10, 3)).toEqual([]);
    stream.noteWatermark(9);
    expect(stream.giveUp(0, 9)).toEqual([]);
    stream.askedFor = 9;
    expect(stream.fetched({ fromSeq: 9, toSeq: 2, oldestSeq: 1, messages: [] }, 10)).toEqual([
      { kind: "gap", topic: TOPIC, fromSeq: 4, toSeq: 9 },
    ]);
  });

  test("does not begin by a watermark, and begins once", () => {
    const stream = new TopicStream("state.k", false, none);
    stream.noteWatermark(5);
    expect(stream.known).toBe(0);
    stream.startAt(4);
    stream.startAt(7);
    expect(stream.nextSeq).toBe(4);
    stream.abandon();
    const batch = { count: 2, compression: "none", rawBytes: 20, messages: [payload(4), payload(5)] };
    expect(stream.receive(4, { type: "Batch", data: batch }, 10).map((one) => one.kind)).toEqual([
      "message",
      "message",
    ]);
  });

  test("a batch that has come before is a duplicate, and one that came in part is cut", () => {
    const counters = new StreamCounters();
    const stream = new TopicStream(TOPIC, true, none, counters);
    const batch = (first: number, count: number) => ({
      type: "Batch",
      data: {
        count,
        compression: "none",
        rawBytes: 10,
        messages: Array.from({ length: count }, (_, index) => payload(first + index)),
      },
    });
    expect(stream.receive(1, batch(1, 3), 10)).toHaveLength(1);
    expect(stream.receive(1, batch(1, 3), 10)).toEqual([]);
    expect(counters.duplicatesDropped).toBe(3);
    const [part] = stream.receive(2, batch(2, 3), 10);
    expect(part?.kind === "batch" && part.content.payloads()).toEqual([payload(4)]);
    stream.offer([[6, payload(6)]], 10);
    expect(stream.receive(5, batch(5, 2), 10)).toHaveLength(1);
    expect(counters.duplicatesDropped).toBe(6);
    expect(stream.receive(7, batch(7, 2), 0)).toEqual([]);
    expect(stream.resume(10)).toHaveLength(2);
  });

  test.each([
    5,
    {},
    { fromSeq: 1, toSeq: 1, oldestSeq: 1, messages: [{ seq: "1" }] },
    { fromSeq: 1, toSeq: 1, oldestSeq: 1 },
  ])("%o is no answer to FetchMissed", (data) => {
    expect(() => checkedMissed(data)).toThrow("$.payload.data");
  });
});

test("backtests that are followed are asked for when an end may be lost", () => {
  const followed = new FollowedBacktests();
  expect(followed.follow("old", false)).toHaveLength(1);
  expect(followed.follow("new", true)).toEqual([]);
  expect(followed.askForAll().map((one) => one.data.backtestId)).toEqual(["old"]);
  expect(followed.started("new").map((one) => one.data.backtestId)).toEqual(["new"]);
  expect(followed.started("new")).toEqual([]);
  expect(followed.askForAll()).toHaveLength(2);
  followed.unfollow("old");
  expect(followed.has("old")).toBe(false);
});
