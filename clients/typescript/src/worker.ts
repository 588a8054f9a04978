/**
 * The client in a thread of its own: it decodes there, and hands columns over.
 *
 * In a process of its own, such as Electron's utility process, call `serveClient` there and make a `RemoteClient` here.
 *
 * @module
 */

import * as threads from "node:worker_threads";
import type { Client } from "./client.js";
import type { ConnectOptions } from "./node/connect.js";
import type { Port } from "./transports/port.js";
import type { ToWorker } from "./worker/messages.js";
import { RemoteClient } from "./worker/remote.js";
import { type ServeOptions, serveClient as serve } from "./worker/serve.js";

export type { ConnectOptions } from "./node/connect.js";
export { PriceBatch } from "./price-batch.js";
export { type ColumnType, type ColumnValues, type Table, TextColumn } from "./tables/table.js";
export type { Port } from "./transports/port.js";
export { RemoteClient, type RemoteResults } from "./worker/remote.js";
export { RemoteState } from "./worker/remote-state.js";
export { RemoteStream } from "./worker/remote-stream.js";
export { RemoteSweep } from "./worker/remote-sweep.js";
export type { ServeOptions } from "./worker/serve.js";

/**
 * Answers what a `RemoteClient` at the other end of `port` asks. Resolves when that has closed the client, or when the
 * port was closed. The client is closed with it.
 */
export function serveClient(port: Port, client: Client, options: ServeOptions = {}): Promise<void> {
  return serve(port, client, { isTransferable, ...options });
}

/** Returns false for a buffer that belongs to an addon, such as the frames of zeromq. */
function isTransferable(buffer: ArrayBuffer): boolean {
  return threads.isMarkedAsUntransferable?.(buffer) !== true;
}

/** Options of the thread's client: those of `connect` that can be cloned. */
export type WorkerOptions = Omit<ConnectOptions, "clock" | "decompress">;

/** Milliseconds that an exiting process waits for its thread. */
const EXIT_MS = 1_000;

/** The data that the thread begins with. `ended` is 1 once it holds no socket any more. */
export interface ThreadData {
  readonly options: WorkerOptions;
  readonly ended: Int32Array<SharedArrayBuffer>;
}

/**
 * Starts a thread and connects a client in it, as `connect` does.
 *
 * Throws what `connect` throws. `close()` ends the thread. A process that exits before that waits for the thread up to a
 * second, since a socket of ZeroMQ in a thread that is torn down aborts the process.
 */
export async function connectInWorker(options: WorkerOptions = {}): Promise<RemoteClient> {
  const file = import.meta.url.endsWith(".cjs") ? "./worker-thread.cjs" : "./worker-thread.mjs";
  const workerData: ThreadData = { options, ended: new Int32Array(new SharedArrayBuffer(4)) };
  const worker = new threads.Worker(new URL(file, import.meta.url), { name: "backtestr client", workerData });
  const close = (): void => {
    worker.postMessage({ type: "close" } satisfies ToWorker);
    Atomics.wait(workerData.ended, 0, 0, EXIT_MS);
  };
  process.once("exit", close);
  const exited = new Promise<void>((resolve) => {
    worker.once("exit", () => {
      process.off("exit", close);
      resolve();
    });
  });
  const client = new ThreadClient(portOf(worker), exited);
  worker.once("error", (error) => client.gone((error as Error).message));
  worker.once("exit", (code) => client.gone(`exit code ${code}`));
  try {
    await client.ready();
  } catch (error) {
    await exited;
    throw error;
  }
  return client;
}

/** A worker as a port: its events carry the data themselves. */
function portOf(worker: threads.Worker): Port {
  const listeners = new Map<unknown, (data: unknown) => void>();
  return {
    postMessage: (message) => worker.postMessage(message),
    on: (type, listener) => {
      if (type === "close") return;
      const own = (data: unknown): void => listener({ data });
      listeners.set(listener, own);
      worker.on("message", own);
    },
    off: (_type, listener) => {
      const own = listeners.get(listener);
      if (own !== undefined) worker.off("message", own);
    },
  };
}

class ThreadClient extends RemoteClient {
  readonly #exited: Promise<void>;

  constructor(port: Port, exited: Promise<void>) {
    super(port);
    this.#exited = exited;
  }

  override async close(): Promise<void> {
    await super.close();
    await this.#exited;
  }
}
