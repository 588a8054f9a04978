/** The subscriptions of the topic inspector. */

import type { PriceBatch, RemoteClient } from "@backtestr/client/page";
import { type Accessor, createSignal, onCleanup } from "solid-js";
import { brings, type InspectedTopic, Inspection, type KeptMessage, MOST_MESSAGES } from "./inspected";

/** A topic with its rate in messages a second. */
export interface ShownTopic extends InspectedTopic {
  readonly rate: number;
}

export interface InspectorSubscription {
  readonly prefix: string;
  readonly error: Accessor<unknown>;
}

export interface Inspector {
  readonly subscriptions: Accessor<readonly InspectorSubscription[]>;
  readonly topics: Accessor<readonly ShownTopic[]>;
  /** Messages on topics beyond those that are told apart. */
  readonly others: Accessor<number>;
  readonly paused: Accessor<boolean>;
  subscribe(prefix: string): void;
  unsubscribe(prefix: string): void;
  /** A pause keeps what is shown; messages are counted on, and those that are kept change after it. */
  pause(paused: boolean): void;
  clear(): void;
}

/** Milliseconds between two pictures of what has come. */
const SHOW_MS = 250;
/** Subscriptions at once. */
export const MOST_SUBSCRIPTIONS = 20;

/** Inspects topics until the owner is disposed of. */
export function createInspector(client: RemoteClient): Inspector {
  const inspection = new Inspection();
  const [subscriptions, setSubscriptions] = createSignal<readonly InspectorSubscription[]>([]);
  const [topics, setTopics] = createSignal<readonly ShownTopic[]>([]);
  const [others, setOthers] = createSignal(0);
  const [paused, setPaused] = createSignal(false);
  const endings = new Map<string, () => void>();

  function show(): void {
    const now = Date.now();
    setTopics(inspection.topics().map((one) => ({ ...one, rate: inspection.rate(one.topic, now) })));
    setOthers(inspection.others);
  }
  const timer = setInterval(() => {
    if (!paused()) show();
  }, SHOW_MS);

  function unsubscribe(prefix: string): void {
    endings.get(prefix)?.();
    endings.delete(prefix);
    const rest = subscriptions().filter((one) => one.prefix !== prefix);
    setSubscriptions(rest);
    inspection.clear((topic) => brings(prefix, topic) && !rest.some((one) => brings(one.prefix, topic)));
    show();
  }
  onCleanup(() => {
    clearInterval(timer);
    for (const end of endings.values()) end();
  });

  return {
    subscriptions,
    topics,
    others,
    paused,
    unsubscribe,
    subscribe: (prefix) => {
      if (endings.has(prefix) || endings.size >= MOST_SUBSCRIPTIONS) return;
      const [error, setError] = createSignal<unknown>();
      // Prices come by the thousand: as columns they cost a small part of what messages do.
      const end = prefix.startsWith("prices.")
        ? read(client.batches(prefix), (item) => takeBatch(inspection, item), setError)
        : read(client.subscribe(prefix), (item) => takeItem(inspection, item), setError);
      endings.set(prefix, end);
      setSubscriptions((now) => [...now, { prefix, error }]);
    },
    pause: (value) => {
      setPaused(value);
      if (!value) show();
    },
    clear: () => {
      inspection.clear();
      show();
    },
  };
}

type Item = Awaited<ReturnType<ReturnType<RemoteClient["subscribe"]>["next"]>>["value"];
type BatchItem = Awaited<ReturnType<ReturnType<RemoteClient["batches"]>["next"]>>["value"];

/** Takes every item of a stream; returns what ends that. */
function read<Taken>(
  stream: AsyncIterableIterator<Taken>,
  take: (item: Taken) => void,
  failed: (error: unknown) => void,
): () => void {
  let ended = false;
  void (async () => {
    try {
      for await (const item of stream) take(item);
    } catch (error) {
      if (!ended) failed(error);
    }
  })();
  return () => {
    ended = true;
    void stream.return?.();
  };
}

function takeItem(inspection: Inspection, item: NonNullable<Item>): void {
  const at = Date.now();
  if (item.kind === "update") inspection.message(item.topic, { seq: item.seq, at, type: item.type, data: item.data });
  else if (item.kind === "gap") inspection.gap(item.topic, { at, fromSeq: item.fromSeq, toSeq: item.toSeq });
}

function takeBatch(inspection: Inspection, item: NonNullable<BatchItem>): void {
  const at = Date.now();
  if (item.kind === "prices") inspection.messages(item.topic, item.rows, lastPrices(item, at));
  else if (item.kind === "gap") inspection.gap(item.topic, { at, fromSeq: item.fromSeq, toSeq: item.toSeq });
}

/** The last prices of a batch, as the messages that they were. */
function lastPrices(batch: PriceBatch, at: number): readonly KeptMessage[] {
  const first = Math.max(0, batch.rows - MOST_MESSAGES);
  return Array.from({ length: batch.rows - first }, (_, index) => {
    const row = first + index;
    const { symbol, timeframe } = batch;
    const data = {
      symbol: typeof symbol === "string" ? symbol : symbol[row],
      timeframe: typeof timeframe === "string" ? timeframe : timeframe[row],
      timestamp: batch.timestamp[row],
      bid: batch.bid[row],
      ask: batch.ask[row],
      last: batch.last[row],
      volume: batch.volume[row],
    };
    return { seq: batch.seq[row] ?? 0, at, type: "PriceUpdate", data };
  });
}
