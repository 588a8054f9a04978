/** The back-off is the wait before the next try, as a function of the policy, the attempt and a random number. */

import type { Recovery } from "./recovery.js";

// 2 ** 1024 is no number any more; the longest wait is reached long before.
const MAX_DOUBLINGS = 1_023;

/**
 * Returns the seconds to wait before try number `attempt` (1, 2, 3 …) after a failure.
 *
 * `chance` is a random number from 0 to 1: that share of the policy's jitter is added. The sum is at most `maxDelayMs`.
 */
export function backoff(policy: Recovery, attempt: number, chance: number): number {
  const wait = policy.baseDelayMs * factor(policy, attempt) + policy.jitterMs * chance;
  return Math.min(policy.maxDelayMs, wait) / 1000;
}

function factor(policy: Recovery, attempt: number): number {
  switch (policy.backoff) {
    case "fixed":
      return 1;
    case "linear":
      return attempt;
    case "exponential":
      return 2 ** Math.min(attempt - 1, MAX_DOUBLINGS);
  }
}
