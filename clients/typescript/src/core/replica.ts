/**
 * A replica is a client's copy of a part of the shared state, with this program's optimistic updates laid over it.
 *
 * It receives stream deliveries, snapshots and the answers to this program's own changes, in any order in which the
 * network brings them, and says which keys changed and whether it needs another snapshot. Two rules keep it correct: of
 * one key the higher version wins; and a snapshot contains every change up to its watermark, so a key that it lacks is
 * deleted unless something later is known of that key (PROTOCOL.md, section 8).
 *
 * An optimistic update is visible at once, until it is confirmed or withdrawn. Values are frozen.
 */

import type { StateEntry, StateUpdate } from "../generated/contracts.js";
import { isMap, isWhole } from "./codec.js";
import type { Delivery } from "./effects.js";
import { ValidationError } from "./errors.js";
import { unpack } from "./msgpack-decoder.js";
import { byCodePoint } from "./msgpack-encoder.js";
import { frozen, sameValue } from "./values.js";

/** Stands for a key that is not there: null is a value. */
export const ABSENT_VALUE: unique symbol = Symbol("no such key");

/**
 * A key's value at a version; `value` is `ABSENT_VALUE` where the key is deleted or never was. The version of a key that
 * never was is 0.
 */
export interface VersionedValue {
  readonly version: number;
  readonly value: unknown;
}

/** A key that is not there. */
export const ABSENT: VersionedValue = { version: 0, value: ABSENT_VALUE };

/** A change of a key that the broker has made: `current` is the value it has now. */
export interface Committed {
  readonly key: string;
  readonly current: VersionedValue;
}

/**
 * The latest that is known of a key, from a stream message, a snapshot or an answer. `revision` is null where the source
 * is the answer to a change of this program, which carries none; then `begun` counts the snapshots that had been
 * requested before that answer came.
 */
interface Known {
  readonly current: VersionedValue;
  readonly revision: number | null;
  readonly begun: number;
}

/** A copy of the keys under a prefix; deleted keys keep their version, as in the broker, which bounds all keys. */
export class Replica {
  #known = new Map<string, Known>();
  #watermark = 0;
  // What came since a restart of the broker, until the first snapshot. Older knowledge does not count then: the broker
  // may have another state.
  #sinceRestart: Map<string, Known> | null = null;
  #reasons = 1; // reasons to request a snapshot so far; the first is that there is no state yet
  #settled = 0; // of these, how many the last snapshot has settled
  #begun = 0;
  #updateIds = 0;
  readonly #updates = new Map<string, Map<number, unknown>>(); // optimistic updates of each key, the latest last

  // --- reading -------------------------------------------------------------------------------------------------------

