/** A shared state that is followed and written by a program in another thread or process. */

import type { SharedState, StateChange } from "../state.js";
import { type StateItem, type StateWrite, thrown } from "./messages.js";

/** A stream whose reader may also write. */
export interface WritableStream {
  /** Ends it. */
  close(): void;
  /** Makes a change that the reader wants. */
  write(write: StateWrite): void;
}

/**
 * Gives the present values, null once all of them were given, and then changes and the ends of writes.
 *
 * Of a key that changes several times before its reader has taken the last parcel, the latest value is given: so there
 * are never more changes here than keys. The end of a write comes after the change that it made.
 */
export async function* servedState(
  state: SharedState,
  stream: WritableStream,
): AsyncGenerator<readonly (StateItem | null)[]> {
  const changes = new Map<string, StateChange>();
  const written = new Map<string, number>(); // the version that a key had after the reader's last write
  const underway = new Map<string, number>(); // the number of the reader's writes of a key
  let ends: StateItem[] = [];
  let wake = (): void => undefined;
  let isShut = false;
  let fault: Error | undefined;

  async function made({ number, key, value, base }: StateWrite): Promise<void> {
    underway.set(key, (underway.get(key) ?? 0) + 1);
    try {
      let now: unknown;
      if (value === undefined) await state.delete(key);
      else now = await state.set(key, value, baseOf(key, base));
      written.set(key, state.version(key));
      ends.push({ kind: "written", number, value: now });
    } catch (error) {
      ends.push({ kind: "failed", number, error: thrown(error) });
    }
    const left = (underway.get(key) ?? 1) - 1;
    if (left > 0) underway.set(key, left);
    else underway.delete(key);
    wake();
  }

  /** Returns the option that says on which value a write is based. */
  function baseOf(key: string, base: StateWrite["base"]): { baseVersion?: number } {
    if (typeof base === "number") return { baseVersion: base };
    if (base === null) return {};
    const version = underway.get(key) === 1 ? written.get(key) : undefined;
    if (version !== undefined) return { baseVersion: version }; // the reader has not had the end of that write yet
    state.peek(key); // the write before is the base, as the replica shows it
    return {};
  }

  stream.write = (write): void => void made(write);
  const shut = new Promise<void>((resolve) => {
    stream.close = (): void => {
      isShut = true;
      resolve();
      wake();
    };
  });
  state.whenEnded((error) => {
    fault = error;
    wake();
  });
  state.subscribe((change) => {
    changes.set(change.key, change);
    wake();
  });
  try {
    await Promise.race([state.readyAtLast(), shut]);
    yield [...taken(), null];
    while (!isShut) {
      const items = taken();
      if (items.length > 0) yield items;
      else if (fault !== undefined) throw fault;
      else await woken();
    }
  } finally {
    state.close();
  }

  function taken(): StateItem[] {
    const items: StateItem[] = [...changes.values()].map((change) => ({ kind: "change", ...change }));
    changes.clear();
    items.push(...ends);
    ends = [];
    return items;
  }

  function woken(): Promise<void> {
    return new Promise((resolve) => {
      wake = resolve;
    });
  }
}
