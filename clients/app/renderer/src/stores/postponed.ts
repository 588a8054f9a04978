/** Deletions that wait a few seconds, in which they can be undone. Closing the page undoes them too. */

import { type Accessor, createSignal } from "solid-js";
import type { NoticesStore } from "./notices";

/** Milliseconds in which a deletion can be undone. */
export const UNDO_MS = 8_000;

export interface Postponed {
  /** The names of what is about to be deleted, which views leave out. */
  readonly pending: Accessor<ReadonlySet<string>>;
  /** Calls `act` in `UNDO_MS` unless that is undone; `what` begins the notice, such as `SYNTH 1m`. */
  start(names: readonly string[], what: string, act: () => Promise<void>): void;
}

export function createPostponed(notices: NoticesStore): Postponed {
  const [pending, setPending] = createSignal<ReadonlySet<string>>(new Set());
  function settle(names: readonly string[]): void {
    setPending((all) => new Set([...all].filter((one) => !names.includes(one))));
  }
  return {
    pending,
    start: (names, what, act) => {
      const added = names.filter((one) => !pending().has(one));
      if (added.length === 0) return;
      setPending((all) => new Set([...all, ...added]));
      const timer = setTimeout(() => void act().finally(() => settle(added)), UNDO_MS);
      const undo = (): void => {
        clearTimeout(timer);
        settle(added);
      };
      notices.show(`${what} will be deleted in ${UNDO_MS / 1000} seconds.`, {
        ms: UNDO_MS,
        action: { label: "Undo", run: undo },
      });
    },
  };
}
