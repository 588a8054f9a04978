"""How the encrypted handshakes of one connection went, and what follows from that.

No I/O: the sockets' monitors tell. ZeroMQ itself says nothing to its user: with a wrong key it tries again for ever,
and after a denial never.
"""

from __future__ import annotations

from typing import Literal

# One may fail because the broker ended in the middle of it, or was too busy to decide; so many in a row do not.
MAX_FAILURES = 3

# `denied`: the broker looked the key up and said no. `failed`: it hung up, as on a key that does not fit its own.
Outcome = Literal["succeeded", "failed", "denied"]
# `again`: the connection for requests was lost and is there anew. `locked out`: nobody will let this client in.
Finding = Literal["again", "locked out"]


class Handshakes:
    def __init__(self) -> None:
        self._failures = 0
        self._is_after_first = False

    def heard(self, outcome: Outcome, *, of_requests: bool) -> Finding | None:
        """`of_requests`: of the connection on which requests are sent and answered, not of a stream's."""
        if outcome == "succeeded":
            self._failures = 0
            if not of_requests:
                return None
            before, self._is_after_first = self._is_after_first, True
            return "again" if before else None
        self._failures = MAX_FAILURES if outcome == "denied" else self._failures + 1
        if self._failures < MAX_FAILURES:
            return None
        self._failures = 0
        self._is_after_first = True  # should one succeed after all, everything begins anew
        return "locked out"
