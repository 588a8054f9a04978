/**
 * The shared state as this program sees it: a local replica that follows the broker, and writes with compare-and-set.
 *
 * Reads of what is known are local and never wait for the broker.
 */

import type { Context } from "./context.js";
import { backoff } from "./core/backoff.js";
import { shown } from "./core/codec.js";
import { BacktestrError, ClosedError, StateConflict } from "./core/errors.js";
import { HandedOut, UNCONFIRMED } from "./core/handed-out.js";
import { decode } from "./core/msgpack-decoder.js";
import { encode } from "./core/msgpack-encoder.js";
import { DEFAULT_RECOVERY, type Recovery } from "./core/recovery.js";
import { ABSENT, ABSENT_VALUE, type Committed, Replica, type VersionedValue } from "./core/replica.js";
import { DEFAULT_RESOLVERS, type Resolver, resolverFor } from "./core/resolvers.js";
import { frozen, sameValue } from "./core/values.js";
import type { Mailbox } from "./mailbox.js";

// After the first attempt. A program that loses four times in a row writes to a contended key, and must learn of it.
const MAX_RETRIES = 3;
// The first retry waits 0.05 s, each next one twice as long; the jitter keeps two writers apart.
const RETRIES: Recovery = { ...DEFAULT_RECOVERY, baseDelayMs: 50, maxDelayMs: 5_000, jitterMs: 50 };

/** A key as the broker has it; for one that is not there `value` is undefined and `version` is 0. */
export interface StateChange {
  readonly key: string;
  readonly value: unknown;
  readonly version: number;
}

/** Is called with a key that has changed. */
export type StateCallback = (change: StateChange) => void;

/** Makes the new value of the current one, which is undefined where there is none. */
export type MakeValue = (current: unknown) => unknown;

interface Watcher {
  readonly key: string | null; // null for all keys
  readonly callback: StateCallback;
  isStarted: boolean;
}

/**
 * The keys that begin with a prefix, by their full names, as they are now. It begins to follow the broker with its first
 * use.
 *
 * A read gives this program's own latest optimistic update of a key, or else the broker's value, and is remembered: a
 * change of the key is based on it. Values are frozen. While the broker is away the state stays as it was, and catches up
 * afterwards.
 */
export class SharedState {
  /** The beginning of all its keys, with a dot at the end; empty for all keys. */
  readonly prefix: string;
  readonly #context: Context;
  readonly #resolvers: { readonly [prefix: string]: Resolver };
  readonly #replica = new Replica();
  readonly #handedOut = new HandedOut();
  readonly #watchers = new Set<Watcher>();
  readonly #sleeps = new Set<() => void>();
  readonly #turns = new Map<string, Promise<unknown>>(); // updates of one key are made in turn
  #following: Promise<void> | null = null;
  #readying: Promise<void> | null = null;
  #subscription: readonly [number, Mailbox] | null = null;
  #isReady = false;
  #fault: Error | null = null;
  #forget: () => void = () => undefined;
  #ended: (fault: Error) => void = () => undefined;

  /** Called by the client: see `Client.sharedState`. */
  constructor(context: Context, prefix: string, resolvers: { readonly [prefix: string]: Resolver }) {
    this.prefix = prefix;
    this.#context = context;
    this.#resolvers = { ...DEFAULT_RESOLVERS, ...resolvers };
  }

  // --- reading -------------------------------------------------------------------------------------------------------

