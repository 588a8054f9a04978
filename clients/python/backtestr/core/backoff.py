"""How long to wait before the next try: tenacity's strategies, made into seconds by a `Recovery`."""

from __future__ import annotations

from collections.abc import Callable

from tenacity import RetryCallState, Retrying
from tenacity.wait import wait_base, wait_exponential, wait_fixed, wait_incrementing, wait_random

from .recovery import Recovery

Delay = Callable[[int], float]


def wait_strategy(recovery: Recovery) -> wait_base:
    """The policy's back-off with its jitter, as tenacity takes it."""
    base, most = recovery.base_delay, recovery.max_delay
    match recovery.backoff:
        case "fixed":
            growing: wait_base = wait_fixed(base)
        case "linear":
            growing = wait_incrementing(start=base, increment=base, max=most)
        case "exponential":
            growing = wait_exponential(multiplier=base, max=most)
    return growing + wait_random(0, recovery.jitter)


def delays(recovery: Recovery) -> Delay:
    """A function that gives the seconds to wait before the n-th try after a failure, n = 1, 2, 3 …"""
    strategy = wait_strategy(recovery)
    state = RetryCallState(Retrying(), None, (), {})

    def delay(number: int) -> float:
        state.attempt_number = number
        return min(recovery.max_delay, float(strategy(state)))

    return delay
