/**
 * The messages between a client in another thread or process and the program that uses it.
 *
 * Columns are handed over: their buffers are transferred, not copied, where the port can do that.
 */

import {
  BacktestrError,
  CircuitOpen,
  ClosedError,
  errorFromData,
  MessagesLost,
  OfflineQueueFull,
  Recovered,
} from "../core/errors.js";
import type { ErrorData, Welcome } from "../generated/contracts.js";
import { type Table, TextColumn } from "../tables/table.js";

/** Items of a stream that may be on their way to a reader that has not taken them. */
export const CREDIT = 64;
/** Updates that travel together. */
export const CHUNK = 512;

/** The calls that a client in another thread answers, by name. */
export type Call =
  | "request"
  | "requestWithAttachments"
  | "backtest"
  | "sweep"
  | "countSweep"
  | "findSweep"
  | "ofSweep"
  | "wait"
  | "results"
  | "marketData"
  | "evaluate"
  | "statistics";
/** The streams that it gives. */
export type StreamKind = "updates" | "batches" | "progress" | "orders" | "positions" | "sweep" | "events" | "state";
/** The methods of a sweep's handle that are calls. */
export const OF_SWEEPS = [
  "status",
  "wait",
  "raiseFailure",
  "results",
  "best",
  "run",
  "trials",
  "pause",
  "resume",
  "stop",
  "delete",
] as const;
export type OfSweep = (typeof OF_SWEEPS)[number];

/** The program sends these messages. */
export type ToWorker =
  | { readonly type: "call"; readonly id: number; readonly call: Call; readonly args: readonly unknown[] }
  | { readonly type: "open"; readonly id: number; readonly stream: StreamKind; readonly args: readonly unknown[] }
  | { readonly type: "more"; readonly id: number; readonly items: number }
  | { readonly type: "shut"; readonly id: number }
  | { readonly type: "write"; readonly id: number; readonly write: StateWrite }
  | { readonly type: "close" };

/** The client in the other thread sends these messages. */
export type FromWorker =
  | { readonly type: "ready" }
  | { readonly type: "failed"; readonly error: Thrown }
  | { readonly type: "answer"; readonly id: number; readonly value: unknown }
  | { readonly type: "error"; readonly id: number; readonly error: Thrown }
  | { readonly type: "items"; readonly id: number; readonly items: readonly unknown[] }
  | { readonly type: "end"; readonly id: number; readonly error?: Thrown }
  | { readonly type: "status"; readonly status: string; readonly welcome: Welcome | null }
  | { readonly type: "closed" };

/**
 * A change of the shared state that the program wants, under a number of its own. `base` is the version that it saw, or
 * `own` where it saw a change of its own that it has no answer to; null for any version.
 */
export interface StateWrite {
  readonly number: number;
  readonly key: string;
  /** Left out where the key is to be deleted. */
  readonly value?: unknown;
  readonly base: number | "own" | null;
}

/** An item of the stream `state`: a change that the broker has made, or the end of a write of the program. */
export type StateItem =
  | { readonly kind: "change"; readonly key: string; readonly value: unknown; readonly version: number }
  | { readonly kind: "written"; readonly number: number; readonly value: unknown }
  | { readonly kind: "failed"; readonly number: number; readonly error: Thrown };

/** An item of the stream `events`. `missed` counts the earlier ones that were dropped, since they were read slowly. */
export interface EventItem {
  readonly event: unknown;
  readonly missed: number;
}

/** An error as it travels: structured clones lose classes. */
export interface Thrown {
  readonly name: string;
  readonly message: string;
  readonly stack: string | undefined;
  /** Of an error of the broker or of the connection. */
  readonly data: ErrorData | undefined;
}

/** Returns an error as it travels. */
export function thrown(error: unknown): Thrown {
  if (!(error instanceof Error)) return { name: "Error", message: String(error), stack: undefined, data: undefined };
  const { name, message, stack } = error;
  if (!(error instanceof BacktestrError)) return { name, message, stack, data: undefined };
  const { code, severity } = error;
  const data = {
    code,
    message,
    severity,
    component: "client",
    timestamp: Date.now(),
    details: error.details === null ? null : plain(error.details),
    recoveryActions: error.recoveryActions.map((one) => ({ ...one })),
  } as unknown as ErrorData;
  return { name, message, stack, data };
}

/** Returns details that can be cloned. */
function plain(details: object): unknown {
  try {
    return structuredClone(details);
  } catch {
    return null;
  }
}

/** Errors that the client makes itself: they share their code with another class. */
const OF_CLIENT: Readonly<Record<string, typeof MessagesLost>> = {
  CircuitOpen,
  MessagesLost,
  OfflineQueueFull,
  Recovered,
};
const LOCAL: Readonly<Record<string, new (message: string) => Error>> = { TypeError, RangeError, ClosedError };

/** Returns the error that `thrown` was made of, with the stack of its caller in this thread. */
export function revived(error: Thrown, origin: Error): Error {
  const { data } = error;
  if (data !== undefined) {
    const Own = OF_CLIENT[error.name];
    const made = Own === undefined ? errorFromData(data) : new Own(data.message, data.details).stated(data);
    return made.at(origin);
  }
  const Kind = LOCAL[error.name] ?? Error;
  const made = new Kind(error.message);
  const frames = (origin.stack ?? "").split("\n").slice(1).join("\n");
  Object.defineProperty(made, "stack", { value: `${error.name}: ${error.message}\n${frames}`, configurable: true });
  return made;
}

/** The buffers of typed arrays in a value, each once: those that can be handed over instead of copied. */
export function buffersOf(value: unknown, found: Set<ArrayBuffer> = new Set(), depth = 0): Set<ArrayBuffer> {
  if (ArrayBuffer.isView(value)) {
    if (value.buffer instanceof ArrayBuffer && value.buffer.byteLength > 0) found.add(value.buffer);
  } else if (typeof value === "object" && value !== null && depth < 8) {
    for (const one of Object.values(value)) buffersOf(one, found, depth + 1);
  }
  return found;
}

/** Makes columns of text of what a clone has left of them. */
export function revivedTable(table: Table): Table {
  const columns = Object.create(null) as Record<string, Table["columns"][string]>;
  for (const name of table.names) {
    const column = table.columns[name] as Table["columns"][string];
    columns[name] = ArrayBuffer.isView(column) ? column : new TextColumn(column.bytes, column.offsets, column.nulls);
  }
  return { ...table, columns };
}