  /** Returns the key as the broker has it; version 0 when it is not there. */
  committed(key: string): VersionedValue {
    return present(this.#known.get(key));
  }

  /** Returns the value that the program sees: its own latest optimistic update, or else the broker's value. */
  visible(key: string): unknown {
    const updates = this.#updates.get(key);
    return updates === undefined ? this.committed(key).value : [...updates.values()].at(-1);
  }

  /** Returns the keys that the program sees, in order of their names. */
  visibleKeys(): string[] {
    const names = new Set([...this.#known.keys(), ...this.#updates.keys()]);
    return [...names].filter((key) => this.visible(key) !== ABSENT_VALUE).sort(byCodePoint);
  }

  // --- following the broker ------------------------------------------------------------------------------------------

  /** True while the replica may lack a change that only a snapshot can show. */
  get needsSnapshot(): boolean {
    return this.#reasons > this.#settled;
  }

  /**
   * Takes a delivery of the subscription to `state.…`, which began with the latest message of each topic. Raises a
   * `MessageError` for a message that cannot be read; then a snapshot is needed.
   */
  receive(delivery: Delivery): Committed[] {
    switch (delivery.kind) {
      case "message":
        return this.#updated(this.#read(delivery.data));
      case "restarted":
        this.#sinceRestart = new Map();
        this.#reasons += 1;
        return [];
      case "gap":
      case "maybeLost":
        this.#reasons += 1;
        return [];
      case "batch":
        return []; // topics of the state are delivered message by message
    }
  }

  #read(packed: unknown): StateUpdate {
    this.#reasons += 1; // unless the message can be read
    const data = unpack(packed);
    if (!isStateUpdate(data)) {
      throw new ValidationError("$.payload.data: expected StateUpdate", { path: "$.payload.data" });
    }
    this.#reasons -= 1;
    return data;
  }

  /** Notes that a snapshot is requested now; returns the value to give to `applySnapshot` with the answer. */
  beginSnapshot(): number {
    this.#begun += 1;
    return this.#reasons;
  }

  /** Takes the answer to the request that the last `beginSnapshot` noted and that returned `reasons`. */
  applySnapshot(reasons: number, entries: readonly StateEntry[], watermark: number): Committed[] {
    const before = this.#known;
    const earlier = this.#sinceRestart ?? before;
    this.#known = new Map([...earlier].map(([key, known]) => [key, this.#withoutEntry(known, watermark)]));
    for (const { key, version, value } of entries) {
      const known = earlier.get(key);
      if (known !== undefined && version < known.current.version) continue;
      this.#known.set(key, { current: { version, value: frozen(value) }, revision: watermark, begun: 0 });
    }
    this.#watermark = watermark;
    this.#sinceRestart = null;
    this.#settled = reasons;
    return [...new Set([...before.keys(), ...this.#known.keys()])]
      .filter((key) => !isSame(present(before.get(key)), present(this.#known.get(key))))
      .sort(byCodePoint)
      .map((key) => ({ key, current: this.committed(key) }));
  }

  /** Returns what is known of a key that a snapshot lacks: what is later than the snapshot, or its deletion. */
  #withoutEntry(known: Known, watermark: number): Known {
    const isLater = known.revision === null ? known.begun >= this.#begun : known.revision > watermark;
    if (isLater) return known;
    return { current: { version: known.current.version, value: ABSENT_VALUE }, revision: watermark, begun: 0 };
  }

  #updated(update: StateUpdate): Committed[] {
    const isInSnapshot = this.#sinceRestart === null && update.revision <= this.#watermark;
    // The snapshot contains this change. If its version is later than the snapshot's, the key was deleted by then.
    const value = update.deleted === true || isInSnapshot ? ABSENT_VALUE : frozen(update.value);
    return this.#take(update.key, { current: { version: update.version, value }, revision: update.revision, begun: 0 });
  }

  #take(key: string, now: Known): Committed[] {
    const latest = this.#sinceRestart ?? this.#known;
    const known = latest.get(key);
    if (known !== undefined && now.current.version <= known.current.version) return [];
    latest.set(key, now);
    if (this.#sinceRestart !== null || isSame(present(known), present(now))) return [];
    return [{ key, current: this.committed(key) }];
  }

  // --- optimistic updates --------------------------------------------------------------------------------------------

  /** Shows `value` (`ABSENT_VALUE`: the key is deleted) at once; returns the id of this optimistic update. */
  beginUpdate(key: string, value: unknown): number {
    this.#updateIds += 1;
    const updates = this.#updates.get(key);
    if (updates === undefined) this.#updates.set(key, new Map([[this.#updateIds, value]]));
    else updates.set(this.#updateIds, value);
    return this.#updateIds;
  }

  /** Shows `value` instead. */
  reviseUpdate(key: string, updateId: number, value: unknown): void {
    this.#updates.get(key)?.set(updateId, value);
  }

  /** Takes the broker's answer that it has made the change, at `version`. */
  confirmUpdate(key: string, updateId: number, version: number): Committed[] {
    const value = this.#updates.get(key)?.get(updateId);
    this.withdrawUpdate(key, updateId);
    return this.#take(key, { current: { version, value }, revision: null, begun: this.#begun });
  }

  /** Shows the broker's value again. This has no effect on an update that is confirmed. */
  withdrawUpdate(key: string, updateId: number): void {
    const updates = this.#updates.get(key);
    updates?.delete(updateId);
    if (updates?.size === 0) this.#updates.delete(key);
  }

  /** Takes the value that the broker states when it refuses a change of this key. */
  learn(key: string, current: VersionedValue): Committed[] {
    return current.version > 0 ? this.#take(key, { current, revision: null, begun: this.#begun }) : [];
  }
}

function present(known: Known | undefined): VersionedValue {
  return known === undefined || known.current.value === ABSENT_VALUE ? ABSENT : known.current;
}

function isSame(one: VersionedValue, other: VersionedValue): boolean {
  return one.version === other.version && sameValue(one.value, other.value);
}

function isStateUpdate(data: unknown): data is StateUpdate {
  return isMap(data) && typeof data.key === "string" && isWhole(data.version) && isWhole(data.revision);
}
