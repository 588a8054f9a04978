/** The program's end of a client that lives in another thread or process. */

import type { RequestType } from "../context.js";
import type { ConnectionState } from "../core/connection-state.js";
import type { Statistics } from "../core/counters.js";
import type { ErrorReport } from "../core/error-log.js";
import { ClosedError, NetworkError } from "../core/errors.js";
import type { TopicData } from "../core/topics.js";
import type { Update } from "../core/updates.js";
import { Emitter } from "../emitter.js";
import { type ClientEvents, EVENTS } from "../events.js";
import type {
  BacktestProgress,
  BacktestStatus,
  ListSweeps,
  OrderUpdate,
  PositionUpdate,
  Requests,
  SweepAccepted,
  SweepStatus,
  TrialGroup,
  Welcome,
} from "../generated/contracts.js";
import type {
  BacktestOptions,
  MarketDataOptions,
  SubscribeOptions,
  SweepOptions,
  Tested,
  Timed,
  TrialsOptions,
} from "../options.js";
import { PriceBatch } from "../price-batch.js";
import { trialFields } from "../request-fields.js";
import type { Results, TableName } from "../results.js";
import type { Waiting } from "../run.js";
import type { Gap, Received, Restarted } from "../subscription.js";
import type { SweepUpdate } from "../sweep.js";
import type { Table } from "../tables/table.js";
import { listen, type Port } from "../transports/port.js";
import {
  type Call,
  type EventItem,
  type FromWorker,
  revived,
  revivedTable,
  type StateItem,
  type StreamKind,
  type Thrown,
  type ToWorker,
} from "./messages.js";
import { RemoteState } from "./remote-state.js";
import { RemoteStream } from "./remote-stream.js";
import { RemoteSweep, type SweepCalls } from "./remote-sweep.js";

/** Milliseconds that a closing client may take at the other end. */
const CLOSING_MS = 5_000;

/** The results of a backtest as they travel: those of `Results`, without its methods. */
export type RemoteResults = Pick<
  Results,
  "backtestId" | "status" | "config" | "metrics" | "tables" | "warmupBars" | "trialGroup"
>;

