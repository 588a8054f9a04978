"""How a client recovers, as one value: what it tries again and how often, how long it waits, and when it stops asking.

No I/O, no clock, no chance: `backoff` turns the waits into seconds, `breaker` keeps the circuit, `session` acts.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from backtestr_protocol.errors import NetworkError

Backoff = Literal["fixed", "linear", "exponential"]
BACKOFFS: tuple[Backoff, ...] = ("fixed", "linear", "exponential")


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """The policy of one client. Durations are in seconds; a request's own timeout bounds all that is done for it.

    `backoff`, `base_delay`, `max_delay`: the wait before the n-th try after a failure is `base_delay` ("fixed"), `n`
    times as long ("linear") or twice as long each time ("exponential"). Up to `jitter` seconds are added by chance, and
    the sum is at most `max_delay`. A broker that names a longer wait gets it. Connecting again goes by this rule too.

    `max_attempts`: how often one request is sent because of faults of the broker or silence. Waiting for a broker that
    is busy does not count: that ends with the request's timeout.

    `resend_after`: a request without an answer for so long is sent again under the same id, next after twice as long;
    None never. Nothing runs twice by it, and a request or answer that got lost on the way is made good.

    `breaker_failures`, `breaker_reset`: after so many requests in a row that failed for want of an answer or by the
    broker's own fault, further ones fail at once (`CircuitOpen`) until `breaker_reset` has passed; then one is tried.

    `offline_queue`: requests that may wait for a broker to come back; one more fails at once (`OfflineQueueFull`).

    `automatic`: whether what an error advises to do by itself (`error.recovery_actions`) is done. Without it nothing is
    tried again on an error's advice; the session itself is still kept up.
    """

    backoff: Backoff = "exponential"
    base_delay: float = 0.1
    max_delay: float = 5.0
    jitter: float = 0.1
    max_attempts: int = 5
    resend_after: float | None = 5.0
    breaker_failures: int = 5
    breaker_reset: float = 10.0
    offline_queue: int = 100
    automatic: bool = True

    def __post_init__(self) -> None:
        if self.backoff not in BACKOFFS:
            raise ValueError(f"backoff: expected one of {', '.join(map(repr, BACKOFFS))}; {self.backoff!r} came")
        for name in ("base_delay", "max_delay", "breaker_reset"):
            _check(name, getattr(self, name), "above 0", lambda value: 0 < value < math.inf)
        _check("jitter", self.jitter, "0 or more", lambda value: 0 <= value < math.inf)
        if self.resend_after is not None:
            _check("resend_after", self.resend_after, "above 0, or None", lambda value: 0 < value < math.inf)
        if self.base_delay > self.max_delay:
            raise ValueError(f"base_delay: {self.base_delay:g} is above max_delay, {self.max_delay:g}")
        for name in ("max_attempts", "breaker_failures"):
            _check(name, getattr(self, name), "1 or more", lambda value: value >= 1)
        _check("offline_queue", self.offline_queue, "0 or more", lambda value: value >= 0)


def _check(name: str, value: Any, expected: str, is_right: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not is_right(value):
        raise ValueError(f"{name}: expected a number {expected}; {value!r} came")


class OfflineQueueFull(NetworkError):
    """There is no broker, and as many requests as may wait for one are waiting. This one was not sent."""


class CircuitOpen(NetworkError):
    """The last requests all failed for want of an answer, so this one was not sent; `details` say when one is tried."""


class MessagesLost(NetworkError):
    """Messages of a topic are lost, and the broker no longer keeps them."""

    severity = "Warning"
