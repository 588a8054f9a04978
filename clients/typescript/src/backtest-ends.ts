/** Whoever waits for the end of a backtest, by its id. */

import type { BacktestStatus } from "./generated/contracts.js";

interface End {
  resolve(status: BacktestStatus): void;
  reject(error: Error): void;
}

/** The ends of backtests that are waited for. */
export class BacktestEnds {
  readonly #ends = new Map<string, End[]>();

  /** The ids of the backtests whose end is waited for. */
  get ids(): string[] {
    return [...this.#ends.keys()];
  }

  /** Resolves with the final status of a backtest, or rejects with the error that no end will be known. */
  wait(backtestId: string): Promise<BacktestStatus> {
    return new Promise((resolve, reject) => {
      const ends = this.#ends.get(backtestId) ?? [];
      this.#ends.set(backtestId, ends);
      ends.push({ resolve, reject });
    });
  }

  /** Tells everyone who waits for this backtest. */
  finish(backtestId: string, outcome: BacktestStatus | Error): void {
    const ends = this.#ends.get(backtestId) ?? [];
    this.#ends.delete(backtestId);
    for (const end of ends) {
      if (outcome instanceof Error) end.reject(outcome);
      else end.resolve(outcome);
    }
  }

  /** Tells everyone that no end will be known. */
  abandon(error: Error): void {
    for (const backtestId of this.ids) this.finish(backtestId, error);
  }
}