interface Waiter {
  resolve(value: unknown): void;
  reject(error: Error): void;
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
  readonly #readers = new Map<number, RemoteStream<unknown>>();
  readonly #emitter = new Emitter<ClientEvents>(EVENTS, uncaught);
  readonly #events = new Map<keyof ClientEvents, RemoteStream<EventItem>>();
  readonly #watchers = new Set<(status: ConnectionState) => void>();
  readonly #ready: Promise<void>;
  #settle: { resolve(): void; reject(error: Error): void } | undefined;
  readonly #ofSweeps: SweepCalls = {
    call: (...args) => this.#call("ofSweep", ...args),
    updates: (sweepId) => this.#stream("sweep", sweepId) as RemoteStream<SweepUpdate>,
  };
  #ids = 0;
  #status: ConnectionState = "connecting";
  #welcome: Welcome | null = null;
  #missedEvents = 0;
  #isGone = false;
  #isClosed: Promise<void> | undefined;
  #whenClosed: (() => void) | undefined;

  /** Uses the client behind `port`. `ready` resolves once that has its session. */
  constructor(port: Port) {
    this.#port = port;
    this.#ready = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.#ready.catch(() => undefined); // nobody needs to wait for it
    this.#unlisten = listen(
      port,
      (message) => this.#take(message as FromWorker),
      () => this.gone("its port was closed"),
    );
  }

  /**
   * Resolves once the client has a session; rejects with the error of its `connect`, and when it is closed before that.
   */
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

  /** The broker's latest answer to the client's `Hello`; null before the first. */
  get welcome(): Welcome | null {
    return this.#welcome;
  }

  /**
   * Calls `callback` for every further event of this name; returns what ends that. Of events that come faster than they
   * are read the latest 256 of each name are kept; `missedEvents` counts the others.
   */
  on<Name extends keyof ClientEvents>(name: Name, callback: (event: ClientEvents[Name]) => void): () => void {
    const off = this.#emitter.on(name, callback);
    if (!this.#events.has(name)) void this.#follow(name);
    return () => {
      off();
      if (this.#emitter.has(name)) return;
      void this.#events.get(name)?.return();
      this.#events.delete(name);
    };
  }

  /** The events that were dropped, since this program read them too slowly. */
  get missedEvents(): number {
    return this.#missedEvents;
  }

  /** Returns the counters of the client so far. */
  statistics(): Promise<Statistics> {
    return this.#call("statistics") as Promise<Statistics>;
  }

  /** Sends any request of the protocol, and returns its answer. */
  request<Type extends RequestType>(
    requestType: Type,
    data: Requests[Type]["data"],
    options?: Timed,
  ): Promise<Requests[Type]["answer"]> {
    return this.#call("request", requestType, data, options) as Promise<Requests[Type]["answer"]>;
  }

  /** Sends any request of the protocol, and returns its answer with the attachments. */
  requestWithAttachments<Type extends RequestType>(
    requestType: Type,
    data: Requests[Type]["data"],
    options: Timed = {},
  ): Promise<{ readonly answer: Requests[Type]["answer"]; readonly attachments: readonly Uint8Array[] }> {
    return this.#call("requestWithAttachments", requestType, data, options) as Promise<{
      answer: Requests[Type]["answer"];
      attachments: Uint8Array[];
    }>;
  }

  /** Starts a backtest, and resolves as soon as the broker has accepted it. */
  backtest(options: BacktestOptions): Promise<{ readonly backtestId: string }> {
    return this.#call("backtest", options) as Promise<{ backtestId: string }>;
  }

  /** Starts a sweep, and resolves with its handle once it is accepted. */
  async sweep(options: SweepOptions): Promise<RemoteSweep> {
    const { sweepId, accepted } = (await this.#call("sweep", options)) as {
      readonly sweepId: string;
      readonly accepted: SweepAccepted;
    };
    return new RemoteSweep(this.#ofSweeps, sweepId, accepted);
  }

  /** Checks a sweep without starting it: how many combinations it has, and how long they are expected to take. */
  countSweep(options: SweepOptions): Promise<SweepAccepted> {
    return this.#call("countSweep", options) as Promise<SweepAccepted>;
  }

  /** Returns the handle of a sweep that was started elsewhere or before. Raises `NotFound`. */
  async findSweep(sweepId: string): Promise<RemoteSweep> {
    await this.#call("findSweep", sweepId);
    return new RemoteSweep(this.#ofSweeps, sweepId, null);
  }

  /** Lists the sweeps that the broker knows, the latest first. */
  async listSweeps(options: ListSweeps = {}): Promise<readonly SweepStatus[]> {
    const list = await this.request("ListSweeps", options);
    return list.sweeps;
  }

  /** Lists how many combinations of each algorithm were ever run on the same bars, those that were run last first. */
  async trials(options: TrialsOptions = {}): Promise<readonly TrialGroup[]> {
    const list = await this.request("GetTrials", trialFields(options));
    return list.groups;
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

  /** Returns the signals of an algorithm with the bars and the series that it shows, without a backtest. */
  async evaluate(tested: Tested & Timed): Promise<Table> {
    return revivedTable((await this.#call("evaluate", tested)) as Table);
  }

  /** Follows the shared state: the keys that begin with `prefix`, all without it. Close it when it is read no more. */
  follow(prefix = ""): RemoteState {
    const [id, stream] = this.#open("state", [prefix], (item) => item as StateItem | null);
    return new RemoteState(prefix, stream, (write) => this.#post({ type: "write", id, write }));
  }

  /** Receives a topic, or with a dot at the end every topic that begins so. */
  subscribe<Topic extends string>(
    topic: Topic,
    options: SubscribeOptions = {},
  ): RemoteStream<Received<TopicData<Topic>>> {
    return this.#stream("updates", topic, options) as RemoteStream<Update<TopicData<Topic>> | Gap | Restarted>;
  }

  /** Receives prices as columns, which are handed over and not copied. */
  batches(topic: string, options: SubscribeOptions = {}): RemoteStream<PriceBatch | Gap | Restarted> {
    const [, stream] = this.#open("batches", [topic, options], (item) => {
      const batch = item as PriceBatch | Gap | Restarted;
      return batch.kind === "prices" ? new PriceBatch(batch) : batch;
    });
    return stream;
  }

  /** Gives the progress of a backtest up to its end. */
  progress(backtestId: string): RemoteStream<BacktestProgress> {
    return this.#stream("progress", backtestId) as RemoteStream<BacktestProgress>;
  }

  /** Gives every change of an order of a backtest, in order. */
  orders(backtestId: string): RemoteStream<OrderUpdate> {
    return this.#stream("orders", backtestId) as RemoteStream<OrderUpdate>;
  }

  /** Gives every change of a position of a backtest, in order, and the marks between them. */
  positions(backtestId: string): RemoteStream<PositionUpdate> {
    return this.#stream("positions", backtestId) as RemoteStream<PositionUpdate>;
  }

  /** Closes the client at the other end. What still waits raises a `ClosedError`. */
  close(): Promise<void> {
    this.#isClosed ??= this.#isGone ? Promise.resolve() : this.#close();
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
    this.#isGone = true;
    this.#whenClosed?.();
    if (this.#isClosed !== undefined) return;
    const error = new NetworkError(`the thread of the client has ended: ${reason}`);
    this.#end(error);
    this.#setStatus("closed");
  }

  #end(error: Error): void {
    this.#settle?.reject(error);
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

  #stream(stream: StreamKind, ...args: readonly unknown[]): RemoteStream<unknown> {
    const [, reader] = this.#open(stream, args, (item) => item);
    return reader;
  }

  /** Opens a stream of the other end; returns its number with it. */
  #open<Item>(
    stream: StreamKind,
    args: readonly unknown[],
    revive: (item: unknown) => Item,
  ): [number, RemoteStream<Item>] {
    this.#ids += 1;
    const id = this.#ids;
    const source = {
      more: (items: number) => this.#post({ type: "more", id, items }),
      shut: () => {
        this.#readers.delete(id);
        this.#post({ type: "shut", id });
      },
    };
    const reader = new RemoteStream(source, new Error(stream), revive);
    if (this.#status === "closed" || this.#isClosed !== undefined) {
      reader.end(new ClosedError("this client is closed"));
    } else {
      this.#post({ type: "open", id, stream, args });
      this.#readers.set(id, reader);
    }
    return [id, reader];
  }

  /** Gives the events of one name to the callbacks, until the last of them is gone. */
  async #follow(name: keyof ClientEvents): Promise<void> {
    const [, stream] = this.#open("events", [name], (item) => item as EventItem);
    this.#events.set(name, stream);
    try {
      for await (const { event, missed } of stream) {
        this.#missedEvents += missed;
        this.#emitter.emit(name, (name === "error" ? revivedReport(event) : event) as ClientEvents[typeof name]);
      }
    } catch (error) {
      if (!(error instanceof ClosedError || error instanceof NetworkError)) uncaught(error);
    } finally {
      if (this.#events.get(name) === stream) this.#events.delete(name);
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
        reader?.end(message.error);
        return;
      }
      case "status":
        this.#welcome = message.welcome;
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

/** Throws what a callback of the program threw where nothing of the client is in its way. */
function uncaught(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}

function revivedReport(event: unknown): ErrorReport {
  const report = event as Omit<ErrorReport, "error"> & { readonly error: Thrown };
  return { ...report, error: revived(report.error, new Error("error")) as ErrorReport["error"] };
}
