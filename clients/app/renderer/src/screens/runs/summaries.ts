/** The configurations and metrics of backtests, without their tables: read a few at a time, and kept. */

import type { RemoteClient } from "@backtestr/client/page";
import { createRoot, createSignal } from "solid-js";
import type { RunSummary } from "./run-rows";

/** Requests that are under way at once. */
const AT_ONCE = 3;
/** Summaries that are kept; the oldest gives way. */
const MOST = 5_000;

export interface Summaries {
  /**
   * Returns what is known of a backtest, and has it read if that is not; it is reactive. What was read before the end is
   * read again once it `hasEnded`.
   */
  of(id: string, hasEnded: boolean): RunSummary | undefined;
  /** Counts the summaries that came, so that a table can be sorted again. */
  revision(): number;
}

const byClient = new WeakMap<RemoteClient, Summaries>();

/** Returns the summaries of the page, which are kept while other screens are shown. */
export function summaries(client: RemoteClient): Summaries {
  const known = byClient.get(client);
  if (known !== undefined) return known;
  const made = createRoot(() => create(client));
  byClient.set(client, made);
  return made;
}

function create(client: RemoteClient): Summaries {
  const found = new Map<string, RunSummary>();
  const asked = new Map<string, boolean>(); // true if it was asked for after its end
  const queue: string[] = [];
  const [revision, setRevision] = createSignal(0);
  let running = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;

  function next(): void {
    while (running < AT_ONCE) {
      const id = queue.pop(); // the latest to come into sight is looked at now
      if (id === undefined) return;
      running += 1;
      void read(id).finally(() => {
        running -= 1;
        next();
      });
    }
  }
  async function read(id: string): Promise<void> {
    try {
      const { config, metrics } = await client.request("GetBacktestResults", { backtestId: id, tables: [] });
      found.set(id, { config, metrics });
      if (found.size > MOST) found.delete(found.keys().next().value as string);
      if (timer === undefined) timer = setTimeout(told, 50); // many come together
    } catch {
      // It is asked for again when its row comes into sight the next time.
      setTimeout(() => asked.delete(id), 5_000);
    }
  }
  function told(): void {
    timer = undefined;
    setRevision((now) => now + 1);
  }
  return {
    revision,
    of: (id, hasEnded) => {
      revision();
      const before = asked.get(id);
      if (before === undefined || (hasEnded && !before)) {
        asked.set(id, hasEnded);
        queue.push(id);
        queueMicrotask(next);
      }
      return found.get(id);
    },
  };
}
