/**
 * Links over ZeroMQ: a DEALER for requests, and a SUB for each stream socket with a subscription.
 *
 * zeromq.js allows one `send` and one `receive` at a time on a socket, so each socket has one queue and one reader
 * loop. The DEALER has a monitor that reports a broken connection; with CURVE every socket has one that reports
 * handshakes. ZeroMQ reconnects silently, and never tries again once a key was denied, so a link that is lost is closed
 * by the client, which asks for another.
 */

import { Dealer, Subscriber } from "zeromq";
import type { HandshakeOutcome, Link, LinkListener, StreamSocket, Transport } from "../core/transport.js";
import { type Connection, ConnectionFile } from "../node/connection-file.js";
import { hmacSigner } from "../node/signer.js";
import { NodeTableFiles } from "../node/table-files.js";
import { WorkSlice } from "./work-slice.js";

/** Answers carry tables: a year of minute bars with indicators takes some 50 MB. A larger answer ends the connection. */
const MAX_ANSWER_BYTES = 2 ** 31;
const MAX_STREAM_BYTES = 64 * 2 ** 20;
/** Stream messages that may queue while the event loop does other work; those beyond are found missing and repaired. */
const STREAM_QUEUE = 20_000;
/** Requests that wait for the socket. The socket itself holds another 1,000 for a broker that is away. */
const SEND_QUEUE = 1_000;
/** Milliseconds in which a closing connection sends its last request (Goodbye). */
const CLOSING_MS = 200;
/** Milliseconds between two checks of the connection file; one costs microseconds. */
const RELOAD_MS = 250;

/** Options of a transport over ZeroMQ: they say where its broker is, and with which key it comes. */
export interface ZmqOptions {
  /** The path of the connection file, if not the usual one. */
  readonly connectionFile?: string | undefined;
  /** The name or file of this client's CURVE key (default: `BACKTESTR_KEY`, else as the connection file says). */
  readonly key?: string | undefined;
}

/** Returns a transport to the broker that the connection file names. It reads the file for every link. */
export function zmqTransport(options: ZmqOptions = {}): Transport {
  return new ZmqTransport(new ConnectionFile(options.connectionFile, options.key));
}

class ZmqTransport implements Transport {
  readonly tables = new NodeTableFiles();
  readonly #file: ConnectionFile;
  readonly #watches = new Set<NodeJS.Timeout>();
  #stamp: string | null | undefined;
  #instanceId: string | undefined;

  constructor(file: ConnectionFile) {
    this.#file = file;
  }

  connect(listener: LinkListener): Link {
    return new ZmqLink(listener, () => this.#read());
  }

  #read(): Connection {
    this.#stamp = this.#file.stamp();
    const connection = this.#file.read();
    this.#instanceId = connection.instanceId;
    this.tables.use(connection);
    return connection;
  }

