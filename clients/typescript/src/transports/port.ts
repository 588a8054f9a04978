/**
 * Links through a MessagePort: a renderer or a page at one end, the process that holds the keys at the other.
 *
 * `servePort` is called where the broker can be reached: in Electron's utility process or main process, or in a worker
 * thread. `portTransport` is called where it cannot. Frames are copied by the port, since a MessagePortMain of Electron
 * takes no transfer list with buffers.
 */

import type { Link, LinkListener, StreamSocket, TableFiles, Transport } from "../core/transport.js";
import type { TableFile } from "../generated/contracts.js";
import { areFrames, isPrefix, isSocket, TAKEN_EVERY, type TunnelEvent, TunnelLink } from "./tunnel.js";

/** Links that one page may have at a time: one that is closing, and the next. */
const MAX_LINKS = 4;
/** Tables that one page may ask for at a time. */
const MAX_TABLES = 64;
/** Milliseconds that a page waits until the other end has closed its link. */
const CLOSING_MS = 1_000;

/** A MessagePort of a page, of Node's worker threads or of Electron's main process. */
export interface Port {
  postMessage(message: unknown): void;
  close?(): void;
  start?(): void;
  /** Of a page and of Node: a message has `data`. */
  addEventListener?(type: "message" | "close", listener: PortListener): void;
  removeEventListener?(type: "message" | "close", listener: PortListener): void;
  /** Of Electron's main process: a message has `data`. */
  on?(type: "message" | "close", listener: PortListener): unknown;
  off?(type: "message" | "close", listener: PortListener): unknown;
}

/** Takes an event of a port; that of its end has no `data`. */
export type PortListener = (event: { data?: unknown }) => void;

type FromPage =
  | { readonly type: "connect" | "close"; readonly link: number }
  | { readonly type: "send"; readonly link: number; readonly frames: readonly Uint8Array[] }
  | {
      readonly type: "subscribe" | "unsubscribe";
      readonly link: number;
      readonly socket: StreamSocket;
      readonly prefix: string;
    }
  | { readonly type: "taken"; readonly link: number; readonly count: number }
  | { readonly type: "reread" }
  | { readonly type: "table"; readonly id: number; readonly file: TableFile };

type ToPage =
  | { readonly type: "event"; readonly link: number; readonly event: TunnelEvent }
  | { readonly type: "closed"; readonly link: number }
  | { readonly type: "replaced" }
  | { readonly type: "table"; readonly id: number; readonly bytes: Uint8Array | null };

/** Listens to a port, and returns the function that ends this. `closed` is called when the other end is gone. */
export function listen(port: Port, take: (message: unknown) => void, closed: () => void = () => undefined): () => void {
  const listener: PortListener = (event) => take(event.data);
  if (port.addEventListener !== undefined) {
    port.addEventListener("message", listener);
    port.addEventListener("close", closed);
  } else if (port.on !== undefined) {
    port.on("message", listener);
    port.on("close", closed);
  } else {
    throw new TypeError("a port needs addEventListener or on");
  }
  port.start?.();
  return () => {
    const remove = port.removeEventListener?.bind(port) ?? port.off?.bind(port);
    remove?.("message", listener);
    remove?.("close", closed);
  };
}

/**
 * Lets the page at the other end of `port` use a transport of this process.
 *
 * Returns the function that ends this, which also happens when the port is closed. What a page sends that is no message
 * of `portTransport` is ignored.
 */
export function servePort(port: Port, transport: Transport): () => Promise<void> {
  const links = new Map<number, TunnelLink>();
  let tables = 0;
  const post = (message: ToPage): void => port.postMessage(message);

  async function close(link: number): Promise<void> {
    const found = links.get(link);
    if (found === undefined) return;
    links.delete(link);
    await found.close();
    post({ type: "closed", link });
  }

  async function table(id: number, file: TableFile): Promise<void> {
    if (tables >= MAX_TABLES || transport.tables === undefined) {
      post({ type: "table", id, bytes: null });
      return;
    }
    tables += 1;
    const bytes = await transport.tables.read(file).catch(() => null);
    tables -= 1;
    post({ type: "table", id, bytes });
  }

  function take(message: unknown): void {
    if (!isFromPage(message)) return;
    switch (message.type) {
      case "connect": {
        const { link } = message;
        if (links.has(link)) return;
        if (links.size >= MAX_LINKS) {
          const reason = `this page has ${MAX_LINKS} links already`;
          post({ type: "event", link, event: { type: "absent", reason } });
          return;
        }
        links.set(link, new TunnelLink(transport, (event) => post({ type: "event", link, event })));
        return;
      }
      case "close":
        void close(message.link);
        return;
      case "send":
        links.get(message.link)?.send(message.frames);
        return;
      case "subscribe":
        links.get(message.link)?.subscribe(message.socket, message.prefix);
        return;
      case "unsubscribe":
        links.get(message.link)?.unsubscribe(message.socket, message.prefix);
        return;
      case "taken":
        links.get(message.link)?.taken(message.count);
        return;
      case "reread":
        transport.reread();
        return;
      case "table":
        void table(message.id, message.file);
    }
  }

  const unwatch = transport.watch(() => post({ type: "replaced" }));
  async function end(): Promise<void> {
    unlisten();
    unwatch();
    const open = [...links.values()];
    links.clear();
    await Promise.all(open.map((one) => one.close()));
  }

  const unlisten = listen(port, take, () => void end());
  return end;
}

