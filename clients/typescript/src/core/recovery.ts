/**
 * `Recovery` is the policy by which a client retries, waits and stops sending, as one value.
 *
 * No clock, no chance: `backoff` computes the waits, `CircuitBreaker` keeps the circuit, `Session` acts.
 */

import { didYouMean } from "./near-miss.js";

/** The growth of waits from one try to the next. */
export type Backoff = "fixed" | "linear" | "exponential";

/** The recovery policy of one client; durations are in milliseconds. A request's own timeout bounds all that is done for it. */
export interface Recovery {
  /** The wait before the n-th retry: `baseDelayMs` ("fixed"), n times that ("linear"), or doubled ("exponential"). */
  readonly backoff: Backoff;
  /** The wait before the first retry, above 0. A longer one that the broker states counts instead. */
  readonly baseDelayMs: number;
  /** The longest wait, the jitter included. */
  readonly maxDelayMs: number;
  /** Up to so many milliseconds are added at random to each wait. */
  readonly jitterMs: number;
  /** The number of times that one request is sent because of faults of the broker or silence. Waiting for a busy one does not count. */
  readonly maxAttempts: number;
  /** A request without an answer for so long is resent under the same id, next after twice as long; null is never. */
  readonly resendAfterMs: number | null;
  /** After so many requests in a row without an answer, or with a fault of the broker, further ones fail at once. */
  readonly breakerFailures: number;
  /** The time until one request is tried then. */
  readonly breakerResetMs: number;
  /** Requests that may wait for a broker to come back; one more fails at once (`OfflineQueueFull`). */
  readonly offlineQueue: number;
  /** The client does what an error advises as automatic. If false, no request is retried on an error's advice. */
  readonly automatic: boolean;
}

/** The policy of a client that is given none. */
export const DEFAULT_RECOVERY: Recovery = {
  backoff: "exponential",
  baseDelayMs: 100,
  maxDelayMs: 5_000,
  jitterMs: 100,
  maxAttempts: 5,
  resendAfterMs: 5_000,
  breakerFailures: 5,
  breakerResetMs: 10_000,
  offlineQueue: 100,
  automatic: true,
};

const BACKOFFS: readonly string[] = ["fixed", "linear", "exponential"];

/** Returns the policy with these fields, and the defaults. Raises a `TypeError` or `RangeError` for a wrong one. */
export function recovery(given: Partial<Recovery> = {}): Recovery {
  const names = Object.keys(DEFAULT_RECOVERY);
  for (const name of Object.keys(given)) {
    if (!names.includes(name)) throw new TypeError(`recovery: unknown field ${name}${didYouMean(name, names)}`);
  }
  const stated = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const policy: Recovery = { ...DEFAULT_RECOVERY, ...stated };
  if (!BACKOFFS.includes(policy.backoff)) {
    throw new RangeError(`recovery.backoff: expected one of ${BACKOFFS.join(", ")}; ${String(policy.backoff)} came`);
  }
  for (const name of ["baseDelayMs", "maxDelayMs", "breakerResetMs"] as const)
    check(name, policy[name], "above 0", above0);
  check("jitterMs", policy.jitterMs, "0 or more", (value) => value >= 0);
  if (policy.resendAfterMs !== null) check("resendAfterMs", policy.resendAfterMs, "above 0, or null", above0);
  if (policy.baseDelayMs > policy.maxDelayMs) {
    throw new RangeError(`recovery.baseDelayMs: ${policy.baseDelayMs} is above maxDelayMs, ${policy.maxDelayMs}`);
  }
  for (const name of ["maxAttempts", "breakerFailures"] as const) {
    check(name, policy[name], "1 or more", (value) => value >= 1);
  }
  check("offlineQueue", policy.offlineQueue, "0 or more", (value) => value >= 0);
  if (typeof policy.automatic !== "boolean") throw new TypeError("recovery.automatic: expected true or false");
  return policy;
}

function above0(value: number): boolean {
  return value > 0;
}

function check(name: string, value: unknown, expected: string, isRight: (value: number) => boolean): void {
  const message = `recovery.${name}: expected a number ${expected}; ${String(value)} came`;
  if (typeof value !== "number") throw new TypeError(message);
  if (!Number.isFinite(value) || !isRight(value)) throw new RangeError(message);
}
