/**
 * The far end of a tunnel: it holds the keys, and a page, a renderer or another thread talks through it.
 *
 * It signs what goes to the broker and verifies what comes from it, so messages travel through the tunnel without the
 * frame `signature`. A page that is slow does not make it grow: beyond `MAX_UNREAD` stream messages that the page has not
 * taken, further ones are dropped. The page finds them missing by their sequence numbers and fetches them.
 */

import type { Link, LinkEvent, Signer, StreamSocket, Transport } from "../core/transport.js";

/** Stream messages that may be on their way to the page. */
export const MAX_UNREAD = 2_000;
/** Bytes of stream messages that may be on their way to the page. */
export const MAX_UNREAD_BYTES = 64 * 2 ** 20;
/** The page says so often how many it has taken. */
export const TAKEN_EVERY = 100;

/** The far end tells the page this of its link. */
export type TunnelEvent =
  | { readonly type: "opened"; readonly instanceId: string; readonly hasTables: boolean }
  | Exclude<LinkEvent, { type: "opened" }>;

type Frames = readonly Uint8Array[];

/** One link of a page, through this end of the tunnel. */
export class TunnelLink {
  readonly #post: (event: TunnelEvent) => void;
  readonly #link: Link;
  readonly #onForged: () => void;
  #signer: Signer | null = null;
  #unread = 0;
  #unreadBytes = 0;
  readonly #sizes: number[] = [];
  /** The number of stream messages that were dropped, since the page was slow. */
  dropped = 0;

  /** Opens a link of `transport`, and posts its events. */
  constructor(transport: Transport, post: (event: TunnelEvent) => void) {
    this.#post = post;
    this.#onForged = (): void => transport.reread();
    this.#link = transport.connect((event) => this.#take(event, transport.tables?.areReadable() === true));
  }

  #take(event: LinkEvent, hasTables: boolean): void {
    switch (event.type) {
      case "opened":
        this.#signer = event.signer;
        this.#post({ type: "opened", instanceId: event.instanceId, hasTables });
        break;
      case "answer":
        this.#answer(event.frames);
        break;
      case "message":
        this.#message(event.frames);
        break;
      default:
        this.#post(event);
    }
  }

  #answer(frames: Frames): void {
    if (this.#signer === null) {
      this.#post({ type: "answer", frames });
      return;
    }
    const [signature, ...signed] = frames;
    if (signature === undefined || !this.#signer.verify("rep", signed, signature)) {
      // The key in the connection file is not that of this broker: the page asks for another link, which reads it again.
      this.#onForged();
      this.#post({ type: "lost", reason: "an answer has a wrong signature: the connection file is old" });
      return;
    }
    this.#post({ type: "answer", frames: signed });
  }

  #message(frames: Frames): void {
    let open = frames;
    if (this.#signer !== null) {
      const [topic, signature, ...rest] = frames;
      if (topic === undefined || signature === undefined) return;
      open = [topic, ...rest];
      if (!this.#signer.verify("pub", open, signature)) return; // found missing, and fetched
    }
    const size = open.reduce((sum, frame) => sum + frame.length, 0);
    if (this.#unread >= MAX_UNREAD || this.#unreadBytes + size > MAX_UNREAD_BYTES) {
      this.dropped += 1;
      return;
    }
    this.#unread += 1;
    this.#unreadBytes += size;
    this.#sizes.push(size);
    this.#post({ type: "message", frames: open });
  }

  /** Sends a request of the page. Returns false if the link cannot. */
  send(frames: Frames): boolean {
    return this.#link.send(this.#signer === null ? frames : [this.#signer.sign("req", frames), ...frames]);
  }

  subscribe(socket: StreamSocket, prefix: string): void {
    this.#link.subscribe(socket, prefix);
  }

  unsubscribe(socket: StreamSocket, prefix: string): void {
    this.#link.unsubscribe(socket, prefix);
  }

  /** Notes that the page has taken so many stream messages. */
  taken(count: number): void {
    for (const size of this.#sizes.splice(0, count)) {
      this.#unread -= 1;
      this.#unreadBytes -= size;
    }
  }

  close(): Promise<void> {
    return this.#link.close();
  }
}

const SOCKETS: readonly string[] = ["prices", "progress", "orders", "positions", "system"] satisfies StreamSocket[];
/** Bytes of a subscription that the broker takes (PROTOCOL.md, section 13). */
const MAX_PREFIX = 500;
const MAX_FRAMES = 1_024;

/** Returns true for the name of a socket of streams. */
export function isSocket(value: unknown): value is StreamSocket {
  return typeof value === "string" && SOCKETS.includes(value);
}

/** Returns true for what a page may subscribe to. */
export function isPrefix(value: unknown): value is string {
  return typeof value === "string" && value.length <= MAX_PREFIX;
}

/** Returns true for the frames of a request. */
export function areFrames(value: unknown): value is Uint8Array[] {
  return (
    Array.isArray(value) &&
    value.length > 0 &&
    value.length <= MAX_FRAMES &&
    value.every((one) => one instanceof Uint8Array)
  );
}
