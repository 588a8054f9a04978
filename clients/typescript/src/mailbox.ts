/** A mailbox passes deliveries from the driver to the reader of a subscription. */

import { type Delivery, weightOf } from "./core/effects.js";

/**
 * Deliveries that may be unread in one subscription: 200 MB of them. A backtest's million prices nearly fill that, and
 * are published faster than they are read. Messages beyond the bound are fetched again later.
 */
export const MAX_UNREAD = 400_000;

/** The unread deliveries of one subscription, for one reader. */
export class Mailbox {
  #unread: Delivery[] = [];
  #first = 0; // the place of the oldest unread one
  #weight = 0;
  #taken = 0;
  #isEnded = false;
  #error: Error | null = null;
  readonly #waiting = new Set<() => void>();
  readonly #whenTaken: (count: number) => void;

  /** `whenTaken` is called with the weight of taken deliveries, a part of the bound at a time. */
  constructor(whenTaken: (count: number) => void) {
    this.#whenTaken = whenTaken;
  }

  /** The weight of what is unread, and of what was taken and not reported yet. */
  get held(): number {
    return this.#weight + this.#taken;
  }

  /** True once nothing more will come. What has come may still be unread. */
  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** Adds deliveries. */
  put(deliveries: readonly Delivery[]): void {
    for (const one of deliveries) {
      this.#unread.push(one);
      this.#weight += weightOf(one);
    }
    this.#wake();
  }

  /** Ends the deliveries, with `error` as the reason if there is one. Only the first call has an effect. */
  end(error: Error | null): void {
    if (!this.#isEnded) this.#error = error;
    this.#isEnded = true;
    this.#wake();
  }

  /** Returns the next delivery and leaves it; undefined while there is none. */
  peek(): Delivery | undefined {
    return this.#unread[this.#first];
  }

  /** Takes the next delivery; undefined while there is none. */
  take(): Delivery | undefined {
    const taken = this.#unread[this.#first];
    if (taken === undefined) return undefined;
    this.#first += 1;
    if (2 * this.#first >= this.#unread.length) {
      this.#unread = this.#unread.slice(this.#first);
      this.#first = 0;
    }
    const weight = weightOf(taken);
    this.#weight -= weight;
    this.#taken += weight;
    if (this.#taken >= MAX_UNREAD / 4) {
      const count = this.#taken;
      this.#taken = 0;
      this.#whenTaken(count);
    }
    return taken;
  }

  /** Returns the error with which the deliveries have ended; null if none did, or not yet. */
  get error(): Error | null {
    return this.#error;
  }

  /** Calls `changed` once, when there may be something to take or the end; returns what prevents that. */
  onChange(changed: () => void): () => void {
    this.#waiting.add(changed);
    return () => {
      this.#waiting.delete(changed);
    };
  }

  /** Resolves once there is something to take, or the end. */
  async wait(): Promise<void> {
    while (this.peek() === undefined && !this.#isEnded) {
      await new Promise<void>((resolve) => {
        this.onChange(resolve);
      });
    }
  }

  #wake(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const changed of waiting) changed();
  }
}
