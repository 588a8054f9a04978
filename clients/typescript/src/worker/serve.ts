/**
 * Serves a client to a program in another thread or process, over a port.
 *
 * Reading is by credit: a stream sends `CREDIT` parcels ahead of its reader and then waits, so a slow reader makes
 * nothing grow here but the subscription's own bounded mailbox.
 */

import type { Client } from "../client.js";
import { ClosedError } from "../core/errors.js";
import type { BacktestOptions, SweepOptions } from "../options.js";
import type { Waiting } from "../run.js";
import { listen, type Port } from "../transports/port.js";
import { buffersOf, CREDIT, type FromWorker, type OfSweep, type ToWorker, thrown } from "./messages.js";
import type { WritableStream } from "./served-state.js";
import { ofSweep } from "./served-sweeps.js";
import { parcels } from "./streams.js";

/** Options of serving a client. */
export interface ServeOptions {
  /**
   * Hand columns over instead of copying them (default true). A MessagePortMain of Electron cannot: it takes no transfer
   * list with buffers.
   */
  readonly transfer?: boolean | undefined;
  /**
   * Whether a buffer may be handed over (default: every one). In Node those of an addon may not, such as the frames of
   * zeromq; `@backtestr/client/worker` knows them.
   */
  readonly isTransferable?: ((buffer: ArrayBuffer) => boolean) | undefined;
}

interface Stream extends WritableStream {
  credit: number;
  wake: (() => void) | undefined;
  isShut: boolean;
}

/**
 * Answers what a `RemoteClient` at the other end of `port` asks. Resolves when that has closed the client, or when the
 * port was closed.
 *
 * The client is closed with it. One that has no broker yet can be served: its requests wait for the broker.
 */
export async function serveClient(port: Port, client: Client, options: ServeOptions = {}): Promise<void> {
  const { transfer: mayTransfer = true, isTransferable = () => true } = options;
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
    const stream: Stream = { credit: CREDIT, wake: undefined, isShut: false, close: nothing, write: nothing };
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
        if (message.stream === "batches" || message.stream === "sweep") handOver({ type: "items", id, items }, items);
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

  let isReady = false;
  function tell(): void {
    const { status, welcome } = client;
    post({ type: "status", status, welcome });
    if (status === "closed" && !isReady)
      post({ type: "failed", error: thrown(new ClosedError("the client is closed")) });
    if (status !== "ready" || isReady) return;
    isReady = true;
    post({ type: "ready" });
  }

  const offStatus = client.on("status", tell);
  tell();
  await new Promise<void>((resolve) => {
    const take = (data: unknown): void => {
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
        case "write":
          streams.get(message.id)?.write(message.write);
          return;
        case "close":
          unlisten();
          resolve();
      }
    };
    const unlisten = listen(port, take, resolve);
  });
  isOver = true;
  offStatus();
  for (const stream of streams.values()) shut(stream);
  await client.close();
  post({ type: "closed" });
}

const nothing = (): void => undefined;

/** Does a call of the program, and returns what it is told. */
async function answered(client: Client, { call, args }: Extract<ToWorker, { type: "call" }>): Promise<unknown> {
  switch (call) {
    case "request":
      return client.request(...(args as Parameters<Client["request"]>));
    case "requestWithAttachments":
      return client.requestWithAttachments(...(args as Parameters<Client["requestWithAttachments"]>));
    case "backtest": {
      const run = await client.backtest({ watch: [], ...(args[0] as BacktestOptions) });
      return { backtestId: run.id };
    }
    case "sweep": {
      const sweep = await client.sweep(args[0] as SweepOptions);
      return { sweepId: sweep.id, accepted: sweep.accepted };
    }
    case "countSweep":
      return client.countSweep(args[0] as SweepOptions);
    case "findSweep":
      await client.findSweep(args[0] as string);
      return undefined;
    case "ofSweep":
      return ofSweep(client, args[0] as string, args[1] as OfSweep, args.slice(2));
    case "wait": {
      const run = await client.run(args[0] as string);
      return run.wait(args[1] as Waiting).finally(() => run.abandon());
    }
    case "results":
      return { ...(await client.results(...(args as Parameters<Client["results"]>))) };
    case "marketData":
      return client.marketData(...(args as Parameters<Client["marketData"]>));
    case "evaluate":
      return client.evaluate(...(args as Parameters<Client["evaluate"]>));
    case "statistics":
      return client.statistics;
  }
}
