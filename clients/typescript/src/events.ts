/** The events of a client, and its errors. */

import type { ConnectionState } from "./core/connection-state.js";
import type { ErrorCallback, ErrorReport } from "./core/error-log.js";
import type { Severity } from "./core/errors.js";
import type { SystemStatus } from "./generated/contracts.js";

/** The events of a client, and what its callbacks are given. */
export interface ClientEvents {
  /** The state of the connection has changed. */
  readonly status: { readonly state: ConnectionState; readonly previous: ConnectionState };
  /** Messages of a topic are missing, and are being fetched. */
  readonly gap: { readonly topic: string; readonly fromSeq: number; readonly toSeq: number };
  /** The messages that were missing in a topic have come. */
  readonly repaired: { readonly topic: string };
  /** Messages of a topic are lost: the broker no longer retains them. */
  readonly lost: { readonly topic: string; readonly fromSeq: number; readonly toSeq: number };
  /** A subscription is read so slowly that no more is kept for it; what it misses is fetched once it has read. */
  readonly slowConsumer: { readonly topic: string };
  /** A heartbeat of the broker came. */
  readonly heartbeat: SystemStatus;
  /** The broker's own status is another (`healthy`, `warning`, `error`), or the first one that came. */
  readonly health: SystemStatus;
  /** No heartbeat came for 30 seconds, however the connection looks; `status` is the last one. */
  readonly silence: { readonly status: SystemStatus | null };
  /** An error was reported: see `client.errors`. */
  readonly error: ErrorReport;
}

/** The names of all events. */
export const EVENTS: readonly (keyof ClientEvents)[] = [
  "status",
  "gap",
  "repaired",
  "lost",
  "slowConsumer",
  "heartbeat",
  "health",
  "silence",
  "error",
];
/** Those for which heartbeats are watched. */
export const OF_HEARTBEATS: readonly string[] = ["heartbeat", "health", "silence"];

/** The latest errors of a client: failed requests, lost messages, the connection, and exceptions of callbacks. */
export interface Errors {
  /** The number that there were, including those that are no longer kept. */
  readonly count: number;
  /**
   * Returns the last 100 that are at least so severe, the oldest first; `Warning` by default. `Info` adds what says that
   * the client has recovered.
   */
  latest(severity?: Severity): readonly ErrorReport[];
  /** Calls `callback` for every further error that is at least so severe; returns what ends that. */
  on(callback: ErrorCallback, severity?: Severity): () => void;
}
