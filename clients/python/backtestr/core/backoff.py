"""The back-off is the wait before the next try, as a function of the policy, the attempt and a random number."""

from __future__ import annotations

from .recovery import Recovery

# 2.0 ** 1024 is no float any more; the longest wait is reached long before.
MAX_DOUBLINGS = 1_023


def backoff(policy: Recovery, attempt: int, chance: float) -> float:
    """Return the seconds to wait before try number `attempt` (1, 2, 3 …) after a failure.

    `chance` is a random number from 0 to 1: that share of the policy's jitter is added. The sum is at most `max_delay`.
    """
    match policy.backoff:
        case "fixed":
            factor = 1.0
        case "linear":
            factor = float(attempt)
        case "exponential":
            factor = 2.0 ** min(attempt - 1, MAX_DOUBLINGS)
    return min(policy.max_delay, policy.base_delay * factor + policy.jitter * chance)
