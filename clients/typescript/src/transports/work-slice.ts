/**
 * Shares the event loop with everything else in this process.
 *
 * A reader loop over a backlog never lets timers run by itself: each `await` of a message that is there already resumes
 * before any timer (largest gap 2.8 to 3.1 s for a million messages). So all loops of a link count the time since this
 * turn of the event loop began, and give it up after 2 ms.
 */

/** Milliseconds of work in one turn of the event loop. */
const SLICE_MS = 2;

/** The work of one link in the present turn of the event loop. */
export class WorkSlice {
  #began = 0;
  #turn: Promise<void> | undefined;
  #isCounting = false;

  /** Notes that there is work now; the first call in a turn of the event loop begins to count. */
  begin(): void {
    if (this.#isCounting) return;
    this.#isCounting = true;
    this.#began = performance.now();
    this.#turn = new Promise((resolve) => {
      setImmediate(() => {
        this.#isCounting = false;
        resolve();
      });
    });
  }

  /** Returns a promise of the next turn if this one was used up, else undefined. */
  end(): Promise<void> | undefined {
    return performance.now() - this.#began < SLICE_MS ? undefined : this.#turn;
  }
}
