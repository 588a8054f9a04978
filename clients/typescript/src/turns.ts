/**
 * Turns of the event loop: a reader that never waits gives them up in time, so that timers and I/O go on.
 *
 * `for await` over what has come already never lets a timer run by itself (the largest gap was 3 s in a flood).
 */

import type { Clock } from "./clock.js";

// Seconds of work after which the event loop has its turn. A link has its own part of it, and a collection of garbage comes on top.
const SLICE = 0.002;
// The clock is looked at once in so many calls: looking costs as much as reading a message.
const CALLS = 16;

/** The turns of one client, shared by all its readers. */
export class Turns {
  readonly #clock: Clock;
  #began = 0;
  #calls = 0;
  #turn: Promise<void> | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Notes that the event loop has just had its turn, such as when a message has come. */
  fresh(): void {
    this.#began = this.#clock.now();
  }

  /** Returns a promise to wait for before more work is done, or null while there is time. */
  due(): Promise<void> | null {
    if (this.#turn !== null) return this.#turn;
    this.#calls += 1;
    if (this.#calls < CALLS) return null;
    this.#calls = 0;
    if (this.#clock.now() - this.#began < SLICE) return null;
    this.#turn = this.#clock.turn().then(() => {
      this.#turn = null;
      this.fresh();
    });
    return this.#turn;
  }
}
