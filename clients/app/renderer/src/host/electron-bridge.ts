/** The functions that the preload of the Electron app gives its window, as `window.backtestr`. Both sides are written against this. */

import type { HostSession } from "./host";

/** An answer of the main process; errors travel as data, since a clone loses what they are. */
export type Answered<Value> =
  | { readonly value: Value }
  | { readonly error: { readonly code: string; readonly message: string } };

/** The functions of the preload: each names one thing that a window may ask of the main process. */
export interface ElectronBridge {
  /** Returns what the app says of itself. */
  session(): Promise<Answered<HostSession>>;
  /** Starts a broker, and resolves once it serves. */
  startBroker(): Promise<Answered<null>>;
  /** The path of a file that the user has dropped or chosen; empty for one that is not on a disk. */
  pathOf(file: File): string;
  /** Asks the user where to save, and writes there. The value is false where the user cancelled. */
  save(name: string, bytes: ArrayBuffer): Promise<Answered<boolean>>;
  /** Calls `listener` with the route of a screen, such as `#/data`, that the user chooses in the menu. */
  onRoute(listener: (route: string) => void): void;
}

/**
 * The message with which the window gives its end of a channel to the preload, which hands it to the process of the
 * client: `window.postMessage(CLIENT_PORT, origin, [port])`.
 */
export const CLIENT_PORT = "backtestr: a port of the client";

declare global {
  interface Window {
    readonly backtestr?: ElectronBridge;
  }
}