  watch(replaced: () => void): () => void {
    const timer = setInterval(() => {
      if (this.#isReplaced()) replaced();
    }, RELOAD_MS);
    this.#watches.add(timer);
    return () => {
      clearInterval(timer);
      this.#watches.delete(timer);
    };
  }

  #isReplaced(): boolean {
    try {
      const stamp = this.#file.stamp();
      if (stamp === this.#stamp) return false;
      this.#stamp = stamp;
      return stamp !== null && this.#file.read().instanceId !== this.#instanceId;
    } catch {
      return false; // the next link says what is wrong with the file
    }
  }

  reread(): void {
    this.#stamp = undefined;
  }

  async close(): Promise<void> {
    for (const timer of this.#watches) clearInterval(timer);
    this.#watches.clear();
  }
}

type Frames = readonly Uint8Array[];

class ZmqLink implements Link {
  readonly #listener: LinkListener;
  readonly #slice = new WorkSlice();
  readonly #streams = new Map<StreamSocket, Subscriber>();
  readonly #queue: Frames[] = [];
  #connection: Connection | undefined;
  #requests: Dealer | undefined;
  #isSending = false;
  /** Resolves when the queue is empty. */
  #sent: Promise<void> = Promise.resolve();
  #isUp = false;
  #isClosed = false;

  constructor(listener: LinkListener, read: () => Connection) {
    this.#listener = listener;
    queueMicrotask(() => this.#open(read));
  }

  #open(read: () => Connection): void {
    if (this.#isClosed) return;
    let connection: Connection;
    try {
      connection = read();
      this.#connection = connection;
      this.#isUp = connection.curve === null; // without CURVE no handshake is reported
      this.#requests = this.#dealer(connection);
    } catch (error) {
      this.#listener({ type: "absent", reason: (error as Error).message });
      return;
    }
    const { instanceId, curve } = connection;
    const publicKey = curve === null ? {} : { publicKey: curve.keys.publicKey };
    this.#listener({ type: "opened", instanceId, signer: hmacSigner(connection.signingKey), ...publicKey });
  }

  #dealer(connection: Connection): Dealer {
    const dealer = new Dealer({ linger: 0, maxMessageSize: MAX_ANSWER_BYTES, ...curveOptions(connection) });
    dealer.events.on("disconnect", () => {
      if (!this.#isUp || this.#isClosed) return; // a failed handshake is reported as such
      this.#isUp = connection.curve === null;
      this.#listener({ type: "lost", reason: "the connection to the broker was lost" });
    });
    if (connection.curve !== null) this.#watchHandshakes(dealer, true);
    dealer.connect(connection.endpoints.requests);
    void this.#read(dealer, "answer");
    return dealer;
  }

  #watchHandshakes(socket: Dealer | Subscriber, ofRequests: boolean): void {
    const ended = (outcome: HandshakeOutcome) => (): void => {
      if (this.#isClosed) return;
      if (ofRequests && outcome === "succeeded") this.#isUp = true;
      this.#listener({ type: "handshake", outcome, ofRequests });
    };
    socket.events.on("handshake", ended("succeeded"));
    socket.events.on("handshake:error:auth", ended("denied"));
    socket.events.on("handshake:error:protocol", ended("failed"));
    socket.events.on("handshake:error:other", ended("failed"));
  }

  async #read(socket: Dealer | Subscriber, type: "answer" | "message"): Promise<void> {
    try {
      while (!socket.closed) {
        const frames = await socket.receive();
        if (this.#isClosed) return;
        this.#slice.begin();
        this.#listener({ type, frames });
        const turn = this.#slice.end();
        if (turn !== undefined) await turn;
      }
    } catch (error) {
      // A socket that is closed fails its last `receive`.
      if (!this.#isClosed && !socket.closed) this.#fail(error as Error);
    }
  }

  #fail(error: Error): void {
    if (this.#isClosed || !this.#isUp) return;
    this.#isUp = false;
    this.#listener({ type: "lost", reason: error.message });
  }

  send(frames: Frames): boolean {
    if (this.#requests === undefined || this.#isClosed || this.#queue.length >= SEND_QUEUE) return false;
    this.#queue.push(frames);
    if (!this.#isSending) this.#sent = this.#sendAll(this.#requests);
    return true;
  }

  async #sendAll(socket: Dealer): Promise<void> {
    this.#isSending = true;
    try {
      for (let frames = this.#queue.shift(); frames !== undefined; frames = this.#queue.shift()) {
        await socket.send(frames as Uint8Array[]);
      }
    } catch (error) {
      this.#queue.length = 0;
      if (!socket.closed) this.#fail(error as Error);
    } finally {
      this.#isSending = false; // in the step that found the queue empty, so that no message is left in it
    }
  }

  subscribe(socket: StreamSocket, prefix: string): void {
    if (this.#isClosed || this.#connection === undefined) return;
    let stream = this.#streams.get(socket);
    if (stream === undefined) {
      stream = new Subscriber({
        linger: 0,
        maxMessageSize: MAX_STREAM_BYTES,
        receiveHighWaterMark: STREAM_QUEUE,
        ...curveOptions(this.#connection),
      });
      this.#streams.set(socket, stream);
      if (this.#connection.curve !== null) this.#watchHandshakes(stream, false);
      stream.connect(this.#connection.endpoints[socket]);
      void this.#read(stream, "message");
    }
    stream.subscribe(prefix);
  }

  unsubscribe(socket: StreamSocket, prefix: string): void {
    if (!this.#isClosed) this.#streams.get(socket)?.unsubscribe(prefix);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const stream of this.#streams.values()) stream.close();
    const requests = this.#requests;
    if (requests === undefined) return;
    if (this.#isSending) await Promise.race([this.#sent, elapsed(CLOSING_MS)]);
    this.#queue.length = 0;
    requests.linger = CLOSING_MS;
    requests.close();
  }
}

function curveOptions(connection: Connection): Record<string, string> {
  if (connection.curve === null) return {};
  const { serverPublicKey, keys } = connection.curve;
  return { curveServerKey: serverPublicKey, curvePublicKey: keys.publicKey, curveSecretKey: keys.secretKey };
}

function elapsed(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}
