"""The exchange holds the program's and the client's requests, and gives each answer to its recipient.

It joins the session, the circuit breaker and the counters of requests. Whoever has the client's turn calls it: the I/O
thread, or a caller that does its own I/O (`caller_turns.py`).
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

import msgspec

from backtestr.core.circuit_breaker import CircuitBreaker
from backtestr.core.counters import RequestCounters
from backtestr.core.effects import Answered, Failed, Purpose, SessionEffect
from backtestr.core.session import Session
from backtestr_protocol.errors import BacktestrError, Busy, NetworkError
from backtestr_protocol.messages import Contract

from .error_log import ErrorLog, ErrorReport
from .mailboxes import PendingReply
from .request_windows import PipelinedReply, Success

# A reply belongs to the program, a purpose to the client's subscriptions.
Recipient = PendingReply[Success] | PipelinedReply[Any] | Purpose
_OF_PROGRAM: Final = (PendingReply, PipelinedReply)  # made once: `PendingReply | PipelinedReply` makes a new union

log = logging.getLogger("backtestr")


class Exchange:
    """The requests of one client that wait for an answer, each with its recipient."""

    def __init__(self, session: Session, breaker: CircuitBreaker, errors: ErrorLog, max_waiting: int) -> None:
        """Take the session that sends, the breaker that may refuse, and the log for requests that fail.

        At most `max_waiting` requests may wait for an answer.
        """
        self.session = session
        self.counters = RequestCounters()
        self._breaker = breaker
        self._errors = errors
        self._max_waiting = max_waiting
        self._recipients: dict[str, tuple[str, Recipient]] = {}

    def ask(
        self,
        request_type: str,
        data: Contract | msgspec.Raw,
        timeout: float,
        recipient: Recipient,
        waited: float = 0.0,
    ) -> list[SessionEffect]:
        """Make a request, and return the effects; one that is refused here fails at once and has none."""
        is_own = not isinstance(recipient, _OF_PROGRAM)
        now = time.monotonic()
        if isinstance(recipient, _OF_PROGRAM):
            self.counters.requests += 1
            refusal = self._breaker.refusal(now) or self._too_many()
            if refusal is not None:
                self.counters.refused += 1
                self._fail(request_type, recipient, refusal)
                return []
        request_id, effects = self.session.request(
            request_type, data, now, wall_ms(), timeout, is_own=is_own, waited=waited
        )
        if not is_own:
            self._breaker.sent(request_id, now)
        self._recipients[request_id] = request_type, recipient
        return effects

    def is_of_caller(self, request_id: str) -> bool:
        """Return True if a caller waits for this very answer: not a pipeline, and not the client's subscriptions."""
        return isinstance(self._recipients[request_id][1], PendingReply)

    def answered(self, effect: Answered) -> Purpose | None:
        """Give an answer to the program; return the purpose of one that is for the subscriptions.

        A reply is settled before it is forgotten: an exception in between leaves it to `reconcile`.
        """
        recipient = self._recipients[effect.request_id][1]
        if not isinstance(recipient, _OF_PROGRAM):
            del self._recipients[effect.request_id]
            return recipient
        recipient.succeed((effect.data, effect.attachments))
        del self._recipients[effect.request_id]
        self.counters.answered += 1
        self._breaker.ended(effect.request_id, None, time.monotonic())
        return None

    def failed(self, effect: Failed) -> Purpose | None:
        """Give an error to the program; return the purpose of a request that was for the subscriptions."""
        request_type, recipient = self._recipients[effect.request_id]
        if not isinstance(recipient, _OF_PROGRAM):
            del self._recipients[effect.request_id]
            return recipient
        log.info(
            "%s, id %s: %s: %s",
            request_type,
            effect.request_id,
            effect.error.code,
            effect.error,
            extra={"requestId": effect.request_id},
        )
        self._fail(request_type, recipient, effect.error)
        del self._recipients[effect.request_id]
        self._breaker.ended(effect.request_id, effect.error, time.monotonic())
        return None

    def reconcile(self) -> list[Failed]:
        """Forget requests without a recipient, and return the failures of recipients whose request is gone.

        A step that an exception cut in two leaves such ones. The connection was lost before this is called.
        """
        gone = self.session.reconcile(self._recipients)
        waiting = sum(isinstance(one, _OF_PROGRAM) for _, one in self._recipients.values())
        self.counters.requests = self.counters.answered + self.counters.failed + waiting
        return [Failed(one, NetworkError("the answer was lost: an exception interrupted its receipt")) for one in gone]

    def abandon(self, error: Exception) -> None:
        """Fail every reply of the program."""
        for _, recipient in self._recipients.values():
            if isinstance(recipient, _OF_PROGRAM):
                recipient.fail(error)

    def _too_many(self) -> Busy | None:
        if self.session.waiting < self._max_waiting:
            return None
        return Busy(f"{self._max_waiting} requests wait for an answer already; wait for some of them first")

    def _fail(
        self, request_type: str, reply: PendingReply[Success] | PipelinedReply[Any], error: BacktestrError
    ) -> None:
        self.counters.failed += 1
        self._errors.add(ErrorReport(error, request_type, wall_ms()))
        reply.fail(error)


def wall_ms() -> int:
    """Return the milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000
