/** The server end of the WebSocket transport, as the tunnel of the app will be: one WebSocket, one link. */

import type { AddressInfo } from "node:net";
import { WebSocketServer } from "ws";
import type { Transport } from "../../src/core/transport.js";
import { isPrefix, isSocket, type TunnelEvent, TunnelLink } from "../../src/transports/tunnel.js";
import { FROM_PAGE, packed, SUBPROTOCOL, TO_PAGE, unpacked } from "../../src/transports/tunnel-format.js";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function toPage(event: TunnelEvent): Uint8Array | undefined {
  switch (event.type) {
    case "opened":
      return packed(TO_PAGE.opened, [encoder.encode(event.instanceId)]);
    case "answer":
      return packed(TO_PAGE.answer, event.frames);
    case "message":
      return packed(TO_PAGE.message, event.frames);
    case "lost":
      return packed(TO_PAGE.lost, [encoder.encode(event.reason)]);
    case "absent":
      return packed(TO_PAGE.absent, [encoder.encode(event.reason)]);
    case "handshake":
      return undefined;
  }
}

/** Serves a transport on a loopback port. */
export async function serveWebSocket(transport: Transport): Promise<{ url: string; close: () => Promise<void> }> {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, handleProtocols: () => SUBPROTOCOL });
  await new Promise((resolve) => server.once("listening", resolve));
  server.on("connection", (socket) => {
    const link = new TunnelLink(transport, (event) => {
      const bytes = toPage(event);
      if (bytes !== undefined) socket.send(bytes);
    });
    const unwatch = transport.watch(() => socket.send(packed(TO_PAGE.replaced, [])));
    socket.on("message", (data: Buffer) => {
      const message = unpacked(data);
      const [first, second] = message?.parts ?? [];
      const [name, prefix] = [decoder.decode(first), decoder.decode(second)];
      if (message?.kind === FROM_PAGE.request) link.send(message.parts.map((one) => Uint8Array.from(one)));
      else if (message?.kind === FROM_PAGE.taken) link.taken(Number(name));
      else if (isSocket(name) && isPrefix(prefix)) {
        if (message?.kind === FROM_PAGE.subscribe) link.subscribe(name, prefix);
        else if (message?.kind === FROM_PAGE.unsubscribe) link.unsubscribe(name, prefix);
      }
    });
    socket.on("close", () => {
      unwatch();
      void link.close();
    });
  });
  return {
    url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise((resolve) => {
        for (const one of server.clients) one.terminate();
        server.close(() => resolve());
      }),
  };
}
