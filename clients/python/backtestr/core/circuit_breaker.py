"""The circuit: closed while requests are answered, open after too many in a row were not, half-open for one trial.

Used by the I/O thread alone, which sees every request go and every outcome come.
"""

from __future__ import annotations

import math
from typing import Literal

from circuitbreaker import CircuitBreaker

from backtestr_protocol.errors import BacktestrError, Busy, NetworkError, RateLimitExceeded, SystemFault, TimedOut

from .recovery import CircuitOpen, OfflineQueueFull, Recovery

# What says that the broker is not there or not well. Any other error is an answer of a broker that works.
FAILURES = (NetworkError, TimedOut, SystemFault, Busy, RateLimitExceeded)

Circuit = Literal["closed", "open", "half_open"]


class Breaker:
    def __init__(self, recovery: Recovery) -> None:
        self._failures = recovery.breaker_failures
        self._circuit = CircuitBreaker(recovery.breaker_failures, recovery.breaker_reset, FAILURES, "broker")
        self._trial: str | None = None  # the request whose outcome decides, while half-open

    @property
    def circuit(self) -> Circuit:
        state: Circuit = self._circuit.state
        return state

    def refusal(self) -> CircuitOpen | None:
        """Why no request may go now; None when one may."""
        if self.circuit == "closed":
            return None
        if self.circuit == "half_open":
            if self._trial is None:
                return None
            waits = "one is being tried"
        else:
            waits = f"the next is tried in {max(1, math.ceil(self._circuit.open_remaining))} s"
        last = self._circuit.last_failure
        return CircuitOpen(
            f"not sent: the last {self._failures} requests or more failed, the latest with: {last}; {waits}",
            retryAfterMs=1000 * max(0, self._circuit.open_remaining),
        )

    def sent(self, request_id: str) -> None:
        """A request goes, as `refusal` allowed."""
        if self.circuit == "half_open":
            self._trial = request_id

    def ended(self, request_id: str, error: BacktestrError | None) -> None:
        """A request was answered, or failed with `error`."""
        if request_id == self._trial:
            self._trial = None
        if isinstance(error, OfflineQueueFull):
            return  # it was not tried
        # As if it had been raised inside the circuit, without raising it a second time.
        self._circuit.__exit__(None if error is None else type(error), error, None)

    def welcomed(self) -> None:
        """The broker is there: nothing that was before speaks against it."""
        self._trial = None
        self._circuit.reset()
