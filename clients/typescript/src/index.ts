/**
 * The client of backtestr for Node and Electron: `connect()` finds the broker of this machine.
 *
 * @module
 */

export * from "./exports.js";
export { type ConnectOptions, connect } from "./node/connect.js";
export { type Port, portTransport, servePort } from "./transports/port.js";
export { webSocketTransport } from "./transports/websocket.js";
export { type ZmqOptions, zmqTransport } from "./transports/zmq.js";
