/** Events of a client, each with the functions that are called for it. */

import { shown } from "./core/codec.js";
import { didYouMean } from "./core/near-miss.js";

/** Calls functions by the name of an event; one that throws keeps no other from being called. */
export class Emitter<Events extends object> {
  readonly #names: readonly string[];
  readonly #callbacks = new Map<keyof Events, Set<(event: never) => void>>();
  readonly #failed: (error: unknown) => void;

  /** `failed` is given what a callback throws. */
  constructor(names: readonly (keyof Events & string)[], failed: (error: unknown) => void) {
    this.#names = names;
    this.#failed = failed;
  }

  /** Calls `callback` for every further event of this name; returns what ends that. */
  on<Name extends keyof Events & string>(name: Name, callback: (event: Events[Name]) => void): () => void {
    if (!this.#names.includes(name)) {
      const known = this.#names.join(", ");
      throw new TypeError(`there is no event ${shown(name)}${didYouMean(String(name), this.#names)} (${known})`);
    }
    if (typeof callback !== "function") throw new TypeError(`a callback is a function; ${shown(callback)} came`);
    const callbacks = this.#callbacks.get(name) ?? new Set();
    this.#callbacks.set(name, callbacks);
    // A wrapper of its own, so that one function may listen twice.
    const own = (event: Events[Name]): void => callback(event);
    callbacks.add(own);
    return () => {
      callbacks.delete(own);
    };
  }

  /** Returns true if anybody listens to this event. */
  has(name: keyof Events): boolean {
    return (this.#callbacks.get(name)?.size ?? 0) > 0;
  }

  /** Calls the callbacks of an event. */
  emit<Name extends keyof Events>(name: Name, event: Events[Name]): void {
    for (const callback of [...(this.#callbacks.get(name) ?? [])]) this.call(() => callback(event as never));
  }

  /** Calls a function of the program, whose exception is no concern of the caller. */
  call(callback: () => void): void {
    try {
      const result: unknown = callback();
      // An async function fails later.
      if (result instanceof Promise) result.catch(this.#failed);
    } catch (error) {
      this.#failed(error);
    }
  }
}
