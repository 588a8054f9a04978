/**
 * Streams report two kinds of errors: messages that are lost, and the broker's messages on `system.errors`.
 *
 * `system.errors` is read only while the program subscribes to it, and the program gets its messages as well.
 */

import type { StreamCounters } from "./counters.js";
import type { Delivery, StreamMessage } from "./effects.js";
import { type BacktestrError, MessageError, MessagesLost, Recovered } from "./errors.js";
import { unpack } from "./msgpack-decoder.js";
import { errorFromWire } from "./session.js";
import { ERRORS } from "./topics.js";

/** An error of a stream, and the topic that it is about. */
export interface StreamError {
  readonly error: BacktestrError;
  readonly topic: string;
}

/** The errors within the deliveries of all subscriptions of one client. */
export class StreamErrors {
  readonly #carriers = new Set<number>(); // the subscriptions that carry system.errors
  #lastSeq = 0;
  #lost = 0;
  #repaired = 0;

  /** Notes that a subscription begins. */
  subscribed(subscriptionId: number, prefix: string): void {
    if (prefix === ERRORS || (prefix.endsWith(".") && ERRORS.startsWith(prefix))) this.#carriers.add(subscriptionId);
  }

  /** Notes that a subscription has ended. */
  unsubscribed(subscriptionId: number): void {
    this.#carriers.delete(subscriptionId);
  }

  /** Notes that there is another instance of the broker, whose topics begin at 1. */
  restarted(): void {
    this.#lastSeq = 0;
  }

  /**
   * Returns the errors in `deliveries`, and a recovery where missing messages have come. While the messages lost stay
   * the same in `counters`, the deliveries are not searched for gaps.
   */
  find(subscriptionId: number, deliveries: readonly Delivery[], counters: StreamCounters): StreamError[] {
    const found: StreamError[] = [];
    if (counters.gapsRepaired !== this.#repaired) {
      const count = counters.gapsRepaired - this.#repaired;
      this.#repaired = counters.gapsRepaired;
      const topic = firstTopic(deliveries);
      const error = new Recovered(`messages of ${topic} that were missing were fetched (${count} gaps)`);
      found.push({ error, topic });
    }
    if (counters.messagesLost !== this.#lost) {
      this.#lost = counters.messagesLost;
      for (const one of deliveries) {
        if (one.kind !== "gap") continue;
        const text = `messages ${one.fromSeq} to ${one.toSeq} of ${one.topic} are lost`;
        const details = { topic: one.topic, fromSeq: one.fromSeq, toSeq: one.toSeq };
        found.push({ error: new MessagesLost(text, details), topic: one.topic });
      }
    }
    if (this.#carriers.has(subscriptionId)) {
      for (const one of deliveries) {
        if (one.kind === "message" && one.topic === ERRORS && this.#isNew(one)) {
          found.push({ error: errorOf(one), topic: ERRORS });
        }
      }
    }
    return found;
  }

  /** Returns true unless another subscription has brought this message already. */
  #isNew(message: StreamMessage): boolean {
    const isNew = message.seq > this.#lastSeq;
    this.#lastSeq = Math.max(this.#lastSeq, message.seq);
    return isNew;
  }
}

function firstTopic(deliveries: readonly Delivery[]): string {
  for (const one of deliveries) if (one.kind === "message" || one.kind === "batch") return one.topic;
  return "streams";
}

function errorOf(message: StreamMessage): BacktestrError {
  try {
    return errorFromWire(unpack(message.data));
  } catch (error) {
    if (error instanceof MessageError) return error;
    throw error;
  }
}
