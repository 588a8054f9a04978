/** A broker in this thread, a transport to it, and a clock that a test moves: no sockets and no sleeps. */

import type { Clock } from "../../src/clock.js";
import { decompress } from "../../src/compression/node.js";
import { decodeMessage } from "../../src/core/codec.js";
import type { Link, LinkEvent, LinkListener, StreamSocket, TableFiles, Transport } from "../../src/core/transport.js";
import { type Client, type ClientOptions, createClient } from "../../src/exports.js";
import { answer, failure, published, RIGHT, WALL_MS, WRONG } from "./signing.js";

/** Lets everything that waits for a promise go on. */
export async function settle(): Promise<void> {
  for (let round = 0; round < 30; round += 1) await Promise.resolve();
}

/** A clock that stands still until a test moves it. */
export class FakeClock implements Clock {
  #now = 0;
  #ids = 0;
  #timers: { at: number; due: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  wallMs(): number {
    return WALL_MS + Math.floor(this.#now * 1000);
  }

  random(): number {
    return 0.5;
  }

  after(seconds: number, due: () => void): () => void {
    const timer = { at: this.#now + seconds, due };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((one) => one !== timer);
    };
  }

  async turn(): Promise<void> {
    await Promise.resolve();
  }

  newId(): string {
    this.#ids += 1;
    return `id${this.#ids}`;
  }

  /** The number of timers that are set. */
  get timers(): number {
    return this.#timers.length;
  }

  /** Moves on by so many seconds, and has everything done that falls due. */
  async advance(seconds: number): Promise<void> {
    const until = this.#now + seconds;
    for (;;) {
      await settle();
      const [next] = this.#timers.toSorted((one, other) => one.at - other.at);
      if (next === undefined || next.at > until) break;
      this.#timers = this.#timers.filter((one) => one !== next);
      this.#now = Math.max(this.#now, next.at);
      next.due();
    }
    this.#now = until;
    await settle();
  }
}

/** A request that the broker has got. */
export interface Asked {
  readonly id: string;
  readonly type: string;
  // biome-ignore lint/suspicious/noExplicitAny: each request has data of its own
  readonly data: any;
  readonly counter: number | undefined;
}

/** A handler of a request gives the data of the answer, or what `failed` made, or undefined for none. */
export type Handler = (asked: Asked) => unknown;

class Failed {
  readonly data: object;

  constructor(data: object) {
    this.data = data;
  }
}

/** The refusal of a request, as a handler returns it. */
export function failed(code: string, details: object | null = null, actions: readonly string[] = []): unknown {
  return new Failed(failure(code, details, actions));
}

/** A broker in this thread. */
export class FakeBroker implements Transport {
  readonly clock = new FakeClock();
  readonly asked: Asked[] = [];
  readonly prefixes = new Set<string>();
  readonly handlers: { [type: string]: Handler };
  tables?: TableFiles;
  instanceId = "i1";
  /** The reason why there is no broker; null while there is one. */
  absence: string | null = null;
  isSilent = false;
  heartbeatMs = 1_000;
  signer = RIGHT;
  links = 0;
  rereads = 0;
  isClosed = false;
  #seqs = new Map<string, number>();
  #listener: LinkListener | null = null;
  #replaced: (() => void) | null = null;
  #sessions = 0;

  constructor(handlers: { [type: string]: Handler } = {}) {
    this.handlers = {
      Hello: () => this.#welcome(),
      Ping: () => ({ timestamp: this.clock.wallMs() }),
      Goodbye: () => ({}),
      FetchMissed: () => failed("NOT_FOUND"),
      ...handlers,
    };
  }

  /** Returns a client that has a session with this broker. */
  async client(options: ClientOptions = {}): Promise<Client> {
    const opening = createClient(this, { clock: this.clock, decompress, ...options });
    await settle();
    return opening;
  }

