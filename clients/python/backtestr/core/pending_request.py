"""A pending request counts how often it was sent and why, and knows when it is sent again.

No I/O. Every number that the retry policy bounds is counted here; the session decides what an answer means.
"""

from __future__ import annotations

import msgspec

from backtestr_protocol.codec import encoded_payload
from backtestr_protocol.messages import Contract

from .recovery import Recovery


class PendingRequest:
    """A request that waits for its answer.

    `session_id` is the session in which it was last sent, None while unsent. At most one of two times is set:
    `retry_at` after an answer that advises a retry, `resend_at` while there is no answer.
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

    def __init__(
        self, request_type: str, data: Contract | msgspec.Raw, now: float, timeout: float, *, is_own: bool = False
    ) -> None:
        """Encode the request, if its data are not encoded already.

        `is_own` marks one of the client itself, not of the program."""
        self.request_type = request_type
        self.payload = msgspec.Raw(encoded_payload(request_type, data))
        self.timeout = timeout
        self.deadline = now + timeout
        self.is_own = is_own
        self.session_id: str | None = None
        self.sendings = 0
        self.resends = 0  # because the broker did not accept the session or the counter
        self.waits = 0  # for a busy broker
        self.faults = 0  # of the broker
        self.silences = 0
        self.retry_at: float | None = None
        self.resend_at: float | None = None

    @property
    def is_queued(self) -> bool:
        """True if it waits for a broker and was never sent."""
        return not self.sendings and not self.is_own

    def may_retry(self, recovery: Recovery) -> bool:
        """Return True if the policy allows one more attempt after a fault or silence."""
        return self.faults + self.silences + 1 < recovery.max_attempts

    def retry_after(self, now: float, delay: float) -> bool:
        """Schedule a retry after `delay` seconds, or return False if the deadline comes before."""
        if now + delay >= self.deadline:
            return False
        self.retry_at, self.resend_at = now + delay, None
        return True

    def sent(self, session_id: str, now: float, recovery: Recovery) -> None:
        """Note a sending. Without an answer the next is due after `resend_after`, doubled each time."""
        self.session_id = session_id
        self.sendings += 1
        self.retry_at = self.resend_at = None
        if recovery.resend_after is not None and self.may_retry(recovery):
            resend_at = now + recovery.resend_after * 2**self.silences
            if resend_at < self.deadline:
                self.resend_at = resend_at

    @property
    def due(self) -> float | None:
        """The time of the next sending, or None if none is planned."""
        return self.resend_at if self.retry_at is None else self.retry_at

    def check_invariants(self, recovery: Recovery) -> None:
        """Raise `AssertionError` unless times and counts agree with the policy."""
        assert self.retry_at is None or self.resend_at is None
        assert self.due is None or self.due < self.deadline
        assert self.faults + self.silences < recovery.max_attempts
        assert (self.session_id is None) or self.sendings
