/** A stream of a client in another thread or process, as the program reads it. */

import { CREDIT, revived, type Thrown } from "./messages.js";

/** The requests of a stream to the client at the other end. */
export interface StreamSource {
  /** So many further parcels may come. */
  more(parcels: number): void;
  /** Nothing more is read. */
  shut(): void;
}

interface Waiter<Item> {
  resolve(result: IteratorResult<Item, undefined>): void;
  reject(error: Error): void;
}

/**
 * The items of a stream, in their order; the other end sends no more than `CREDIT` parcels ahead of the reader.
 *
 * `return` ends the stream at once, also while a `next` waits.
 */
export class RemoteStream<Item> implements AsyncIterableIterator<Item, undefined> {
  readonly #source: StreamSource;
  readonly #revive: (item: unknown) => Item;
  readonly #origin: Error;
  readonly #parcels: (readonly unknown[])[] = [];
  readonly #waiters: Waiter<Item>[] = [];
  #place = 0; // in the first parcel
  #taken = 0; // parcels that the other end was not told of
  #end: { readonly error?: Error } | undefined;

  /** `revive` makes items of what a clone has left of them; `origin` is where the program asked for the stream. */
  constructor(source: StreamSource, origin: Error, revive: (item: unknown) => Item) {
    this.#source = source;
    this.#origin = origin;
    this.#revive = revive;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<Item, undefined>> {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#serve();
    });
  }

  async return(): Promise<IteratorResult<Item, undefined>> {
    if (this.#end === undefined) this.#source.shut();
    this.#end = {};
    this.#parcels.length = 0;
    this.#serve();
    return { done: true, value: undefined };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  /** Takes a parcel of the other end. */
  take(items: readonly unknown[]): void {
    if (this.#end !== undefined) return;
    this.#parcels.push(items);
    this.#serve();
  }

  /** Ends the stream after what has come, with an error of this thread or of the other one. */
  end(error?: Error | Thrown): void {
    if (this.#end !== undefined) return;
    if (error === undefined) this.#end = {};
    else this.#end = { error: error instanceof Error ? error : revived(error, this.#origin) };
    this.#serve();
  }

  /** Gives those who wait what is there. */
  #serve(): void {
    while (this.#waiters.length > 0) {
      const items = this.#parcels[0];
      if (items === undefined && this.#end === undefined) return;
      if (items !== undefined && this.#place === items.length) {
        this.#parcels.shift();
        this.#place = 0;
        this.#tookParcel();
        continue;
      }
      const waiter = this.#waiters.shift() as Waiter<Item>;
      if (items !== undefined) {
        waiter.resolve({ done: false, value: this.#revive(items[this.#place]) });
        this.#place += 1;
      } else {
        const error = this.#end?.error;
        this.#end = {}; // an error is raised once, as that of a generator
        if (error === undefined) waiter.resolve({ done: true, value: undefined });
        else waiter.reject(error);
      }
    }
  }

  #tookParcel(): void {
    this.#taken += 1;
    if (2 * this.#taken < CREDIT || this.#end !== undefined) return;
    this.#source.more(this.#taken);
    this.#taken = 0;
  }
}
