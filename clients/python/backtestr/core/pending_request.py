"""A request on its way: how often it was sent and why, and when it is to be sent again.

No I/O. Every number that the retry policy speaks of is counted here; what an answer means is the session's to say.
"""

from __future__ import annotations

import msgspec

from backtestr_protocol.codec import encoded_payload
from backtestr_protocol.messages import Contract

from .recovery import Recovery


class PendingRequest:
    """A request that waits for its answer. `session_id` is the session it was last sent in, None while unsent.

    One of two times may be set: `retry_at` after an answer that advises to try again, `resend_at` while there is none.
    """

    __slots__ = (
        "deadline",
        "faults",
        "is_own",
        "payload",
        "request_type",
        "resend_at",
        "resends",
        "retry_at",
        "sendings",
        "session_id",
        "silences",
        "timeout",
        "waits",
    )

    def __init__(self, request_type: str, data: Contract, now: float, timeout: float, *, is_own: bool = False) -> None:
        """`is_own`: the client asks it by itself, not the program."""
        self.request_type = request_type
        self.payload = msgspec.Raw(encoded_payload(request_type, data))
        self.timeout = timeout
        self.deadline = now + timeout
        self.is_own = is_own
        self.session_id: str | None = None
        self.sendings = 0
        self.resends = 0  # for want of a session or counter that the broker takes
        self.waits = 0  # for a broker that is busy
        self.faults = 0  # of the broker's
        self.silences = 0
        self.retry_at: float | None = None
        self.resend_at: float | None = None

    @property
    def is_queued(self) -> bool:
        """It waits for a broker, and was never sent."""
        return not self.sendings and not self.is_own

    def may_try_again(self, recovery: Recovery) -> bool:
        """Whether another fault or silence is one too many."""
        return self.faults + self.silences + 1 < recovery.max_attempts

    def wait(self, now: float, delay: float) -> bool:
        """Be due again after `delay` seconds; False when its time is up before."""
        if now + delay >= self.deadline:
            return False
        self.retry_at, self.resend_at = now + delay, None
        return True

    def sent(self, session_id: str, now: float, recovery: Recovery) -> None:
        """It goes out; without an answer it is due again after twice as long each time."""
        self.session_id = session_id
        self.sendings += 1
        self.retry_at = self.resend_at = None
        if recovery.resend_after is not None and self.may_try_again(recovery):
            resend_at = now + recovery.resend_after * 2**self.silences
            if resend_at < self.deadline:
                self.resend_at = resend_at

    @property
    def due(self) -> float | None:
        """When it is to be sent again, as far as anything is known that speaks for it."""
        return self.resend_at if self.retry_at is None else self.retry_at

    def check_invariants(self, recovery: Recovery) -> None:
        assert self.retry_at is None or self.resend_at is None
        assert self.due is None or self.due < self.deadline
        assert self.faults + self.silences < recovery.max_attempts
        assert (self.session_id is None) or self.sendings
