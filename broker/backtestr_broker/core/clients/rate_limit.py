"""Limit the rate of requests with a token bucket for each client and priority.

A bucket holds up to `burst` tokens and gets `per_second` more; a request takes one, or is refused with the time at
which the next is there. In any stretch of t seconds no client is let through more than burst + per_second · t times.

A bucket is stored as the moment at which it will be full again (the generic cell rate algorithm: one number a bucket,
nothing to refill). One that is full is as good as new, so forgetting it changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import msgspec

from backtestr_protocol.errors import RateLimitExceeded
from backtestr_protocol.message_types import PRIORITIES, Priority

# Buckets of one priority: one for each session that may be open. Beyond, the one unused for the longest goes. As a rule
# it is full by then and nothing is lost. If it is not, the next new client takes over what it lacks: a client that
# changes its name for a fresh burst gets what another name has left, and forgetting never makes tokens.
MAX_BUCKETS = 1024
# Moments are integers in nanoseconds, so that sums are exact. They come as float seconds, good to a microsecond.
_SECOND = 1_000_000_000
_MILLISECOND = 1_000_000
_CLOCK_ERROR = 1_000


class Rate(msgspec.Struct, frozen=True):
    """A limit in requests a second, and at once (`burst`). `per_second` 0 is no limit."""

    per_second: int
    burst: int


class RateLimits:
    """The buckets of all clients. `hits` counts refusals by priority."""

    def __init__(self, rates: Mapping[Priority, Rate]) -> None:
        """Take the rate of each priority; one without a rate has no limit."""
        self._rates = {priority: rate for priority, rate in rates.items() if rate.per_second}
        self._full_at: dict[Priority, OrderedDict[str, int]] = {priority: OrderedDict() for priority in self._rates}
        self.hits: dict[Priority, int] = dict.fromkeys(PRIORITIES, 0)

    def admit(self, client_id: str, priority: Priority, now: float) -> None:
        """Let a request through. Raises `RateLimitExceeded`.

        A client that sends it again after `retryAfterMs`, and not before, finds a token, unless another request of the
        client takes it.
        """
        rate = self._rates.get(priority)
        if rate is None:
            return
        at = round(now * _SECOND)
        token = -(-_SECOND // rate.per_second)  # nanoseconds a token takes to come
        buckets = self._full_at[priority]
        full_at = buckets.pop(client_id, None)
        if full_at is None:
            full_at = _forget(buckets)
        missing = max(0, full_at - at)
        wait = missing + token - rate.burst * token
        if wait > _CLOCK_ERROR:
            buckets[client_id] = full_at
            self.hits[priority] += 1
            retry_after_ms = -(-wait // _MILLISECOND)
            raise RateLimitExceeded(
                f"more than {rate.per_second} requests of priority {priority} a second ({rate.burst} at once); "
                f"send it again in {retry_after_ms} ms",
                retryAfterMs=retry_after_ms,
                priority=priority,
            )
        buckets[client_id] = at + missing + token

    def check_invariants(self) -> None:
        for priority, buckets in self._full_at.items():
            assert len(buckets) <= MAX_BUCKETS, f"{len(buckets)} buckets of {priority}"


def _forget(buckets: OrderedDict[str, int]) -> int:
    """Make room for a new bucket, and return the moment at which that will be full."""
    if len(buckets) < MAX_BUCKETS:
        return 0
    _, full_at = buckets.popitem(last=False)
    return full_at
