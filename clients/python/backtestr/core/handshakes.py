"""The encrypted handshakes of one connection, and the verdict that follows from each.

No I/O: monitors of the sockets report the outcomes. ZeroMQ itself does not tell its user: with a wrong key it tries
again without end, and after a denial it stops.
"""

from __future__ import annotations

from typing import Literal

from backtestr_protocol.errors import AuthenticationError

# A handshake may fail because the broker ended during it, or was too busy to decide; so many in a row do not.
MAX_FAILURES = 3

# `denied`: the broker looked the key up and refused it. `failed`: it hung up, as for a key that does not fit its own.
Outcome = Literal["succeeded", "failed", "denied"]
# `reconnected`: the connection for requests was lost and is there again. `locked out`: the broker refuses this client.
HandshakeVerdict = Literal["reconnected", "locked out"]


class Handshakes:
    """The handshakes of one connection, with those of its streams."""

    def __init__(self) -> None:
        self._failures = 0  # in a row
        self._is_after_first = False

    def ended(self, outcome: Outcome, *, of_requests: bool) -> HandshakeVerdict | None:
        """Take in the outcome of a handshake. `of_requests`: of the connection for requests, not of a stream's."""
        if outcome == "succeeded":
            self._failures = 0
            if not of_requests:
                return None
            before, self._is_after_first = self._is_after_first, True
            return "reconnected" if before else None
        self._failures = MAX_FAILURES if outcome == "denied" else self._failures + 1
        if self._failures < MAX_FAILURES:
            return None
        self._failures = 0
        self._is_after_first = True  # a later success begins a new session
        return "locked out"


def locked_out(public_key: str | None) -> AuthenticationError:
    """Return the error of a client with this key whose handshakes led to `locked out`."""
    return AuthenticationError(
        "the broker does not let this client in: authentication or key mismatch likely. On the broker's machine "
        f"`backtestr keys list` says whose keys may connect; this client's is {public_key or 'missing'}. "
        "`backtestr keys new NAME` makes one; the key in a connection file is accepted on the broker's machine alone. "
        "Or the connection file is of another broker"
    )


def replaced() -> AuthenticationError:
    """Return the error of a client without a connection file, at whose address another broker is now."""
    return AuthenticationError(
        "another broker is at the address of this client's connection: its answer is signed with another key, and this "
        "client has no connection file that could tell it that key. Requests that were sent before may have been "
        "executed. Make a new client with that broker's connection, such as by backtestr.connect(), which reads a file"
    )
