/**
 * The host is what the renderer runs in: a page of `backtestr ui`, or a window of Electron.
 *
 * The renderer reaches everything outside of itself through this interface: the broker (through `connect`), files of the
 * user, and the process that may start a broker. Screens are given a `Host` and import none of its implementations.
 */

import type { RemoteClient } from "@backtestr/client/page";

/** The host's answer about itself. */
export interface HostSession {
  /** The version of backtestr that serves this renderer. */
  readonly version: string;
  /** The version of the protocol that it speaks with the broker. */
  readonly protocolVersion: number;
  /** The bytes that one uploaded file may have; null where files are not copied, so that no limit is there. */
  readonly uploadLimitBytes: number | null;
  /** True if `startBroker` may be offered. */
  readonly brokerMayBeStarted: boolean;
  /** The connection file in use, to be shown. */
  readonly connectionFile?: string;
}

/** A file that the broker may be asked to import. */
export interface Upload {
  /** The path to name in `ImportMarketData`. */
  readonly path: string;
}

/** Something that the broker can be asked, or the user can do, after an error of the host. */
export interface HostAction {
  readonly action: string;
  readonly description: string;
}

/**
 * Whether the host itself answers, apart from the connection to the broker.
 *
 * `expired`: the link that opened this page counts no more; `message` says how to get another. `unreachable`: the program
 * that serves the page has ended, or answers no more.
 */
export type HostState =
  | { readonly kind: "reachable" }
  | { readonly kind: "expired"; readonly message: string }
  | { readonly kind: "unreachable"; readonly message: string };

/** An error of the host: an upload that it refused, a broker that did not start, a session that has expired. */
export class HostError extends Error {
  /** A stable name of the error, such as `SESSION_EXPIRED`, `HOST_UNREACHABLE` or `UPLOAD_TOO_LARGE`. */
  readonly code: string;
  /** Actions that help, the most useful first; may be empty. */
  readonly recoveryActions: readonly HostAction[];

  constructor(code: string, message: string, recoveryActions: readonly HostAction[] = []) {
    super(message);
    this.name = "HostError";
    this.code = code;
    this.recoveryActions = recoveryActions;
  }
}

/** The surroundings of the renderer: a page, or a window of Electron. All methods that return a promise reject with a `HostError`. */
export interface Host {
  readonly kind: "page" | "electron";

  /** Returns what the host says of itself. */
  session(): Promise<HostSession>;

  /**
   * Returns the client, which decodes in another thread or process; the same one at every call.
   *
   * It begins to connect at once, keeps trying while there is no broker, and connects again by itself: `onStatus` tells
   * of that. A request that is made meanwhile waits, and fails with a `NetworkError` when its time is up.
   */
  connect(): RemoteClient;

  /** Calls `listener` with the present state of the host, and at every change; returns what ends that. */
  onState(listener: (state: HostState) => void): () => void;

  /**
   * Puts a file of the user where the broker can import it. `progress` is given the share that is done, 0 to 1. An aborted
   * `signal` ends the upload with an `AbortError`.
   */
  upload(file: File, progress: (share: number) => void, signal?: AbortSignal): Promise<Upload>;

  /** Removes what `upload` has put there; the user's own file stays where it is. */
  discard(path: string): Promise<void>;

  /** Starts a broker on this machine, and resolves once it runs. It stays when the renderer is closed. */
  startBroker(): Promise<void>;

  /** Gives the user a file, by a download or a dialog. Resolves also where the user cancels that. */
  save(name: string, blob: Blob): Promise<void>;
}
