/**
 * The backtests that a client follows to their end, and the requests for their status.
 *
 * The end of a backtest arrives on `system.backtests`. The broker is asked where that message may have been lost.
 */

import type { Ask } from "./effects.js";

/**
 * The backtests of which no end is known yet. A new backtest is asked for only once the broker has accepted it: its
 * start may still wait for a broker.
 */
export class FollowedBacktests {
  readonly #followed = new Set<string>();
  readonly #unstarted = new Set<string>(); // of those, the broker has not accepted these yet
  readonly #overdue = new Set<string>(); // of the unstarted, these are asked for once they have started

  has(backtestId: string): boolean {
    return this.#followed.has(backtestId);
  }

  /** Follows a backtest. One that `isNew` cannot have ended yet, and is not asked for. */
  follow(backtestId: string, isNew: boolean): Ask[] {
    this.#followed.add(backtestId);
    if (!isNew) return [statusRequest(backtestId)];
    this.#unstarted.add(backtestId);
    return [];
  }

  /** Notes that the broker has accepted a new backtest. */
  started(backtestId: string): Ask[] {
    this.#unstarted.delete(backtestId);
    return this.#overdue.delete(backtestId) ? [statusRequest(backtestId)] : [];
  }

  /** Forgets a backtest, if it is followed. */
  unfollow(backtestId: string): void {
    this.#followed.delete(backtestId);
    this.#unstarted.delete(backtestId);
    this.#overdue.delete(backtestId);
  }

  /** Asks for the status of every backtest, because messages that report an end may be lost. */
  askForAll(): Ask[] {
    for (const one of this.#unstarted) this.#overdue.add(one);
    return [...this.#followed]
      .filter((one) => !this.#unstarted.has(one))
      .sort()
      .map(statusRequest);
  }
}

/** Returns the effect that asks for the status of a backtest. */
export function statusRequest(backtestId: string): Ask {
  return {
    kind: "ask",
    requestType: "GetBacktestStatus",
    data: { backtestId },
    purpose: { kind: "status", backtestId },
  };
}
