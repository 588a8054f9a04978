/** The least that speaks to a broker over a link: written from PROTOCOL.md, with msgpackr, and nothing of core/. */

import { Packr } from "msgpackr";
import type { Link, LinkEvent, Signer, Transport } from "../../src/core/transport.js";
import { until } from "./broker.js";

const packr = new Packr({ useRecords: false, int64AsType: "auto" as never });

export interface Envelope {
  readonly correlationId?: string;
  readonly seq?: number;
  readonly instanceId?: string;
  // biome-ignore lint/suspicious/noExplicitAny: a test says what it expects
  readonly payload: { readonly type: string; readonly data: any };
}

/** One link, with all that came over it. */
export class RawSession {
  readonly events: LinkEvent[] = [];
  readonly link: Link;
  #signer: Signer | null = null;
  #session: string | undefined;
  #counter = 0;
  #ids = 0;
  readonly #answers: Envelope[] = [];
  #read = 0;

  constructor(transport: Transport) {
    this.link = transport.connect((event) => {
      if (event.type === "opened") this.#signer = event.signer;
      this.events.push(event);
    });
  }

  /** Waits for an event of a kind, and returns the first. */
  first<Type extends LinkEvent["type"]>(type: Type, ms?: number): Promise<Extract<LinkEvent, { type: Type }>> {
    const find = () => this.events.find((one): one is Extract<LinkEvent, { type: Type }> => one.type === type);
    return until(find, `the event ${type}`, ms);
  }

  /** Opens a session. */
  async hello(): Promise<void> {
    await this.first("opened");
    const welcome = await this.ask("Hello", { clientId: `raw-${process.pid}`, protocolVersions: [1] });
    this.#session = welcome.payload.data.sessionId;
  }

  /** Sends a request, and returns its id. */
  send(type: string, data: object): string {
    this.#ids += 1;
    const id = `raw ${this.#ids} ${Math.random()}`;
    const session = this.#session === undefined ? {} : { sessionId: this.#session, counter: ++this.#counter };
    const envelope = packr.pack({
      id,
      timestamp: Date.now(),
      schemaVersion: 1,
      messageType: "Request",
      payload: { type, data },
      ...session,
    });
    const frames = this.#signer === null ? [envelope] : [this.#signer.sign("req", [envelope]), envelope];
    if (!this.link.send(frames)) throw new Error("the link does not take it");
    return id;
  }

  /** Sends a request, and returns the envelope of its answer, whose signature is right. */
  async ask(type: string, data: object): Promise<Envelope> {
    const id = this.send(type, data);
    const answer = await until(() => this.answers().find((one) => one.correlationId === id), `the answer to ${type}`);
    return answer;
  }

  /** The answers, whose signatures are right. */
  answers(): readonly Envelope[] {
    for (; this.#read < this.events.length; this.#read += 1) {
      const one = this.events[this.#read];
      if (one?.type === "answer") this.#answers.push(this.#opened("rep", one.frames));
    }
    return this.#answers;
  }

  /** The stream messages of a topic. */
  messages(topic: string): Envelope[] {
    return this.events.flatMap((one) => {
      if (one.type !== "message" || String(one.frames[0] && Buffer.from(one.frames[0])) !== topic) return [];
      const [name, ...rest] = one.frames as [Uint8Array, ...Uint8Array[]];
      if (this.#signer === null) return [packr.unpack(rest[0] as Uint8Array)];
      const [signature, ...signed] = rest;
      return [this.#opened("pub", [signature as Uint8Array, name, ...signed], 2)];
    });
  }

  #opened(label: "rep" | "pub", frames: readonly Uint8Array[], at = 1): Envelope {
    if (this.#signer === null) return packr.unpack(frames[0] as Uint8Array);
    const [signature, ...signed] = frames;
    if (!this.#signer.verify(label, signed, signature as Uint8Array)) throw new Error("a wrong signature");
    return packr.unpack(frames[at] as Uint8Array);
  }
}
