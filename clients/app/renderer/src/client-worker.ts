/**
 * The program of the page's worker: a client behind the tunnel of `backtestr ui`, served to the page.
 *
 * Everything is decoded here; the page is given columns, and never waits for this.
 */

import { connectWebSocket, type Port, serveClient } from "@backtestr/client/page";

const tunnel = new URL("/tunnel", self.location.origin);
tunnel.protocol = tunnel.protocol === "https:" ? "wss:" : "ws:";

// Somebody looks at it, and trying again costs little on loopback.
const recovery = { maxDelayMs: 2_000 };

connectWebSocket(tunnel, { clientName: "backtestr app", waitForBroker: false, recovery }).then((client) =>
  serveClient(self as unknown as Port, client),
);
