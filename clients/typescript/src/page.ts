/**
 * The client of backtestr for a page or a renderer: it holds no key and needs nothing of Node.
 *
 * @module
 */

import { type Client, createClient } from "./client.js";
import { decompress } from "./compression/page.js";
import type { ClientOptions } from "./options.js";
import { type Port, portTransport } from "./transports/port.js";
import { webSocketTransport } from "./transports/websocket.js";

export * from "./exports.js";
export { type Port, portTransport } from "./transports/port.js";
export { webSocketTransport } from "./transports/websocket.js";
export { RemoteClient, type RemoteResults } from "./worker/remote.js";
export { RemoteState } from "./worker/remote-state.js";
export { RemoteStream } from "./worker/remote-stream.js";
export { RemoteSweep } from "./worker/remote-sweep.js";
export { type ServeOptions, serveClient } from "./worker/serve.js";

/**
 * Connects through a MessagePort, at whose other end `servePort` was called in a process that can reach the broker.
 *
 * Throws what `connect` of the package's main part throws.
 */
export function connectPort(port: Port, options: ClientOptions = {}): Promise<Client> {
  return createClient(portTransport(port), { decompress, ...options });
}

/** Connects through a WebSocket to a tunnel that holds the keys, such as `wss://host/tunnel`. */
export function connectWebSocket(url: string | URL, options: ClientOptions = {}): Promise<Client> {
  return createClient(webSocketTransport(url), { decompress, ...options });
}