function isFromPage(value: unknown): value is FromPage {
  if (typeof value !== "object" || value === null) return false;
  const message = value as Partial<Record<string, unknown>>;
  if (message.type === "reread") return true;
  if (message.type === "table") return Number.isSafeInteger(message.id) && isTableFile(message.file);
  if (!Number.isSafeInteger(message.link)) return false;
  switch (message.type) {
    case "connect":
    case "close":
      return true;
    case "send":
      return areFrames(message.frames);
    case "subscribe":
    case "unsubscribe":
      return isSocket(message.socket) && isPrefix(message.prefix);
    case "taken":
      return Number.isSafeInteger(message.count) && (message.count as number) >= 0;
    default:
      return false;
  }
}

function isTableFile(value: unknown): value is TableFile {
  if (typeof value !== "object" || value === null) return false;
  const { name, size } = value as Partial<TableFile>;
  return typeof name === "string" && Number.isSafeInteger(size) && (size as number) >= 0;
}

/** Returns a transport through a port, at whose other end `servePort` was called. */
export function portTransport(port: Port): Transport {
  return new PortTransport(port);
}

class PortTransport implements Transport {
  readonly tables: TableFiles;
  readonly #port: Port;
  readonly #links = new Map<number, PortLink>();
  readonly #watchers = new Set<() => void>();
  readonly #tables = new Map<number, (bytes: Uint8Array | null) => void>();
  readonly #unlisten: () => void;
  #ids = 0;
  #hasTables = false;

  constructor(port: Port) {
    this.#port = port;
    this.#unlisten = listen(port, (message) => this.#take(message as ToPage));
    this.tables = {
      areReadable: () => this.#hasTables,
      read: (file) => {
        this.#ids += 1;
        const id = this.#ids;
        return new Promise((resolve) => {
          this.#tables.set(id, resolve);
          this.#port.postMessage({ type: "table", id, file } satisfies FromPage);
        });
      },
    };
  }

  connect(listener: LinkListener): Link {
    this.#ids += 1;
    const id = this.#ids;
    const link = new PortLink(this.#port, id, listener, () => this.#links.delete(id));
    this.#links.set(id, link);
    return link;
  }

  watch(replaced: () => void): () => void {
    this.#watchers.add(replaced);
    return () => this.#watchers.delete(replaced);
  }

  reread(): void {
    this.#port.postMessage({ type: "reread" } satisfies FromPage);
  }

  #take(message: ToPage): void {
    switch (message.type) {
      case "event":
        if (message.event.type === "opened") this.#hasTables = message.event.hasTables;
        this.#links.get(message.link)?.take(message.event);
        return;
      case "closed":
        this.#links.get(message.link)?.closed();
        return;
      case "replaced":
        for (const one of this.#watchers) one();
        return;
      case "table":
        this.#tables.get(message.id)?.(message.bytes);
        this.#tables.delete(message.id);
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#links.values()].map((one) => one.close()));
    for (const one of this.#tables.values()) one(null);
    this.#tables.clear();
    this.#watchers.clear();
    this.#unlisten();
    this.#port.close?.();
  }
}

class PortLink implements Link {
  readonly #port: Port;
  readonly #id: number;
  readonly #listener: LinkListener;
  readonly #ended: () => void;
  #isOpen = false;
  #isClosed = false;
  #taken = 0;
  #confirm: (() => void) | undefined;

  constructor(port: Port, id: number, listener: LinkListener, ended: () => void) {
    this.#port = port;
    this.#id = id;
    this.#listener = listener;
    this.#ended = ended;
    this.#post({ type: "connect", link: id });
  }

  #post(message: FromPage): void {
    this.#port.postMessage(message);
  }

  take(event: TunnelEvent): void {
    if (this.#isClosed) return;
    if (event.type === "opened") {
      this.#isOpen = true;
      this.#listener({ type: "opened", instanceId: event.instanceId, signer: null });
      return;
    }
    this.#listener(event);
    if (event.type !== "message") return;
    this.#taken += 1;
    if (this.#taken < TAKEN_EVERY || this.#isClosed) return;
    this.#post({ type: "taken", link: this.#id, count: this.#taken });
    this.#taken = 0;
  }

  send(frames: readonly Uint8Array[]): boolean {
    if (!this.#isOpen || this.#isClosed) return false;
    this.#post({ type: "send", link: this.#id, frames });
    return true;
  }

  subscribe(socket: StreamSocket, prefix: string): void {
    if (!this.#isClosed) this.#post({ type: "subscribe", link: this.#id, socket, prefix });
  }

  unsubscribe(socket: StreamSocket, prefix: string): void {
    if (!this.#isClosed) this.#post({ type: "unsubscribe", link: this.#id, socket, prefix });
  }

  /** The other end has released the link. */
  closed(): void {
    this.#confirm?.();
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#post({ type: "close", link: this.#id });
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, CLOSING_MS);
      this.#confirm = (): void => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#ended();
  }
}
