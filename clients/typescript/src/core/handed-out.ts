/**
 * The values of keys that a program was given, so that a change based on one of them is merged with it as its base.
 *
 * A program that read a key, and writes it some time later, may have missed changes of others meanwhile, although the
 * replica has them. The base of its change is what it read.
 */

import { encode } from "./msgpack-encoder.js";
import { ABSENT_VALUE, type VersionedValue } from "./replica.js";

/** Bounds of what is remembered by version, as the broker bounds all values together and all keys. */
export const MAX_BYTES = 64 << 20;
/** See `MAX_BYTES`. */
export const MAX_VALUES = 65_536;
/** The version of a value that the broker has not confirmed: this program's own optimistic update. */
export const UNCONFIRMED = -1;

interface Remembered {
  readonly value: unknown;
  readonly bytes: number;
}

/** The versions that were handed out, the latest 64 MiB of them, and the last one of every key. */
export class HandedOut {
  readonly #values = new Map<string, Remembered>(); // by key and version
  readonly #latest = new Map<string, VersionedValue>();
  readonly #maxBytes: number;
  readonly #maxValues: number;
  #bytes = 0;

  constructor(maxBytes = MAX_BYTES, maxValues = MAX_VALUES) {
    this.#maxBytes = maxBytes;
    this.#maxValues = maxValues;
  }

  /** Notes that the program is given this value of a key. */
  give(key: string, current: VersionedValue): void {
    this.#latest.set(key, current);
    this.note(key, current);
  }

  /** Remembers a value by its version. */
  note(key: string, { version, value }: VersionedValue): void {
    if (version === UNCONFIRMED) return;
    const name = nameOf(key, version);
    this.#bytes -= this.#values.get(name)?.bytes ?? 0;
    this.#values.delete(name);
    const bytes = value === ABSENT_VALUE ? 0 : encode(value).length;
    this.#values.set(name, { value, bytes });
    this.#bytes += bytes;
    for (const [oldest, dropped] of this.#values) {
      if (this.#bytes <= this.#maxBytes && this.#values.size <= this.#maxValues) break;
      this.#values.delete(oldest);
      this.#bytes -= dropped.bytes;
    }
  }

  /** Returns what the program was last given of a key; undefined if it never read it. */
  base(key: string): VersionedValue | undefined {
    return this.#latest.get(key);
  }

  /** Returns a key at a version. Its value is absent where it is not remembered: then nothing in it is known. */
  at(key: string, version: number): VersionedValue {
    const known = this.#values.get(nameOf(key, version));
    return { version, value: known === undefined ? ABSENT_VALUE : known.value };
  }
}

function nameOf(key: string, version: number): string {
  return `${version} ${key}`;
}
