/** The shared state as drafts use it. */

import type { RemoteClient } from "@backtestr/client/page";
import type { DraftState } from "./drafts";

/** Returns the drafts' part of the client's shared state. */
export function sharedDrafts(client: RemoteClient): DraftState {
  return {
    ready: async () => {
      await client.ready();
    },
    peek: () => undefined,
    set: (key, value) => client.request("UpdateState", { key, value }),
    subscribe: (key, callback) => {
      void client.request("GetState", { key }).then(
        (entry) => callback(entry.value),
        () => undefined,
      );
      return () => undefined;
    },
  };
}
