/** The backtests that the broker knows: read once, then kept up to date by `system.backtests`. */

import type { BacktestProgress, BacktestStatus, RemoteClient } from "@backtestr/client/page";
import { createListing, type Listing } from "./listing";
import { keepReading } from "./reading";

export interface BacktestsStore extends Listing<readonly BacktestStatus[]> {
  /** Forgets a backtest that was deleted. */
  forget(id: string): void;
}

const PROGRESS_MS = 250;

/** Follows the backtests for as long as the page lives. */
export function createBacktests(client: RemoteClient): BacktestsStore {
  const listing = createListing("the broker's list of backtests", async () => {
    const { backtests } = await client.request("ListBacktests", {});
    return backtests;
  });
  keepReading(
    () => client.subscribe("system.backtests"),
    (received) => {
      if (received.kind === "update") listing.change((known) => withStatus(known, received.data));
      else void listing.refresh();
    },
  );
  // Progress comes up to twenty times a second for each backtest; a list that changes four times a second reads well.
  const progresses = new Map<string, BacktestProgress>();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const showProgress = (): void => {
    timer = undefined;
    const latest = [...progresses.values()];
    progresses.clear();
    listing.change((known) => latest.reduce(withProgress, known));
  };
  keepReading(
    () => client.subscribe("progress."),
    (received) => {
      if (received.kind !== "update" || "sweepId" in received.data) return; // sweeps have the same topics
      progresses.set(received.data.backtestId, received.data);
      if (timer === undefined) timer = setTimeout(showProgress, PROGRESS_MS);
    },
  );
  return {
    ...listing,
    forget: (id) => listing.change((known) => known.filter((one) => one.backtestId !== id)),
  };
}

/** Returns the list with a new status; a backtest that is not in it comes first. */
export function withStatus(known: readonly BacktestStatus[], status: BacktestStatus): readonly BacktestStatus[] {
  const at = known.findIndex((one) => one.backtestId === status.backtestId);
  return at < 0 ? [status, ...known] : known.with(at, status);
}

/** Returns the list with the progress of one that runs; the same list where nothing has changed. */
export function withProgress(known: readonly BacktestStatus[], progress: BacktestProgress): readonly BacktestStatus[] {
  const at = known.findIndex((one) => one.backtestId === progress.backtestId);
  const status = known[at];
  if (status === undefined || status.status !== "running" || status.progressPercent >= progress.progressPercent) {
    return known;
  }
  return known.with(at, { ...status, progressPercent: progress.progressPercent });
}
