/**
 * The positions of a backtest, each once, across a restart of the broker.
 *
 * The positions of a backtest that ran when its broker ended are read again from the first under the next broker. The
 * changes are the same again, maybe under other sequence numbers, since the marks between them follow the clock.
 */

import type { PositionUpdate } from "../generated/contracts.js";
import { sameValue } from "./values.js";

/** The positions that were read of one backtest: after a restart they tell which ones are new. */
export class PositionOrder {
  #changed: PositionUpdate | null = null; // the last change that was read
  #latest = 0; // the latest time that was read
  #isBehind = false; // true until the last change comes again
  #resumesAfter: number | null = null; // marks up to this time were read, or later ones

  /** Notes that the positions are read again from the first. */
  restarted(): void {
    this.#isBehind = this.#changed !== null;
    this.#resumesAfter = this.#latest;
  }

  /** Returns false for an update that was read before the restart, and takes any other as read. */
  isNew(update: PositionUpdate): boolean {
    if (!(update.mark === true ? this.#isNewMark(update.timestamp) : this.#isNewChange(update))) return false;
    this.#latest = Math.max(this.#latest, update.timestamp);
    return true;
  }

  #isNewMark(timestamp: number): boolean {
    if (this.#resumesAfter !== null && timestamp <= this.#resumesAfter) return false;
    this.#resumesAfter = null;
    return true;
  }

  #isNewChange(update: PositionUpdate): boolean {
    const last = this.#changed;
    if (this.#isBehind && last !== null && update.timestamp <= last.timestamp) {
      this.#isBehind = !sameValue(update, last);
      return false;
    }
    this.#isBehind = false; // also where the last change was lost on the way
    this.#changed = update;
    return true;
  }
}
