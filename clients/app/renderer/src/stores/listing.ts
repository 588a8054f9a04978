/** A list of the broker that is read again after every reconnection, and when something has changed it. */

import { type Accessor, createSignal } from "solid-js";
import type { Loadable } from "./loadable";

export interface Listing<Value> {
  readonly state: Accessor<Loadable<Value>>;
  /** Reads it again. Calls during a read make one further read after it. */
  refresh(): Promise<void>;
  /** Changes the value at once, such as by a message that says what has changed. */
  change(make: (value: Value) => Value): void;
}

/** Makes a listing of `read`; `what` says in words what is waited for. */
export function createListing<Value>(what: string, read: () => Promise<Value>): Listing<Value> {
  const [state, setState] = createSignal<Loadable<Value>>({ state: "waiting", what, since: Date.now() });
  let reading: Promise<void> | undefined;
  let again = false;

  async function readOnce(): Promise<void> {
    const before = state();
    if (before.state === "failed") setState({ state: "waiting", what, since: Date.now() });
    try {
      const value = await read();
      setState({ state: "there", value });
    } catch (error) {
      // What was read before stays in sight, with the reason why it is old.
      if (before.state === "there") setState({ ...before, error });
      else setState({ state: "failed", what, error });
    }
  }

  async function refresh(): Promise<void> {
    if (reading !== undefined) {
      again = true;
      return reading;
    }
    reading = readOnce();
    await reading;
    reading = undefined;
    if (again) {
      again = false;
      await refresh();
    }
  }

  return {
    state,
    refresh,
    change: (make) => {
      setState((now) => (now.state === "there" ? { state: "there", value: make(now.value) } : now));
      if (reading !== undefined) again = true; // the answer under way may be older than this change
    },
  };
}
