/** The shared state as drafts use it. */

import type { RemoteClient } from "@backtestr/client/page";
import type { DraftState } from "./drafts";

/** Returns the drafts' part of the client's shared state. */
export function sharedDrafts(client: RemoteClient): DraftState {
  const state = client.follow("app.draft.");
  return {
    // The last writer counts: a draft is one person's, and what was typed last is what is meant.
    set: (key, value) => state.set(key, value),
    subscribe: (key, callback) => state.subscribe(key, (change) => callback(change.value)),
  };
}
