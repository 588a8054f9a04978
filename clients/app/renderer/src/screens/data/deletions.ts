/** Deletions of series wait a few seconds, in which they can be undone. */

import type { RemoteClient } from "@backtestr/client/page";
import { type Accessor, createRoot, createSignal } from "solid-js";
import { messageOf } from "../../components/error-panel";
import type { Listing } from "../../stores/listing";
import type { NoticesStore } from "../../stores/notices";

/** Milliseconds in which a deletion can be undone. */
export const UNDO_MS = 8_000;

export interface Deletions {
  /** The series that are about to be deleted, as `symbol timeframe`. */
  readonly pending: Accessor<ReadonlySet<string>>;
  /** Deletes a series in `UNDO_MS`, unless that is undone or the page is closed before. */
  start(symbol: string, timeframe: string): void;
}

interface Means {
  readonly client: RemoteClient;
  readonly catalogue: Listing<unknown>;
  readonly notices: NoticesStore;
}

const byClient = new WeakMap<RemoteClient, Deletions>();

/** Returns the deletions of the page, which go on while another screen is shown. */
export function deletions(means: Means): Deletions {
  const known = byClient.get(means.client);
  if (known !== undefined) return known;
  const made = createRoot(() => create(means));
  byClient.set(means.client, made);
  return made;
}

function create({ client, catalogue, notices }: Means): Deletions {
  const [pending, setPending] = createSignal<ReadonlySet<string>>(new Set());
  function settle(name: string): void {
    setPending((all) => new Set([...all].filter((one) => one !== name)));
  }
  async function remove(symbol: string, timeframe: string): Promise<void> {
    try {
      await client.request("DeleteMarketData", { symbol, timeframe });
    } catch (error) {
      notices.show(`${symbol} ${timeframe} was not deleted: ${messageOf(error)}`, { kind: "error" });
    }
    await catalogue.refresh();
    settle(`${symbol} ${timeframe}`);
  }
  return {
    pending,
    start: (symbol, timeframe) => {
      const name = `${symbol} ${timeframe}`;
      if (pending().has(name)) return;
      setPending((all) => new Set([...all, name]));
      const timer = setTimeout(() => void remove(symbol, timeframe), UNDO_MS);
      const undo = (): void => {
        clearTimeout(timer);
        settle(name);
      };
      notices.show(`${name} will be deleted in ${UNDO_MS / 1000} seconds.`, {
        ms: UNDO_MS,
        action: { label: "Undo", run: undo },
      });
    },
  };
}
