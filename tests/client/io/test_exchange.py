"""Each answer goes to its recipient, once, and is counted; what an interrupted step has left is sorted out."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from backtestr.core.circuit_breaker import CircuitBreaker
from backtestr.core.effects import Answered, Failed, TopicRepair
from backtestr.core.recovery import Recovery
from backtestr.core.session import Session
from backtestr.io.callback_thread import CallbackThread
from backtestr.io.error_log import ErrorLog
from backtestr.io.exchange import Exchange, wall_ms
from backtestr.io.mailboxes import PendingReply
from backtestr.io.request_windows import Success
from backtestr_protocol.errors import Busy, NetworkError, NotFound

EMPTY = msgspec.Raw(b"\x80")
REPAIR = cast(TopicRepair, object())  # it is passed on as it is


class Stage:
    def __init__(self, max_waiting: int = 10) -> None:
        recovery = Recovery()
        self.session = Session("me", "n", recovery=recovery)
        self.errors = ErrorLog(CallbackThread())
        self.exchange = Exchange(self.session, CircuitBreaker(recovery), self.errors, max_waiting)

    def ask(self) -> PendingReply[Success]:
        reply: PendingReply[Success] = PendingReply()
        assert self.exchange.ask("Ping", EMPTY, 5.0, reply) == []  # without a session it waits for one
        return reply

    @property
    def counts(self) -> dict[str, Any]:
        return {name: getattr(self.exchange.counters, name) for name in ("requests", "answered", "failed", "refused")}


def test_answers_and_errors_reach_the_program() -> None:
    stage = Stage()
    answered, failed = stage.ask(), stage.ask()
    assert stage.exchange.answered(Answered("n-1", 7, [b"table"])) is None
    assert stage.exchange.failed(Failed("n-2", NotFound("gone"))) is None
    assert answered.is_settled
    assert answered.read() == (7, [b"table"])
    with pytest.raises(NotFound, match="gone"):
        failed.read()
    assert stage.counts == {"requests": 2, "answered": 1, "failed": 1, "refused": 0}
    assert stage.errors.count == 1


def test_what_the_subscriptions_ask_is_returned_to_them_and_not_counted() -> None:
    stage = Stage()
    stage.exchange.ask("FetchMissed", EMPTY, 5.0, REPAIR)
    stage.exchange.ask("FetchMissed", EMPTY, 5.0, REPAIR)
    reply = stage.ask()
    assert [stage.exchange.is_of_caller(f"n-{number}") for number in (1, 2, 3)] == [False, False, True]
    assert stage.exchange.answered(Answered("n-1", 7, [])) is REPAIR
    assert stage.exchange.failed(Failed("n-2", NotFound("gone"))) is REPAIR
    assert stage.counts == {"requests": 1, "answered": 0, "failed": 0, "refused": 0}
    assert not reply.is_settled


def test_more_than_may_wait_are_refused() -> None:
    stage = Stage(max_waiting=1)
    stage.ask()
    refused = stage.ask()
    with pytest.raises(Busy, match="1 requests wait for an answer already"):
        refused.read()
    assert stage.counts == {"requests": 2, "answered": 0, "failed": 1, "refused": 1}


def test_reconciling_forgets_requests_of_nobody_and_fails_replies_without_a_request() -> None:
    stage = Stage()
    kept, lost = stage.ask(), stage.ask()
    stage.session.request("Ping", EMPTY, 0.0, wall_ms(), 5.0)  # no recipient was noted
    stage.session._pending.pop("n-2")  # its answer was taken out, and not given to anyone
    stage.exchange.counters.requests += 1  # a request was counted, and not made
    (failure,) = stage.exchange.reconcile()
    assert stage.counts == {"requests": 2, "answered": 0, "failed": 0, "refused": 0}
    assert failure.request_id == "n-2"
    assert stage.session.waiting == 1
    stage.exchange.failed(failure)
    with pytest.raises(NetworkError, match="the answer was lost"):
        lost.read()
    assert not kept.is_settled


def test_abandoning_fails_the_replies_of_the_program() -> None:
    stage = Stage()
    reply = stage.ask()
    stage.exchange.ask("FetchMissed", EMPTY, 5.0, REPAIR)
    stage.exchange.abandon(RuntimeError("closed"))
    with pytest.raises(RuntimeError, match="closed"):
        reply.read()
