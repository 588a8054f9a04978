import { type ConnectOptions, connect } from "@backtestr/client";
import { type Port, serveClient } from "@backtestr/client/worker";
import type { FromClientProcess } from "../channels";

/** The part of the process's own port that is used: the main process is at its other end. */
export interface ParentPort {
  on(type: "message", listener: (event: { readonly ports: readonly unknown[] }) => void): unknown;
  postMessage(message: FromClientProcess): void;
}

/**
 * Serves a client at every port that the main process hands on, until that is closed, and tells the main process of its
 * connection. Columns are copied: a MessagePortMain takes no buffers in its transfer list.
 */
export function serveWindows(parent: ParentPort, options: ConnectOptions = {}): void {
  parent.on("message", ({ ports }) => {
    for (const port of ports) void serve(port as Port, parent, options);
  });
}

async function serve(port: Port, parent: ParentPort, options: ConnectOptions): Promise<void> {
  // Somebody looks at it, and trying again costs little on this machine.
  const recovery = { maxDelayMs: 2_000 };
  const client = await connect({ clientName: "backtestr app", recovery, ...options, waitForBroker: false });
  const tell = (): void => parent.postMessage({ type: "status", status: client.status });
  client.on("status", tell);
  tell();
  await serveClient(port, client, { transfer: false });
}
