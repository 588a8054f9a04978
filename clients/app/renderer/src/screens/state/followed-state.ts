/** The shared state as a screen shows it: what is known, told at most so often as people can read. */

import type { RemoteClient, StateChange } from "@backtestr/client/page";
import { type Accessor, createSignal, onCleanup } from "solid-js";

export interface FollowedKey extends StateChange {
  /** When this page saw it change, in milliseconds since 1970; undefined if it has not since the page looks. */
  readonly changedAt: number | undefined;
}

export interface FollowedState {
  readonly ready: Accessor<boolean>;
  readonly failure: Accessor<unknown>;
  /** All keys in order, again at each change. */
  readonly keys: Accessor<readonly FollowedKey[]>;
}

/** Milliseconds between two lists. */
const PAUSE_MS = 200;

/** Follows all keys until the owner is disposed of. */
export function followedState(client: RemoteClient): FollowedState {
  const [ready, setReady] = createSignal(false);
  const [failure, setFailure] = createSignal<unknown>();
  const [keys, setKeys] = createSignal<readonly FollowedKey[]>([]);
  const known = new Map<string, FollowedKey>();
  const state = client.follow();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let began = false;

  function show(): void {
    timer = undefined;
    setKeys([...known.values()].sort((one, other) => (one.key < other.key ? -1 : 1)));
  }
  const off = state.subscribe((change) => {
    const before = known.get(change.key);
    if (before !== undefined && before.version === change.version) return;
    if (change.value === undefined) known.delete(change.key);
    else known.set(change.key, { ...change, changedAt: began ? Date.now() : undefined });
    timer ??= setTimeout(show, PAUSE_MS);
  });
  state.ready().then(
    () =>
      // The present values are told in the microtasks that follow this one.
      setTimeout(() => {
        began = true;
        clearTimeout(timer);
        show();
        setReady(true);
      }, 0),
    setFailure,
  );
  onCleanup(() => {
    off();
    clearTimeout(timer);
    state.close();
  });
  return { ready, failure, keys };
}
