/**
 * A transport makes links, and a link is one connection to one instance of a broker.
 *
 * The core and the client know a broker through these interfaces alone. A link lives once: when it is lost, the client
 * closes it, waits as its back-off says, and asks the transport for another one. So a transport keeps no session,
 * resends nothing and never reconnects by itself.
 */

import type { TableFile } from "../generated/contracts.js";

/** The sockets of a broker that publish streams. Every topic belongs to one of them (`socketsFor`). */
export type StreamSocket = "prices" | "progress" | "orders" | "positions" | "system";

/** The kind of a signed message: a request, an answer or a stream message (PROTOCOL.md, section 2). */
export type Label = "req" | "rep" | "pub";

/**
 * Signs and verifies with the key of one broker.
 *
 * A transport that ends at the broker's own sockets has one, made of the key in the connection file. A transport that
 * ends at a tunnel has none: the tunnel holds the keys, signs and verifies, and its messages travel without the frame
 * `signature`.
 */
export interface Signer {
  /** Returns the 32 bytes of the HMAC-SHA256 over `label` and `frames`, each frame after its length. */
  sign(label: Label, frames: readonly Uint8Array[]): Uint8Array;
  /** Returns true if `signature` is that of `frames`; compares in constant time. */
  verify(label: Label, frames: readonly Uint8Array[], signature: Uint8Array): boolean;
}

/**
 * The end of a handshake of CURVE. `denied`: the broker looked the key up and refused it. `failed`: it hung up, as for
 * a key that does not fit its own.
 */
export type HandshakeOutcome = "succeeded" | "failed" | "denied";

/**
 * An event that a link reports. The client takes each event in before the call returns.
 *
 * - `opened`, once, before any other event but `absent`: requests may be sent. The broker need not have accepted the
 *   connection yet: what is sent meanwhile waits in the socket. `signer` is null behind a tunnel; `publicKey` is that
 *   of this client with CURVE.
 * - `absent`: there is nothing to connect to, such as no connection file. The link is of no more use.
 * - `answer`: the frames of a message on the connection for requests, as they travel: with the frame `signature` if
 *   there is a signer.
 * - `message`: the frames of a stream message, as they travel, the topic first.
 * - `handshake`: with CURVE, of the connection for requests (`ofRequests`) or of one for streams.
 * - `lost`: the connection for requests is broken, which ends the session. Streams that break reconnect by themselves.
 */
export type LinkEvent =
  | {
      readonly type: "opened";
      readonly instanceId: string;
      readonly signer: Signer | null;
      readonly publicKey?: string;
    }
  | { readonly type: "absent"; readonly reason: string }
  | { readonly type: "answer"; readonly frames: readonly Uint8Array[] }
  | { readonly type: "message"; readonly frames: readonly Uint8Array[] }
  | { readonly type: "handshake"; readonly outcome: HandshakeOutcome; readonly ofRequests: boolean }
  | { readonly type: "lost"; readonly reason: string };

/** Takes the events of a link. It never throws, and it may close the link or call `send` before it returns. */
export type LinkListener = (event: LinkEvent) => void;

/** One connection to one instance of a broker: a channel for requests, and one for each socket of streams. */
export interface Link {
  /**
   * Sends the frames of one request, in order behind those before. Returns false if it cannot: the link is not open,
   * or its queue to an absent broker is full. The frames are the link's from then on.
   */
  send(frames: readonly Uint8Array[]): boolean;
  /** Subscribes to a prefix on one socket, which is connected with its first subscription. */
  subscribe(socket: StreamSocket, prefix: string): void;
  /** Ends the subscription to a prefix on one socket. */
  unsubscribe(socket: StreamSocket, prefix: string): void;
  /**
   * Ends the connection; no event comes after the call. Resolves once every resource is released. What was sent last
   * (a Goodbye) may still leave for up to 200 ms.
   */
  close(): Promise<void>;
}

/** Large tables that the broker offers as files (PROTOCOL.md, section 6.10). */
export interface TableFiles {
  /** Returns true if files of the broker that the latest link was made to can be read: then `mapped` is asked for. */
  areReadable(): boolean;
  /** Returns the bytes of a table file, mapped or read; null if it is gone or fails a check, and must not be used. */
  read(file: TableFile): Promise<Uint8Array | null>;
}

/** Makes links to a broker: over ZeroMQ, through a MessagePort or through a WebSocket. */
export interface Transport {
  /** Begins to connect. Events come after the call has returned. */
  connect(listener: LinkListener): Link;
  /**
   * Calls `replaced` whenever another instance of the broker has announced itself (another connection file). Returns
   * the function that ends this. A transport without such news never calls.
   */
  watch(replaced: () => void): () => void;
  /** Calls `replaced` of `watch` again even for what was announced before: the key of the last link was refused. */
  reread(): void;
  /** Present if this transport ends on the broker's machine. */
  readonly tables?: TableFiles;
  /** Releases what links do not hold. Resolves once nothing keeps the process alive. */
  close(): Promise<void>;
}