  #welcome(): object {
    this.#sessions += 1;
    return {
      sessionId: `s${this.#sessions}`,
      instanceId: this.instanceId,
      protocolVersion: 1,
      serverVersion: "1",
      heartbeatIntervalMs: this.heartbeatMs,
      sessionTimeoutMs: 30_000,
      maxMessageBytes: 1 << 24,
      topics: [],
    };
  }

  // --- the transport -------------------------------------------------------------------------------------------------

  connect(listener: LinkListener): Link {
    this.links += 1;
    this.#listener = listener;
    this.prefixes.clear();
    queueMicrotask(() => {
      if (this.absence !== null) listener({ type: "absent", reason: this.absence });
      else listener({ type: "opened", instanceId: this.instanceId, signer: RIGHT, publicKey: "the key" });
    });
    return {
      send: (frames) => {
        if (listener !== this.#listener) return false;
        this.#take(frames);
        return true;
      },
      subscribe: (socket: StreamSocket, prefix: string) => this.prefixes.add(`${socket} ${prefix}`),
      unsubscribe: (socket: StreamSocket, prefix: string) => this.prefixes.delete(`${socket} ${prefix}`),
      close: async () => {
        if (listener === this.#listener) this.#listener = null;
      },
    };
  }

  watch(replaced: () => void): () => void {
    this.#replaced = replaced;
    return () => {
      this.#replaced = null;
    };
  }

  reread(): void {
    this.rereads += 1;
  }

  async close(): Promise<void> {
    this.isClosed = true;
  }

  // --- the broker ----------------------------------------------------------------------------------------------------

  /** True while a client has a link to it. */
  get isLinked(): boolean {
    return this.#listener !== null;
  }

  /** Reports an event of the link. */
  async event(event: LinkEvent): Promise<void> {
    this.#listener?.(event);
    await settle();
  }

  /** Another instance is there, and announces itself. */
  async restart(isAnnounced = true): Promise<void> {
    this.instanceId = `i${Number(this.instanceId.slice(1)) + 1}`;
    this.#seqs.clear();
    if (isAnnounced) this.#replaced?.();
    await settle();
  }

  /** Publishes messages of a topic, one by one. */
  async publish(topic: string, type: string, ...messages: unknown[]): Promise<void> {
    for (const data of messages) {
      const seq = (this.#seqs.get(topic) ?? 0) + 1;
      this.#seqs.set(topic, seq);
      await this.event({ type: "message", frames: published(topic, seq, type, data, this.instanceId) });
    }
  }

  /** Publishes a batch, which takes as many numbers as it has messages. */
  async publishBatch(topic: string, batch: { readonly count: number }): Promise<void> {
    const seq = (this.#seqs.get(topic) ?? 0) + 1;
    this.#seqs.set(topic, seq + batch.count - 1);
    await this.event({ type: "message", frames: published(topic, seq, "Batch", batch, this.instanceId) });
  }

  /** Counts messages as published that do not arrive. */
  lose(topic: string, count: number): void {
    this.#seqs.set(topic, (this.#seqs.get(topic) ?? 0) + count);
  }

  /** Answers a request that had no answer at once. */
  async answer(id: string, data: unknown, attachments: Uint8Array[] = []): Promise<void> {
    const isFailure = data instanceof Failed;
    const payload = isFailure ? data.data : data;
    const frames = answer(id, isFailure ? "Failure" : "Success", payload, this.signer, attachments);
    await this.event({ type: "answer", frames });
  }

  /** The requests of one type that came. */
  of(type: string): Asked[] {
    return this.asked.filter((one) => one.type === type);
  }

  #take(frames: readonly Uint8Array[]): void {
    const { id, payload, counter } = decodeMessage(RIGHT, "req", frames).envelope;
    const asked = { id, type: payload.type, data: payload.data, counter };
    this.asked.push(asked);
    if (this.isSilent) return;
    const handler = this.handlers[payload.type];
    const data = handler === undefined ? failed("UNSUPPORTED_COMMAND") : handler(asked);
    if (data === undefined) return;
    const [content, attachments] = Array.isArray(data) ? [data[0], data[1]] : [data, []];
    queueMicrotask(() => void this.answer(id, content, attachments));
  }
}

export { RIGHT, WRONG };
