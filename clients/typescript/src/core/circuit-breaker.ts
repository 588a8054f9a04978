/**
 * The circuit breaker fails requests at once after several in a row have failed, and tries one after a time.
 *
 * `now` is monotonic, in seconds.
 */

import {
  type BacktestrError,
  Busy,
  CircuitOpen,
  NetworkError,
  OfflineQueueFull,
  RateLimitExceeded,
  SystemFault,
  TimedOut,
} from "./errors.js";
import type { Recovery } from "./recovery.js";

/** `closed`: every request is sent. `open`: none is. `halfOpen`: one is, and its outcome decides. */
export type CircuitState = "closed" | "open" | "halfOpen";

/**
 * `succeeded`: a working broker answered, or opened a session. `failed`: a request failed, and fewer than
 * `breakerFailures` in a row. `tripped`: so many in a row have failed. `elapsed`: `breakerResetMs` has passed since.
 */
export type CircuitEvent = "succeeded" | "failed" | "tripped" | "elapsed";

/** Every transition of the circuit. */
export const CIRCUIT: { readonly [from in CircuitState]: { readonly [event in CircuitEvent]: CircuitState } } = {
  closed: { succeeded: "closed", failed: "closed", tripped: "open", elapsed: "closed" },
  open: { succeeded: "closed", failed: "open", tripped: "open", elapsed: "halfOpen" },
  halfOpen: { succeeded: "closed", failed: "open", tripped: "open", elapsed: "halfOpen" },
};

// The errors of a broker that is absent or unwell. Any other error is an answer of a broker that works.
const FAILURES = [NetworkError, TimedOut, SystemFault, Busy, RateLimitExceeded];

/**
 * Returns true if a request that ended so was not served, and trying again later may help. An error that a person must
 * mend first, such as a full disk, does not keep other requests from being sent.
 */
export function isFailure(error: BacktestrError | null): boolean {
  return error !== null && FAILURES.some((one) => error instanceof one) && error.retriable;
}

/** The circuit breaker of one client, for the requests of its program. */
export class CircuitBreaker {
  readonly #policy: Recovery;
  #state: CircuitState = "closed";
  #failures = 0; // in a row
  #lastFailure: BacktestrError | null = null;
  #resetAt = 0; // when an open circuit lets one request through
  #trial: string | null = null; // the request that is tried while half-open

  constructor(policy: Recovery) {
    this.#policy = policy;
  }

  /** Returns the state at `now`: an open circuit becomes half-open by time alone. */
  state(now: number): CircuitState {
    if (this.#state === "open" && this.#resetAt <= now) this.#state = CIRCUIT[this.#state].elapsed;
    return this.#state;
  }

  /** Returns the error of a request that may not be sent now, or null where one may. */
  refusal(now: number): CircuitOpen | null {
    const state = this.state(now);
    if (state === "closed" || (state === "halfOpen" && this.#trial === null)) return null;
    const seconds = Math.max(0, Math.ceil(this.#resetAt - now));
    const next = state === "halfOpen" ? "one is being tried" : `the next is tried in ${seconds} s`;
    return new CircuitOpen(
      `not sent: the last ${this.#policy.breakerFailures} requests or more failed, the latest with: ` +
        `${this.#lastFailure?.message}; ${next}`,
      { retryAfterMs: 1000 * seconds },
    );
  }

  /** Notes that a request is sent, as `refusal` allowed. */
  sent(requestId: string, now: number): void {
    if (this.state(now) === "halfOpen") this.#trial = requestId;
  }

  /** Notes that a request was answered (null), or failed with `error`. */
  ended(requestId: string, error: BacktestrError | null, now: number): void {
    if (requestId === this.#trial) this.#trial = null;
    if (error instanceof OfflineQueueFull) return; // it was not tried
    if (!isFailure(error)) {
      this.#succeed();
      return;
    }
    this.#failures += 1;
    this.#lastFailure = error;
    const isTripped = this.#failures >= this.#policy.breakerFailures;
    this.#state = CIRCUIT[this.state(now)][isTripped ? "tripped" : "failed"];
    if (this.#state === "open") this.#resetAt = now + this.#policy.breakerResetMs / 1000;
  }

  /** Closes the circuit: the broker has opened a session, and earlier failures no longer count. */
  welcomed(): void {
    this.#trial = null;
    this.#succeed();
  }

  #succeed(): void {
    this.#state = CIRCUIT[this.#state].succeeded;
    this.#failures = 0;
    this.#lastFailure = null;
  }
}
