/**
 * Serves a client to a program in another thread or process, over a port.
 *
 * Reading is by credit: a stream sends `CREDIT` parcels ahead of its reader and then waits, so a slow reader makes
 * nothing grow here but the subscription's own bounded mailbox.
 */

import * as threads from "node:worker_threads";
import type { Client } from "../client.js";
import type { BacktestOptions, SubscribeOptions } from "../options.js";
import { PriceBatch } from "../price-batch.js";
import type { Waiting } from "../run.js";
import { listen, type Port } from "../transports/port.js";
import { buffersOf, CHUNK, CREDIT, type FromWorker, type StreamKind, type ToWorker, thrown } from "./messages.js";

/** Options of serving a client. */
export interface ServeOptions {
  /**
   * Hand columns over instead of copying them (default true). A MessagePortMain of Electron cannot: it takes no transfer
   * list with buffers.
   */
  readonly transfer?: boolean | undefined;
}

interface Stream {
  credit: number;
  wake: (() => void) | undefined;
  isShut: boolean;
  close(): void;
}

/**
 * Answers what a `RemoteClient` at the other end of `port` asks. Resolves when that has closed the client.
 *
 * The client is closed with it.
 */
export async function serveClient(port: Port, client: Client, options: ServeOptions = {}): Promise<void> {
  const mayTransfer = options.transfer !== false;
  const streams = new Map<number, Stream>();
  let isOver = false; // then the program itself fails what waits

  function post(message: FromWorker): void {
    port.postMessage(message);
  }

  /** Posts a message whose buffers are handed over, where they can be. */
  function handOver(message: FromWorker, value: unknown): void {
    const buffers = mayTransfer ? [...buffersOf(value)].filter(isTransferable) : [];
    try {
      (port.postMessage as (value: unknown, list: readonly ArrayBuffer[]) => void)(message, buffers);
    } catch (error) {
      if ((error as Error).name !== "DataCloneError" || buffers.length === 0) throw error;
      port.postMessage(message); // Node 20 does not say which buffers belong to an addon: all are copied
    }
  }

  async function call(message: Extract<ToWorker, { type: "call" }>): Promise<void> {
    const { id } = message;
    try {
      const value = await answered(client, message);
      handOver({ type: "answer", id, value }, value);
    } catch (error) {
      post({ type: "error", id, error: thrown(error) });
    }
  }

  async function open(message: Extract<ToWorker, { type: "open" }>): Promise<void> {
    const { id } = message;
    const stream: Stream = { credit: CREDIT, wake: undefined, isShut: false, close: () => undefined };
    streams.set(id, stream);
    try {
      for await (const items of parcels(client, message.stream, message.args, stream)) {
        while (stream.credit <= 0 && !stream.isShut) {
          await new Promise<void>((resolve) => {
            stream.wake = resolve;
          });
        }
        if (stream.isShut) break;
        stream.credit -= 1;
        if (message.stream === "batches") handOver({ type: "items", id, items }, items);
        else post({ type: "items", id, items });
      }
      if (!isOver) post({ type: "end", id });
    } catch (error) {
      if (!isOver) post({ type: "end", id, error: thrown(error) });
    } finally {
      streams.delete(id);
    }
  }

  function shut(stream: Stream | undefined): void {
    if (stream === undefined) return;
    stream.isShut = true;
    stream.close();
    stream.wake?.();
  }

  const offStatus = client.on("status", ({ state }) => post({ type: "status", status: state }));
  post({ type: "status", status: client.status });
  post({ type: "ready" });
  await new Promise<void>((resolve) => {
    const unlisten = listen(port, (data) => {
      const message = data as ToWorker;
      switch (message.type) {
        case "call":
          void call(message);
          return;
        case "open":
          void open(message);
          return;
        case "more": {
          const stream = streams.get(message.id);
          if (stream === undefined) return;
          stream.credit += message.items;
          stream.wake?.();
          return;
        }
        case "shut":
          shut(streams.get(message.id));
          return;
        case "close":
          unlisten();
          resolve();
      }
    });
  });
  isOver = true;
  offStatus();
  for (const stream of streams.values()) shut(stream);
  await client.close();
  post({ type: "closed" });
}

/** Returns false for a buffer that belongs to an addon, such as the frames of zeromq. */
function isTransferable(buffer: ArrayBuffer): boolean {
  return threads.isMarkedAsUntransferable?.(buffer) !== true;
}

/** Does a call of the program, and returns what it is told. */
async function answered(client: Client, { call, args }: Extract<ToWorker, { type: "call" }>): Promise<unknown> {
  switch (call) {
    case "request":
      return client.request(...(args as Parameters<Client["request"]>));
    case "backtest": {
      const run = await client.backtest({ watch: [], ...(args[0] as BacktestOptions) });
      return { backtestId: run.id };
    }
    case "wait": {
      const run = await client.run(args[0] as string);
      return run.wait(args[1] as Waiting).finally(() => run.abandon());
    }
    case "results":
      return { ...(await client.results(...(args as Parameters<Client["results"]>))) };
    case "marketData":
      return client.marketData(...(args as Parameters<Client["marketData"]>));
  }
}

/** Gives the items of a stream in parcels: batches of prices one by one, others as many as have come together. */
async function* parcels(
  client: Client,
  kind: StreamKind,
  args: readonly unknown[],
  stream: Stream,
): AsyncGenerator<readonly unknown[]> {
  if (kind === "updates" || kind === "batches") {
    const subscription = client.subscribe(...(args as [string, SubscribeOptions?]));
    stream.close = (): void => subscription.close();
    if (kind === "updates") yield* together(subscription);
    else for await (const batch of subscription.batches()) yield [batch instanceof PriceBatch ? { ...batch } : batch];
    return;
  }
  const run = await client.run(args[0] as string);
  const items = run[kind]();
  stream.close = (): void => run.abandon();
  yield* together(items);
}

/** Gives items that come within one turn of the event loop as one parcel of up to `CHUNK`. */
async function* together(items: AsyncIterable<unknown>): AsyncGenerator<readonly unknown[]> {
  const iterator = items[Symbol.asyncIterator]();
  let parcel: unknown[] = [];
  let next = iterator.next();
  let turn: Promise<null> | undefined;
  try {
    for (;;) {
      turn ??= parcel.length === 0 ? undefined : new Promise((resolve) => setImmediate(resolve, null));
      const came = turn === undefined ? await next : await Promise.race([next, turn]);
      if (came === null || parcel.length >= CHUNK) {
        yield parcel;
        parcel = [];
        turn = undefined;
      }
      if (came === null) continue;
      if (came.done === true) break;
      parcel.push(came.value);
      next = iterator.next();
    }
    if (parcel.length > 0) yield parcel;
  } finally {
    await iterator.return?.();
  }
}
