/** The shared state as a program sees it whose client lives in another thread or process. */

import { shown } from "../core/codec.js";
import { ClosedError } from "../core/errors.js";
import { byCodePoint } from "../core/msgpack-encoder.js";
import type { StateCallback, StateChange } from "../state.js";
import { revived, type StateItem, type StateWrite } from "./messages.js";
import type { RemoteStream } from "./remote-stream.js";

/** A write without an answer. Where it deletes the key, `value` is undefined. */
interface Pending {
  readonly key: string;
  readonly value: unknown;
  readonly origin: Error;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

interface Watcher {
  readonly key: string | null; // null for all keys
  readonly callback: StateCallback;
}

/**
 * The keys that begin with a prefix, by their full names, as `SharedState` has them: a copy in this thread of the replica
 * in the other one.
 *
 * Reads are local. This program's own writes are seen here at once. A reader that is slow is told of the latest value of
 * each key, and not of every one before it.
 */
export class RemoteState {
  /** The beginning of all its keys, with a dot at the end; empty for all keys. */
  readonly prefix: string;
  readonly #stream: RemoteStream<StateItem | null>;
  readonly #send: (write: StateWrite) => void;
  readonly #committed = new Map<string, StateChange>();
  readonly #pending = new Map<number, Pending>();
  readonly #watchers = new Set<Watcher>();
  readonly #ready: Promise<void>;
  #settle: { resolve(): void; reject(error: Error): void } | undefined;
  #isReady = false;
  #numbers = 0;
  #fault: Error | undefined;

  /** Called by the client: see `RemoteClient.follow`. */
  constructor(prefix: string, stream: RemoteStream<StateItem | null>, send: (write: StateWrite) => void) {
    this.prefix = prefix;
    this.#stream = stream;
    this.#send = send;
    this.#ready = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.#ready.catch(() => undefined); // nobody needs to wait for it
    void this.#follow();
  }

  /** Resolves once the present values have come, however long the broker is away. */
  ready(): Promise<void> {
    return this.#ready;
  }

  /** Returns the names of all known keys, in order. */
  keys(): string[] {
    const names = new Set([...this.#committed.keys(), ...[...this.#pending.values()].map((one) => one.key)]);
    return [...names].filter((key) => this.peek(key) !== undefined).sort(byCodePoint);
  }

  /** Returns a key's value as far as it is known: undefined where there is none, and before the present values came. */
  peek(key: string): unknown {
    this.#checkKey(key);
    const own = this.#own(key);
    return own === undefined ? this.#committed.get(key)?.value : own.value;
  }

  /** Returns a key as the broker has it: its value and version, for `set(..., { baseVersion: version })`. */
  read(key: string): StateChange {
    this.#checkKey(key);
    return this.#committed.get(key) ?? { key, value: undefined, version: 0 };
  }

  /**
   * Calls `callback` with the key's present value once it is known, and then with the changes that the broker has made,
   * those by this program included. Without a key it is called for every key. Returns what ends that.
   */
  subscribe(key: string, callback: StateCallback): () => void;
  subscribe(callback: StateCallback): () => void;
  subscribe(first: string | StateCallback, second?: StateCallback): () => void {
    const key = typeof first === "string" ? first : null;
    const callback = typeof first === "string" ? second : first;
    if (typeof callback !== "function") throw new TypeError("subscribe takes a function, or a key and a function");
    if (key !== null) this.#checkKey(key);
    const watcher: Watcher = { key, callback };
    this.#watchers.add(watcher);
    if (this.#isReady) this.#start(watcher);
    return () => {
      this.#watchers.delete(watcher);
    };
  }

  /**
   * Sets a key, as `SharedState.set` does: the change is based on the value that is known here, or on `baseVersion`; one
   * that others changed meanwhile is joined with theirs, or raises a `StateConflict` and is taken back here.
   */
  set(key: string, value: unknown, options: { readonly baseVersion?: number } = {}): Promise<unknown> {
    if (value === undefined) throw new TypeError("undefined is no value; give null, or delete the key");
    const base = options.baseVersion ?? (this.#own(key) === undefined ? this.read(key).version : "own");
    return this.#write(key, value, base);
  }

  /** Removes a key at any version. It is gone here at once, and for all when this resolves. Raises `NotFound`. */
  async delete(key: string): Promise<void> {
    await this.#write(key, undefined, null);
  }

  /** Follows the broker no more. What is known can still be read; writes raise a `ClosedError`. */
  close(): void {
    this.#end(new ClosedError(`the shared state ${this.prefix}* is closed`));
    void this.#stream.return();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #write(key: string, value: unknown, base: StateWrite["base"]): Promise<unknown> {
    this.#checkKey(key);
    if (this.#fault !== undefined) return Promise.reject(this.#fault);
    const origin = new Error(value === undefined ? "delete" : "set");
    this.#numbers += 1;
    const number = this.#numbers;
    return new Promise((resolve, reject) => {
      // A value that cannot be cloned throws here, at the call.
      this.#send(value === undefined ? { number, key, base } : { number, key, value, base });
      this.#pending.set(number, { key, value, origin, resolve, reject });
    });
  }

  /** Returns this program's own latest write of a key, as long as it has no answer. */
  #own(key: string): Pending | undefined {
    let latest: Pending | undefined;
    for (const one of this.#pending.values()) if (one.key === key) latest = one;
    return latest;
  }

  async #follow(): Promise<void> {
    try {
      for await (const item of this.#stream) this.#take(item);
      this.#end(new ClosedError("this client is closed"));
    } catch (error) {
      this.#end(error as Error);
    }
  }

  #take(item: StateItem | null): void {
    if (item === null) {
      this.#isReady = true;
      for (const watcher of [...this.#watchers]) this.#start(watcher);
      this.#settle?.resolve();
    } else if (item.kind === "change") {
      this.#changed(item);
    } else {
      const pending = this.#pending.get(item.number);
      this.#pending.delete(item.number);
      if (item.kind === "written") pending?.resolve(item.value);
      else pending?.reject(revived(item.error, pending.origin));
    }
  }

  #changed({ key, value, version }: StateChange): void {
    if (value === undefined) this.#committed.delete(key);
    else this.#committed.set(key, { key, value, version });
    if (!this.#isReady) return;
    for (const watcher of this.#watchers) {
      if (watcher.key === null || watcher.key === key) this.#call(watcher, { key, value, version });
    }
  }

  #start(watcher: Watcher): void {
    const keys = watcher.key === null ? [...this.#committed.keys()].sort(byCodePoint) : [watcher.key];
    for (const key of keys) this.#call(watcher, this.read(key));
  }

  /** Calls back after the present step; an exception of the callback is the program's, and is reported as uncaught. */
  #call(watcher: Watcher, change: StateChange): void {
    queueMicrotask(() => {
      if (this.#watchers.has(watcher)) watcher.callback(change);
    });
  }

  #checkKey(key: unknown): void {
    if (typeof key !== "string") throw new TypeError(`a key is a text; ${shown(key)} came`);
    if (!key.startsWith(this.prefix)) {
      throw new TypeError(`${shown(key)} does not begin with ${this.prefix}, as all keys here do`);
    }
  }

  #end(fault: Error): void {
    if (this.#fault !== undefined) return;
    this.#fault = fault;
    this.#watchers.clear();
    this.#settle?.reject(fault);
    for (const one of this.#pending.values()) one.reject(fault);
    this.#pending.clear();
  }
}
