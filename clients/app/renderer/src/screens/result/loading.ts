/** A value that is read once, and again on request, as a signal. */

import { type Accessor, createSignal, onCleanup } from "solid-js";
import type { Loadable } from "../../stores/loadable";

/** A value with what reads it again. */
export interface Reading<Value> {
  readonly state: Accessor<Loadable<Value>>;
  readonly again: () => void;
}

/** Reads at once. `what` says in words what is waited for. What comes after the owner has gone is dropped. */
export function createReading<Value>(what: string, read: () => Promise<Value>): Reading<Value> {
  const waiting = (): Loadable<Value> => ({ state: "waiting", what, since: Date.now() });
  const [state, setState] = createSignal<Loadable<Value>>(waiting());
  let isOver = false;
  let last = 0;
  onCleanup(() => {
    isOver = true;
  });
  function again(): void {
    last += 1;
    const own = last;
    const isOld = (): boolean => isOver || own !== last;
    setState(waiting());
    read().then(
      (value) => {
        if (!isOld()) setState({ state: "there", value });
      },
      (error: unknown) => {
        if (!isOld()) setState({ state: "failed", what, error });
      },
    );
  }
  again();
  return { state, again };
}