  /** Resolves once the first snapshot has come. Raises what keeps it from coming. */
  ready(): Promise<void> {
    if (this.#fault !== null) return Promise.reject(this.#fault);
    this.#following ??= this.#begin();
    return this.#following;
  }

  /** Resolves once the first snapshot has come, however long the broker is away. Raises what will not pass. */
  readyAtLast(): Promise<void> {
    this.#readying ??= this.#readyAtLast().finally(() => {
      this.#readying = null;
    });
    return this.#readying;
  }

  /** Returns a key's value, undefined where there is none; waits for the first snapshot. */
  async get(key: string): Promise<unknown> {
    this.#checkKey(key);
    await this.ready();
    return this.peek(key);
  }

  /** Returns a key's value as far as it is known: undefined where there is none, and before the first snapshot. */
  peek(key: string): unknown {
    this.#checkKey(key);
    if (!this.#isReady) return undefined;
    const value = this.#replica.visible(key);
    this.#handedOut.give(key, this.#versioned(key, value));
    return shownValue(value);
  }

  /** Returns the names of all known keys, in order. */
  keys(): string[] {
    return this.#replica.visibleKeys();
  }

  /** Returns the broker's version of a key, 0 where it has none. Optimistic updates have no version yet. */
  version(key: string): number {
    return this.read(key).version;
  }

  /** Returns a key as the broker has it: its value and version, for `set(..., { baseVersion: version })`. */
  read(key: string): StateChange {
    this.#checkKey(key);
    const current = this.#replica.committed(key);
    this.#handedOut.note(key, current);
    return changeOf({ key, current });
  }

  /**
   * Calls `callback` with the key's present value once it is known, and then with each change that the broker has made,
   * in order of version, those by this program included. Without a key it is called for every key. Returns what ends that.
   */
  subscribe(key: string, callback: StateCallback): () => void;
  subscribe(callback: StateCallback): () => void;
  subscribe(first: string | StateCallback, second?: StateCallback): () => void {
    const key = typeof first === "string" ? first : null;
    const callback = typeof first === "string" ? second : first;
    if (typeof callback !== "function") {
      throw new TypeError("subscribe takes a function, or a key and a function");
    }
    if (key !== null) this.#checkKey(key);
    const watcher: Watcher = { key, callback, isStarted: false };
    this.#watchers.add(watcher);
    if (this.#isReady) this.#start(watcher);
    else this.readyAtLast().catch(() => undefined); // it is among the client's errors
    return () => {
      this.#watchers.delete(watcher);
    };
  }

  // --- writing -------------------------------------------------------------------------------------------------------

  /**
   * Sets a key. The change is based on the version that this program last read or wrote here, or on `baseVersion` (see
   * `read`); a key that it never read has its present version as base.
   *
   * The new value is visible here at once. It is visible to all once the broker has it on disk; then this resolves with
   * the value that the key has. If another client has changed the key since the base, the value goes to the resolver of
   * the key's prefix, up to 3 times with growing waits. If that does not succeed, or the broker refuses or does not
   * answer, the value is taken back here, and the error is raised: `StateConflict` after those 3 times or for changes that
   * cannot be joined.
   */
  async set(key: string, value: unknown, options: { readonly baseVersion?: number } = {}): Promise<unknown> {
    this.#checkKey(key);
    const { baseVersion } = options;
    if (baseVersion !== undefined && !(Number.isSafeInteger(baseVersion) && baseVersion >= 0)) {
      throw new TypeError(`baseVersion: expected the version of a value, 0 or more; ${shown(baseVersion)} came`);
    }
    const mine = copyOf(value);
    await this.ready();
    return this.#write(key, mine, null, this.#base(key, baseVersion));
  }

  /**
   * Sets a key to what `make` returns for its current value. If another client has changed the key meanwhile, `make` is
   * called again with the new one, up to 3 times. Otherwise as `set`.
   */
  async update(key: string, make: MakeValue): Promise<unknown> {
    this.#checkKey(key);
    if (typeof make !== "function") throw new TypeError(`update takes a function; ${shown(make)} came`);
    await this.ready();
    const first = copyOf(make(shownValue(this.#replica.visible(key))));
    return this.#write(key, first, make, null);
  }

  /** Removes a key at any version. It is gone here at once, and for all when this resolves. Raises `NotFound`. */
  async delete(key: string): Promise<void> {
    this.#checkKey(key);
    await this.ready();
    const updateId = this.#replica.beginUpdate(key, ABSENT_VALUE);
    try {
      await this.#inTurn(key, async () => {
        const { version } = await this.#context.answer("DeleteState", { key });
        this.#changed(this.#replica.confirmUpdate(key, updateId, version));
      });
      this.#handedOut.give(key, ABSENT);
    } finally {
      this.#replica.withdrawUpdate(key, updateId);
    }
  }

  /** Calls `ended` once the broker is followed no more, with the reason: a closed client, or a key that is denied. */
  whenEnded(ended: (fault: Error) => void): void {
    if (this.#fault === null) this.#ended = ended;
    else ended(this.#fault);
  }

  /** Follows the broker no more. Reads and writes raise a `ClosedError` from then on. */
  close(): void {
    this.#end(new ClosedError(`the shared state ${this.prefix}* is closed`));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  // --- following -----------------------------------------------------------------------------------------------------

  async #begin(): Promise<void> {
    this.#forget = this.#context.whenClosed(() => this.close());
    this.#subscription = this.#context.driver.open({ prefix: `state.${this.prefix}`, since: "latest" });
    try {
      await this.#takeSnapshot();
    } catch (error) {
      const fault = error instanceof Error ? error : new Error(String(error));
      if (this.#fault === null) this.#reset();
      throw fault;
    }
    this.#isReady = true;
    for (const watcher of [...this.#watchers]) this.#start(watcher);
    void this.#follow(this.#subscription[1]);
  }

  async #readyAtLast(): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        await this.ready();
        return;
      } catch (error) {
        if (this.#fault !== null || !(error instanceof BacktestrError && error.retriable)) throw error;
        await this.#context.sleep(backoff(RETRIES, attempt, this.#context.clock.random()), this.#sleeps);
      }
    }
  }

  /** Lets the next use begin anew, after a first snapshot that failed. */
  #reset(): void {
    if (this.#subscription !== null) this.#context.driver.shut(this.#subscription[0]);
    this.#subscription = null;
    this.#following = null;
    this.#forget();
  }

  async #follow(mailbox: Mailbox): Promise<void> {
    while (this.#fault === null) {
      await mailbox.wait();
      const delivery = mailbox.take();
      if (delivery === undefined) {
        if (mailbox.isEnded) this.#end(mailbox.error ?? new ClosedError("this client is closed"));
        continue;
      }
      try {
        this.#changed(this.#replica.receive(delivery));
      } catch (error) {
        this.#context.report(error, `state.${this.prefix}`);
      }
      for (let attempt = 1; this.#replica.needsSnapshot && this.#fault === null; attempt += 1) {
        try {
          await this.#takeSnapshot();
        } catch (error) {
          if (!(error instanceof BacktestrError)) break; // the client is closed
          await this.#context.sleep(backoff(RETRIES, attempt, this.#context.clock.random()), this.#sleeps);
        }
      }
    }
  }

  async #takeSnapshot(): Promise<void> {
    const reasons = this.#replica.beginSnapshot();
    const { entries, watermark } = await this.#context.answer("SnapshotState", { prefix: this.prefix });
    this.#changed(this.#replica.applySnapshot(reasons, entries, watermark));
  }

  #end(fault: Error): void {
    if (this.#fault !== null) return;
    this.#fault = fault;
    this.#watchers.clear();
    for (const end of [...this.#sleeps]) end();
    if (this.#subscription !== null) this.#context.driver.shut(this.#subscription[0]);
    this.#forget();
    this.#ended(fault);
  }

  // --- callbacks -----------------------------------------------------------------------------------------------------

  #start(watcher: Watcher): void {
    watcher.isStarted = true;
    const keys = watcher.key === null ? this.#replica.visibleKeys() : [watcher.key];
    for (const key of keys) this.#call(watcher, { key, current: this.#replica.committed(key) });
  }

  #changed(changes: readonly Committed[]): void {
    for (const change of changes) {
      for (const watcher of this.#watchers) {
        if (watcher.isStarted && (watcher.key === null || watcher.key === change.key)) this.#call(watcher, change);
      }
    }
  }

  /** Has a callback called, in the order of the calls of this, and after whoever made the change goes on. */
  #call(watcher: Watcher, change: Committed): void {
    queueMicrotask(() => {
      if (!this.#watchers.has(watcher)) return;
      this.#handedOut.give(change.key, change.current);
      try {
        watcher.callback(changeOf(change));
      } catch (error) {
        this.#context.report(error, "callback");
      }
    });
  }

  // --- within --------------------------------------------------------------------------------------------------------

  /** Returns what a key shows with its version; an optimistic update has none. */
  #versioned(key: string, visible: unknown): VersionedValue {
    const committed = this.#replica.committed(key);
    return Object.is(visible, committed.value) ? committed : { version: UNCONFIRMED, value: visible };
  }

  /** Returns the value on which a change by this program is based. */
  #base(key: string, version: number | undefined): VersionedValue {
    const committed = this.#replica.committed(key);
    if (version === undefined) return this.#handedOut.base(key) ?? committed;
    return version === committed.version ? committed : this.#handedOut.at(key, version);
  }

  #checkKey(key: unknown): void {
    if (typeof key !== "string") throw new TypeError(`a key is a text; ${shown(key)} came`);
    if (!key.startsWith(this.prefix)) {
      throw new TypeError(`${shown(key)} does not begin with ${this.prefix}, as all keys here do`);
    }
  }

  async #inTurn<Result>(key: string, work: () => Promise<Result>): Promise<Result> {
    const before = this.#turns.get(key) ?? Promise.resolve();
    const mine = before.catch(() => undefined).then(work);
    this.#turns.set(key, mine);
    try {
      return await mine;
    } finally {
      if (this.#turns.get(key) === mine) this.#turns.delete(key);
    }
  }

  async #write(key: string, first: unknown, make: MakeValue | null, base: VersionedValue | null): Promise<unknown> {
    const updateId = this.#replica.beginUpdate(key, first);
    try {
      const written = await this.#inTurn(key, () => this.#written(key, updateId, first, make, base));
      this.#handedOut.give(key, written);
      return shownValue(written.value);
    } finally {
      this.#replica.withdrawUpdate(key, updateId);
    }
  }

  /** Tries until the value is written or the resolver prefers the current one; returns the value that the key has. */
  async #written(
    key: string,
    updateId: number,
    first: unknown,
    make: MakeValue | null,
    given: VersionedValue | null,
  ): Promise<VersionedValue> {
    let base = given ?? this.#replica.committed(key);
    let mine = make === null ? first : copyOf(make(shownValue(base.value)));
    if (make !== null) this.#replica.reviseUpdate(key, updateId, mine);
    /** Finds the value to write instead; returns true when the key has that value already. */
    const resolve = (theirs: VersionedValue): boolean => {
      const resolved =
        make === null
          ? resolverFor(key, this.#resolvers)(mine, orNull(theirs.value), orNull(base.value))
          : make(shownValue(theirs.value));
      base = theirs;
      if (make === null && theirs.value === ABSENT_VALUE && resolved === null) return true;
      const next = copyOf(resolved);
      if (make === null && sameValue(next, theirs.value)) return true;
      mine = next;
      this.#replica.reviseUpdate(key, updateId, mine);
      return false;
    };
    if (base.version === UNCONFIRMED) {
      // Updates of one key are made in turn, so that one is confirmed, joined with another change, or withdrawn by now.
      const current = this.#replica.committed(key);
      if (sameValue(current.value, base.value)) base = current;
      else if (resolve(current)) return base;
    }
    for (let attempt = 0; attempt <= MAX_RETRIES; attempt += 1) {
      if (attempt > 0) {
        await this.#context.sleep(backoff(RETRIES, attempt, this.#context.clock.random()), this.#sleeps);
      }
      try {
        const request = { key, value: mine, expectedVersion: base.version };
        const { version } = await this.#context.answer("UpdateState", request);
        this.#changed(this.#replica.confirmUpdate(key, updateId, version));
        return { version, value: mine };
      } catch (error) {
        if (!(error instanceof StateConflict)) throw error;
        const theirs = currentOf(error);
        this.#changed(this.#replica.learn(key, theirs));
        if (resolve(theirs)) return theirs;
      }
    }
    throw new StateConflict(
      `${shown(key)} was changed by others each of the ${1 + MAX_RETRIES} times, and is at version ${base.version} now; ` +
        "what this program wanted was taken back",
      { currentVersion: base.version, currentValue: orNull(base.value) },
    );
  }
}

function currentOf(conflict: StateConflict): VersionedValue {
  const version = conflict.details?.currentVersion;
  if (typeof version !== "number" || version === 0) return ABSENT;
  return { version, value: frozen(conflict.details?.currentValue ?? null) };
}

/** Returns a frozen copy of a value. Raises a `TypeError` for one that cannot be sent. */
function copyOf(value: unknown): unknown {
  if (value === undefined) throw new TypeError("$.value: undefined is no value; give null, or delete the key");
  return frozen(decode(encode(value, "$.value", true)));
}

function shownValue(value: unknown): unknown {
  return value === ABSENT_VALUE ? undefined : value;
}

function orNull(value: unknown): unknown {
  return value === ABSENT_VALUE ? null : value;
}

function changeOf({ key, current }: Committed): StateChange {
  return { key, value: shownValue(current.value), version: current.version };
}
