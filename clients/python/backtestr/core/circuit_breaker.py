"""The circuit breaker fails requests at once after several in a row have failed, and tries one after a time.

The I/O thread alone uses it, because that thread sees every request and every outcome. `now` is monotonic, in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from backtestr_protocol.errors import BacktestrError, Busy, NetworkError, RateLimitExceeded, SystemFault, TimedOut

from .recovery import CircuitOpen, OfflineQueueFull, Recovery

# The errors of a broker that is absent or unwell. Any other error is an answer of a broker that works.
FAILURES = (NetworkError, TimedOut, SystemFault, Busy, RateLimitExceeded)

# `closed`: every request is sent. `open`: none is. `half_open`: one is, and its outcome decides.
CircuitState = Literal["closed", "open", "half_open"]

# `succeeded`: a working broker answered, or opened a session. `failed`: a request failed, and fewer than
# `breaker_failures` in a row. `tripped`: so many in a row have failed. `elapsed`: `breaker_reset` has passed since.
CircuitEvent = Literal["succeeded", "failed", "tripped", "elapsed"]

CIRCUIT: Mapping[tuple[CircuitState, CircuitEvent], CircuitState] = {
    ("closed", "succeeded"): "closed",
    ("closed", "failed"): "closed",
    ("closed", "tripped"): "open",
    ("closed", "elapsed"): "closed",
    ("open", "succeeded"): "closed",
    ("open", "failed"): "open",
    ("open", "tripped"): "open",
    ("open", "elapsed"): "half_open",
    ("half_open", "succeeded"): "closed",
    ("half_open", "failed"): "open",
    ("half_open", "tripped"): "open",
    ("half_open", "elapsed"): "half_open",
}


def is_failure(error: BacktestrError | None) -> bool:
    """Return true if a request that ended so was not served, and trying again later may help.

    An error that a person must mend first, such as a full disk, does not keep other requests from being sent.
    """
    return isinstance(error, FAILURES) and any(action.automatic for action in error.recovery_actions)


class CircuitBreaker:
    """The circuit breaker of one client, for the requests of its program."""

    def __init__(self, policy: Recovery) -> None:
        self._policy = policy
        self._state: CircuitState = "closed"
        self._failures = 0  # in a row
        self._last_failure: BacktestrError | None = None
        self._reset_at = 0.0  # when an open circuit lets one request through
        self._trial: str | None = None  # the request that is tried while half-open

    def state(self, now: float) -> CircuitState:
        """Return the state at `now`: an open circuit becomes half-open by time alone."""
        if self._state == "open" and self._reset_at <= now:
            self._state = CIRCUIT[self._state, "elapsed"]
        return self._state

    def refusal(self, now: float) -> CircuitOpen | None:
        """Return the error of a request that may not be sent now, or None where one may."""
        state = self.state(now)
        if state == "closed" or (state == "half_open" and self._trial is None):
            return None
        seconds = max(0, math.ceil(self._reset_at - now))
        next_try = "one is being tried" if state == "half_open" else f"the next is tried in {seconds} s"
        return CircuitOpen(
            f"not sent: the last {self._policy.breaker_failures} requests or more failed, the latest with: "
            f"{self._last_failure}; {next_try}",
            retryAfterMs=1000 * seconds,
        )

    def sent(self, request_id: str, now: float) -> None:
        """Note that a request is sent, as `refusal` allowed."""
        if self.state(now) == "half_open":
            self._trial = request_id

    def ended(self, request_id: str, error: BacktestrError | None, now: float) -> None:
        """Note that a request was answered (None), or failed with `error`."""
        if request_id == self._trial:
            self._trial = None
        if isinstance(error, OfflineQueueFull):
            return  # it was not tried
        if not is_failure(error):
            self._succeed()
            return
        self._failures += 1
        self._last_failure = error
        is_tripped = self._failures >= self._policy.breaker_failures
        self._state = CIRCUIT[self.state(now), "tripped" if is_tripped else "failed"]
        if self._state == "open":
            self._reset_at = now + self._policy.breaker_reset

    def welcomed(self) -> None:
        """Close the circuit: the broker has opened a session, and earlier failures no longer count."""
        self._trial = None
        self._succeed()

    def _succeed(self) -> None:
        self._state = CIRCUIT[self._state, "succeeded"]
        self._failures = 0
        self._last_failure = None
