/** Events of a client, each with the functions that are called for it. */

import { shown } from "./core/codec.js";
import { didYouMean } from "./core/near-miss.js";

/** Calls functions by the name of an event; one that throws keeps no other from being called. */
export class Emitter<Events extends object> {
  readonly #names: readonly string[];
  readonly #listeners = new Map<keyof Events, Set<(event: never) => void>>();
  readonly #failed: (error: unknown) => void;

  /** `failed` is given what a listener throws. */
  constructor(names: readonly (keyof Events & string)[], failed: (error: unknown) => void) {
    this.#names = names;
    this.#failed = failed;
  }

  /** Calls `listener` for every further event of this name; returns what ends that. */
  on<Name extends keyof Events & string>(name: Name, listener: (event: Events[Name]) => void): () => void {
    if (!this.#names.includes(name)) {
      const known = this.#names.join(", ");
      throw new TypeError(`there is no event ${shown(name)}${didYouMean(String(name), this.#names)} (${known})`);
    }
    if (typeof listener !== "function") throw new TypeError(`a listener is a function; ${shown(listener)} came`);
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners);
    // A wrapper of its own, so that one function may listen twice.
    const own = (event: Events[Name]): void => listener(event);
    listeners.add(own);
    return () => {
      listeners.delete(own);
    };
  }

  /** Returns true if anybody listens to this event. */
  has(name: keyof Events): boolean {
    return (this.#listeners.get(name)?.size ?? 0) > 0;
  }

  /** Calls the listeners of an event. */
  emit<Name extends keyof Events>(name: Name, event: Events[Name]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) this.call(() => listener(event as never));
  }

  /** Calls a function of the program, whose exception is no concern of the caller. */
  call(listener: () => void): void {
    try {
      const result: unknown = listener();
      // An async function fails later.
      if (result instanceof Promise) result.catch(this.#failed);
    } catch (error) {
      this.#failed(error);
    }
  }
}
