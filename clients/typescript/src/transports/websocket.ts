/** Links through a WebSocket, for a page behind a tunnel that holds the keys (`tunnel-format.ts`). */

import type { Link, LinkListener, StreamSocket, Transport } from "../core/transport.js";
import { TAKEN_EVERY } from "./tunnel.js";
import { FROM_PAGE, packed, SUBPROTOCOL, TO_PAGE, unpacked } from "./tunnel-format.js";

/** Bytes that may wait in the WebSocket to be sent; beyond that a request is refused. */
const MAX_WAITING = 64 * 2 ** 20;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Returns a transport through the tunnel at this address, such as `wss://host/tunnel`. */
export function webSocketTransport(url: string | URL): Transport {
  return new WebSocketTransport(url);
}

class WebSocketTransport implements Transport {
  readonly #url: string | URL;
  readonly #watchers = new Set<() => void>();
  readonly #links = new Set<WebSocketLink>();

  constructor(url: string | URL) {
    this.#url = url;
  }

  connect(listener: LinkListener): Link {
    const link = new WebSocketLink(this.#url, listener, {
      replaced: () => {
        for (const one of this.#watchers) one();
      },
      ended: () => this.#links.delete(link),
    });
    this.#links.add(link);
    return link;
  }

  watch(replaced: () => void): () => void {
    this.#watchers.add(replaced);
    return () => this.#watchers.delete(replaced);
  }

  reread(): void {
    // The tunnel reads the connection file for every link.
  }

  async close(): Promise<void> {
    this.#watchers.clear();
    await Promise.all([...this.#links].map((one) => one.close()));
  }
}

class WebSocketLink implements Link {
  readonly #socket: WebSocket;
  readonly #listener: LinkListener;
  readonly #replaced: () => void;
  readonly #ended: () => void;
  #isOpen = false;
  #isOver = false;
  #taken = 0;

  constructor(url: string | URL, listener: LinkListener, on: { replaced: () => void; ended: () => void }) {
    this.#listener = listener;
    this.#replaced = on.replaced;
    this.#ended = on.ended;
    this.#socket = new WebSocket(url, SUBPROTOCOL);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.addEventListener("message", ({ data }) => {
      if (data instanceof ArrayBuffer) this.#take(new Uint8Array(data));
    });
    this.#socket.addEventListener("close", ({ code, reason }) => {
      this.#isLost(`the tunnel has closed the connection (${code}${reason === "" ? "" : `: ${reason}`})`);
    });
  }

  #isLost(reason: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#ended();
    this.#listener(this.#isOpen ? { type: "lost", reason } : { type: "absent", reason });
  }

  #take(bytes: Uint8Array): void {
    const message = unpacked(bytes);
    if (message === undefined || this.#isOver) return;
    const { kind, parts } = message;
    switch (kind) {
      case TO_PAGE.answer:
        this.#listener({ type: "answer", frames: parts });
        return;
      case TO_PAGE.message:
        this.#listener({ type: "message", frames: parts });
        this.#hasTaken();
        return;
      case TO_PAGE.opened:
        this.#isOpen = true;
        this.#listener({ type: "opened", instanceId: decoder.decode(parts[0]), signer: null });
        return;
      case TO_PAGE.lost:
      case TO_PAGE.absent:
        this.#isLost(decoder.decode(parts[0]));
        this.#socket.close();
        return;
      case TO_PAGE.replaced:
        this.#replaced();
    }
  }

  /** Tells the tunnel how much was read, so that it sends more. */
  #hasTaken(): void {
    this.#taken += 1;
    if (this.#taken < TAKEN_EVERY || this.#isOver) return;
    this.#socket.send(packed(FROM_PAGE.taken, [encoder.encode(String(this.#taken))]));
    this.#taken = 0;
  }

  send(frames: readonly Uint8Array[]): boolean {
    if (!this.#isOpen || this.#isOver || this.#socket.bufferedAmount > MAX_WAITING) return false;
    this.#socket.send(packed(FROM_PAGE.request, frames));
    return true;
  }

  subscribe(socket: StreamSocket, prefix: string): void {
    if (this.#isOpen && !this.#isOver) this.#socket.send(packed(FROM_PAGE.subscribe, texts(socket, prefix)));
  }

  unsubscribe(socket: StreamSocket, prefix: string): void {
    if (this.#isOpen && !this.#isOver) this.#socket.send(packed(FROM_PAGE.unsubscribe, texts(socket, prefix)));
  }

  async close(): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#ended();
    // What was sent before still leaves, before the closing handshake.
    this.#socket.close();
  }
}

function texts(...parts: string[]): Uint8Array[] {
  return parts.map((one) => encoder.encode(one));
}
