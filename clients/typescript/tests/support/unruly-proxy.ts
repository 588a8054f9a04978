/**
 * A proxy between one client and its broker that replays, reorders, drops and forges frames, as an attacker on the way
 * could who has no key.
 */

import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Dealer, Publisher, Subscriber } from "zeromq";
import type { Broker } from "./broker.js";

/** A message is sent so often, later messages first, or with a bit of a frame turned. */
export type Mischief = "pass" | "twice" | "again later" | "swap" | "drop" | "forge";

export interface Mischiefs {
  readonly requests?: (number: number) => Mischief;
  readonly answers?: (number: number) => Mischief;
  readonly messages?: (number: number) => Mischief;
}

type Frames = Buffer[];

/** Applies a mischief to each message, and sends what comes of it. */
class Way {
  #number = 0;
  #held: Frames | undefined;
  #old: Frames[] = [];
  #sent: Promise<void> = Promise.resolve();
  readonly #of: (number: number) => Mischief;
  readonly #send: (frames: Frames) => Promise<void>;
  readonly count: Record<Mischief, number> = { pass: 0, twice: 0, "again later": 0, swap: 0, drop: 0, forge: 0 };

  constructor(of: (number: number) => Mischief, send: (frames: Frames) => Promise<void>) {
    this.#of = of;
    this.#send = send;
  }

  /** Sends behind everything before: a socket of zeromq.js takes one message at a time. */
  #put(frames: Frames): Promise<void> {
    this.#sent = this.#sent.then(() => this.#send(frames)).catch(() => undefined); // closed
    return this.#sent;
  }

  async take(frames: Frames): Promise<void> {
    this.#number += 1;
    const mischief = this.#of(this.#number);
    this.count[mischief] += 1;
    const held = this.#held;
    this.#held = undefined;
    switch (mischief) {
      case "pass":
        await this.#put(frames);
        break;
      case "twice":
        await this.#put(frames);
        await this.#put(frames);
        break;
      case "again later":
        this.#old.push(frames);
        await this.#put(frames);
        if (this.#old.length > 5) await this.#put(this.#old.shift() as Frames);
        break;
      case "swap":
        this.#held = frames;
        break;
      case "drop":
        break;
      case "forge": {
        const last = Buffer.from(frames.at(-1) as Buffer);
        last[last.length >> 1] = (last[last.length >> 1] as number) ^ 1;
        await this.#put([...frames.slice(0, -1), last]);
      }
    }
    if (held !== undefined) await this.#put(held);
  }

  /** Sends what was held for a swap and got no successor. */
  async flush(): Promise<void> {
    const held = this.#held;
    this.#held = undefined;
    if (held !== undefined) await this.#put(held);
  }
}

const STREAMS = ["prices", "progress", "orders", "positions", "system"] as const;

/** A running proxy. */
export class UnrulyProxy {
  /** The connection file for the client that goes through the proxy. */
  readonly connectionFile: string;
  readonly requests: Way;
  readonly answers: Way;
  readonly messages: Way[] = [];
  readonly #sockets: { close(): void }[] = [];
  readonly #timer: NodeJS.Timeout;

  private constructor(broker: Broker, mischiefs: Mischiefs, front: Dealer, publishers: Map<string, Publisher>) {
    const pass = (): Mischief => "pass";
    const connection = JSON.parse(readFileSync(broker.connectionFile, "utf8"));
    const back = new Dealer({ linger: 0 });
    back.connect(connection.endpoints.requests);
    this.#sockets.push(front, back);
    this.requests = new Way(mischiefs.requests ?? pass, (frames) => back.send(frames));
    this.answers = new Way(mischiefs.answers ?? pass, (frames) => front.send(frames));
    void this.#forward(front, this.requests);
    void this.#forward(back, this.answers);
    for (const name of STREAMS) {
      const publisher = publishers.get(name) as Publisher;
      const subscriber = new Subscriber({ linger: 0, receiveHighWaterMark: 0 });
      subscriber.connect(connection.endpoints[name]);
      subscriber.subscribe("");
      const way = new Way(mischiefs.messages ?? pass, (frames) => publisher.send(frames));
      this.messages.push(way);
      this.#sockets.push(publisher, subscriber);
      void this.#forward(subscriber, way);
    }
    const endpoints = Object.fromEntries(
      ["requests", ...STREAMS].map((name) => [name, `ipc://${join(broker.home, "run", `proxy-${name}`)}`]),
    );
    this.connectionFile = join(broker.home, "proxy.json");
    writeFileSync(this.connectionFile, JSON.stringify({ ...connection, endpoints }));
    chmodSync(this.connectionFile, 0o600);
    // What is held for a swap goes on after a while even if nothing follows.
    this.#timer = setInterval(() => {
      for (const way of [this.requests, this.answers, ...this.messages]) void way.flush();
    }, 100);
  }

  static async started(broker: Broker, mischiefs: Mischiefs): Promise<UnrulyProxy> {
    const front = new Dealer({ linger: 0 });
    await front.bind(`ipc://${join(broker.home, "run", "proxy-requests")}`);
    const publishers = new Map<string, Publisher>();
    for (const name of STREAMS) {
      const publisher = new Publisher({ linger: 0, sendHighWaterMark: 0 });
      await publisher.bind(`ipc://${join(broker.home, "run", `proxy-${name}`)}`);
      publishers.set(name, publisher);
    }
    return new UnrulyProxy(broker, mischiefs, front, publishers);
  }

  async #forward(from: Dealer | Subscriber, way: Way): Promise<void> {
    try {
      while (!from.closed) await way.take(await from.receive());
    } catch {
      // closed
    }
  }

  close(): void {
    clearInterval(this.#timer);
    for (const one of this.#sockets) one.close();
  }
}
