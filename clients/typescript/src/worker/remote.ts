/** The program's end of a client that lives in another thread or process. */

import type { RequestType } from "../context.js";
import type { ConnectionState } from "../core/connection-state.js";
import { ClosedError, NetworkError } from "../core/errors.js";
import type { TopicData } from "../core/topics.js";
import type { Update } from "../core/updates.js";
import type {
  BacktestProgress,
  BacktestStatus,
  OrderUpdate,
  PositionUpdate,
  Requests,
} from "../generated/contracts.js";
import type { BacktestOptions, MarketDataOptions, SubscribeOptions, Timed } from "../options.js";
import { PriceBatch } from "../price-batch.js";
import type { Results, TableName } from "../results.js";
import type { Waiting } from "../run.js";
import type { Gap, Received, Restarted } from "../subscription.js";
import type { Table } from "../tables/table.js";
import { listen, type Port } from "../transports/port.js";
import {
  type Call,
  CREDIT,
  type FromWorker,
  revived,
  revivedTable,
  type StreamKind,
  type ToWorker,
} from "./messages.js";

/** Milliseconds that a closing client may take at the other end. */
const CLOSING_MS = 5_000;

/** The results of a backtest as they travel: those of `Results`, without its methods. */
export type RemoteResults = Pick<Results, "backtestId" | "status" | "config" | "metrics" | "tables" | "warmupBars">;

interface Waiter {
  resolve(value: unknown): void;
  reject(error: Error): void;
  readonly origin: Error;
}

interface Reader {
  take(items: readonly unknown[]): void;
  end(error?: Error): void;
  readonly origin: Error;
}

/**
 * A client in another thread or process, at whose end of the port `serveClient` runs.
 *
 * Everything is decoded there. Tables and batches of prices are handed over as typed arrays. Errors are those of the
 * client, with the stack of the call here. `request` reaches every request of the protocol.
 */
export class RemoteClient {
  readonly #port: Port;
  readonly #unlisten: () => void;
  readonly #calls = new Map<number, Waiter>();
  readonly #readers = new Map<number, Reader>();
  readonly #watchers = new Set<(status: ConnectionState) => void>();
  readonly #ready: Promise<void>;
  #settle: { resolve(): void; reject(error: Error): void } | undefined;
  #ids = 0;
  #status: ConnectionState = "connecting";
  #isClosed: Promise<void> | undefined;
  #whenClosed: (() => void) | undefined;

  /** Uses the client behind `port`. `ready` resolves once that has its session. */
  constructor(port: Port) {
    this.#port = port;
    this.#ready = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.#ready.catch(() => undefined); // nobody needs to wait for it
    this.#unlisten = listen(port, (message) => this.#take(message as FromWorker));
  }

  /** Resolves once the client has a session; rejects with the error of its `connect`. */
  ready(): Promise<void> {
    return this.#ready;
  }

  /** The state of the connection to the broker, as last told. */
  get status(): ConnectionState {
    return this.#status;
  }

  /** Calls `listener` at every change of the state; returns what ends that. */
  onStatus(listener: (status: ConnectionState) => void): () => void {
    this.#watchers.add(listener);
    return () => this.#watchers.delete(listener);
  }

  /** Sends any request of the protocol, and returns its answer. */
  request<Type extends RequestType>(
    requestType: Type,
    data: Requests[Type]["data"],
    options?: Timed,
  ): Promise<Requests[Type]["answer"]> {
    return this.#call("request", requestType, data, options) as Promise<Requests[Type]["answer"]>;
  }

  /** Starts a backtest, and resolves as soon as the broker has accepted it. */
  backtest(options: BacktestOptions): Promise<{ readonly backtestId: string }> {
    return this.#call("backtest", options) as Promise<{ backtestId: string }>;
  }

  /** Waits for the final status of a backtest. */
  wait(backtestId: string, options: Waiting = {}): Promise<BacktestStatus> {
    return this.#call("wait", backtestId, options) as Promise<BacktestStatus>;
  }

