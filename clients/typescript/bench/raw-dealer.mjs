/** A raw DEALER that signs: the floor of a round trip from Node. zeromq, msgpackr and one-shot hashes, and nothing else. */

import { hash, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { Packr } from "msgpackr";
import { Dealer } from "zeromq";

const packr = new Packr({ useRecords: false, int64AsType: "auto" });

export class RawDealer {
  #dealer = new Dealer({ linger: 0 });
  #inner = Buffer.alloc(64 + 65_536);
  #outer = Buffer.alloc(96);
  #session = {};
  #counter = 0;

  constructor(connectionFile) {
    const { endpoints, signing } = JSON.parse(readFileSync(connectionFile, "utf8"));
    const key = Buffer.from(signing.key, "hex");
    for (let at = 0; at < 64; at += 1) {
      this.#inner[at] = (key[at] ?? 0) ^ 0x36;
      this.#outer[at] = (key[at] ?? 0) ^ 0x5c;
    }
    this.#dealer.connect(endpoints.requests);
  }

  async hello() {
    const { sessionId } = await this.ask("Hello", { clientId: `raw-${process.pid}`, protocolVersions: [1] });
    this.#session = { sessionId };
  }

  /** Sends one request and waits for its answer, which is verified before it is decoded. */
  async ask(type, data) {
    this.#counter += 1;
    const id = `${process.pid}-${this.#counter}`;
    const envelope = packr.pack({
      id,
      timestamp: Date.now(),
      schemaVersion: 1,
      messageType: "Request",
      payload: { type, data },
      counter: this.#counter,
      ...this.#session,
    });
    await this.#dealer.send([this.#sign("req", envelope), envelope]);
    const [signature, answer] = await this.#dealer.receive();
    if (!timingSafeEqual(signature, this.#sign("rep", answer))) throw new Error("a forged answer");
    const { correlationId, payload } = packr.unpack(answer);
    if (correlationId !== id || payload.type !== "Success") throw new Error("another answer");
    return payload.data;
  }

  #sign(label, frame) {
    this.#inner.write(label, 64, "latin1");
    this.#inner.writeUInt32BE(frame.length, 67);
    this.#inner.set(frame, 71);
    hash("sha256", this.#inner.subarray(0, 71 + frame.length), "buffer").copy(this.#outer, 64);
    return hash("sha256", this.#outer, "buffer");
  }

  close() {
    this.#dealer.close();
  }
}
