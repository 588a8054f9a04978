"""`Recovery` is the policy by which a client retries, waits and stops sending, as one value.

No I/O, no clock, no chance: `backoff` computes the waits, `circuit_breaker` keeps the circuit, `session` acts.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from backtestr_protocol.errors import NetworkError

Backoff = Literal["fixed", "linear", "exponential"]
BACKOFFS: tuple[Backoff, ...] = ("fixed", "linear", "exponential")


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """The recovery policy of one client; durations are in seconds.

    A request's own timeout bounds everything that is done for it.

    `backoff`, `base_delay`, `max_delay`: the wait before the n-th retry is `base_delay` ("fixed"), `n` times as long
    ("linear") or twice as long each time ("exponential"). Up to `jitter` seconds are added at random, and the sum is at
    most `max_delay`. If the broker states a longer wait, that one counts. Reconnecting follows the same rule.

    `max_attempts`: how often one request is sent because of faults of the broker or silence. Waiting for a busy broker
    does not count: it ends with the request's timeout.

    `resend_after`: a request without an answer for so long is resent under the same id, next after twice as long; None
    means never. Nothing is executed twice, because the broker knows the id. A lost request or answer is thus replaced.

    `breaker_failures`, `breaker_reset`: after so many requests in a row without an answer, or with a fault of the
    broker, further ones fail at once (`CircuitOpen`) until `breaker_reset` has passed; then one is tried.

    `offline_queue`: requests that may wait for a broker to come back; one more fails at once (`OfflineQueueFull`).

    `automatic`: the client does what an error advises as automatic (`error.recovery_actions`). If False, no request is
    retried on an error's advice; the session itself is still kept up.
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
    """The offline queue is full: there is no broker, and this request was not sent."""


class CircuitOpen(NetworkError):
    """The circuit breaker is open after failures in a row: this request was not sent.

    `details.retryAfterMs` says when one is tried.
    """


class MessagesLost(NetworkError):
    """Messages of a topic are lost, and the broker no longer retains them."""


class Recovered(NetworkError):
    """No error, but the end of one: the client is connected again, or has the messages that were missing."""

    severity = "Info"
    advice = ()