  /** Returns the results of a backtest, without metrics while it has not ended. Raises `NotFound`. */
  async results(
    backtestId: string,
    options: Timed & { readonly tables?: readonly TableName[] } = {},
  ): Promise<RemoteResults> {
    const found = (await this.#call("results", backtestId, options)) as RemoteResults;
    const tables = Object.entries(found.tables).map(([name, table]) => [name, revivedTable(table)] as const);
    return { ...found, tables: Object.fromEntries(tables) };
  }

  /** Returns bars or ticks as a table. */
  async marketData(symbol: string, timeframe: string, options: MarketDataOptions = {}): Promise<Table> {
    return revivedTable((await this.#call("marketData", symbol, timeframe, options)) as Table);
  }

  /** Receives a topic, or with a dot at the end every topic that begins so. */
  subscribe<Topic extends string>(
    topic: Topic,
    options: SubscribeOptions = {},
  ): AsyncIterableIterator<Received<TopicData<Topic>>> {
    return this.#open("updates", topic, options) as AsyncIterableIterator<Update<TopicData<Topic>> | Gap | Restarted>;
  }

  /** Receives prices as columns, which are handed over and not copied. */
  async *batches(
    topic: string,
    options: SubscribeOptions = {},
  ): AsyncGenerator<PriceBatch | Gap | Restarted, void, undefined> {
    for await (const one of this.#open("batches", topic, options)) {
      const batch = one as PriceBatch | Gap | Restarted;
      yield batch.kind === "prices" ? new PriceBatch(batch) : batch;
    }
  }

  /** Gives the progress of a backtest up to its end. */
  progress(backtestId: string): AsyncIterableIterator<BacktestProgress> {
    return this.#open("progress", backtestId) as AsyncIterableIterator<BacktestProgress>;
  }

  /** Gives every change of an order of a backtest, in order. */
  orders(backtestId: string): AsyncIterableIterator<OrderUpdate> {
    return this.#open("orders", backtestId) as AsyncIterableIterator<OrderUpdate>;
  }

  /** Gives every change of a position of a backtest, in order, and the marks between them. */
  positions(backtestId: string): AsyncIterableIterator<PositionUpdate> {
    return this.#open("positions", backtestId) as AsyncIterableIterator<PositionUpdate>;
  }

  /** Closes the client at the other end. What still waits raises a `ClosedError`. */
  close(): Promise<void> {
    this.#isClosed ??= this.#close();
    return this.#isClosed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, CLOSING_MS);
      this.#whenClosed = (): void => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#post({ type: "close" });
    await closed;
    this.#end(new ClosedError("this client is closed"));
    this.#setStatus("closed");
    this.#unlisten();
    this.#port.close?.();
  }

  /** Notes that the other end is gone, such as a thread that has failed. */
  gone(reason: string): void {
    this.#whenClosed?.();
    if (this.#isClosed !== undefined) return;
    const error = new NetworkError(`the thread of the client has ended: ${reason}`);
    this.#settle?.reject(error);
    this.#end(error);
    this.#setStatus("closed");
  }

  #end(error: Error): void {
    for (const call of this.#calls.values()) call.reject(error);
    for (const reader of this.#readers.values()) reader.end(error);
    this.#calls.clear();
    this.#readers.clear();
  }

  #post(message: ToWorker): void {
    this.#port.postMessage(message);
  }

  #call(call: Call, ...args: readonly unknown[]): Promise<unknown> {
    const origin = new Error(call);
    if (this.#status === "closed" || this.#isClosed !== undefined) {
      return Promise.reject(new ClosedError("this client is closed"));
    }
    this.#ids += 1;
    const id = this.#ids;
    return new Promise((resolve, reject) => {
      // A value that cannot be cloned throws here, at the call.
      this.#post({ type: "call", id, call, args });
      this.#calls.set(id, { resolve, reject, origin });
    });
  }

  /** Reads a stream of the other end, as far ahead as the credit goes. */
  async *#open(stream: StreamKind, ...args: readonly unknown[]): AsyncGenerator<unknown, void, undefined> {
    if (this.#status === "closed" || this.#isClosed !== undefined) throw new ClosedError("this client is closed");
    this.#ids += 1;
    const id = this.#ids;
    const parcels: (readonly unknown[])[] = [];
    let wake = (): void => undefined;
    let ended: { error?: Error } | undefined;
    this.#readers.set(id, {
      origin: new Error(stream),
      take: (items) => {
        parcels.push(items);
        wake();
      },
      end: (error) => {
        ended = error === undefined ? {} : { error };
        wake();
      },
    });
    this.#post({ type: "open", id, stream, args });
    let taken = 0;
    try {
      for (;;) {
        const items = parcels.shift();
        if (items !== undefined) {
          yield* items;
          taken += 1;
          if (2 * taken >= CREDIT) {
            this.#post({ type: "more", id, items: taken });
            taken = 0;
          }
        } else if (ended === undefined) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        } else {
          if (ended.error !== undefined) throw ended.error;
          return;
        }
      }
    } finally {
      if (ended === undefined) this.#post({ type: "shut", id });
      this.#readers.delete(id);
    }
  }

  #take(message: FromWorker): void {
    switch (message.type) {
      case "ready":
        this.#settle?.resolve();
        return;
      case "failed":
        this.#settle?.reject(revived(message.error, new Error("connect")));
        return;
      case "answer":
        this.#calls.get(message.id)?.resolve(message.value);
        this.#calls.delete(message.id);
        return;
      case "error": {
        const call = this.#calls.get(message.id);
        this.#calls.delete(message.id);
        call?.reject(revived(message.error, call.origin));
        return;
      }
      case "items":
        this.#readers.get(message.id)?.take(message.items);
        return;
      case "end": {
        const reader = this.#readers.get(message.id);
        this.#readers.delete(message.id);
        reader?.end(message.error === undefined ? undefined : revived(message.error, reader.origin));
        return;
      }
      case "status":
        this.#setStatus(message.status as ConnectionState);
        return;
      case "closed":
        this.#whenClosed?.();
    }
  }

  #setStatus(status: ConnectionState): void {
    if (status === this.#status) return;
    this.#status = status;
    for (const one of this.#watchers) one(status);
  }
}
