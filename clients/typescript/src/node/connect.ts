/** Connecting to the broker of this machine, as its connection file says. */

import { checkOptions } from "../arguments.js";
import { type Client, createClient } from "../client.js";
import { decompress } from "../compression/node.js";
import type { ClientOptions } from "../options.js";
import { OF_CLIENTS } from "../request-fields.js";
import { type ZmqOptions, zmqTransport } from "../transports/zmq.js";

/** Options of `connect`: they say how a client finds the broker, and how it is made. */
export interface ConnectOptions extends ClientOptions, ZmqOptions {}

const OPTIONS = ["connectionFile", "key", ...OF_CLIENTS];

/**
 * Connects to the broker that runs on this machine, or to the one that `connectionFile` names.
 *
 * It waits up to `timeoutMs` (5,000) for a broker that is starting, and for its answer. Throws `NetworkError` when there
 * is no broker or no key, or when others could have written or read the connection file, and `AuthenticationError` when
 * the broker refuses this client's key or the signing key of that file. With `waitForBroker: false` it throws none of these.
 */
export async function connect(options: ConnectOptions = {}): Promise<Client> {
  checkOptions(options, OPTIONS, "connect");
  const { connectionFile, key, ...rest } = options;
  for (const [name, value] of Object.entries({ connectionFile, key })) {
    if (value !== undefined && typeof value !== "string") throw new TypeError(`${name}: expected a text`);
  }
  return createClient(zmqTransport({ connectionFile, key }), { decompress, ...rest });
}
