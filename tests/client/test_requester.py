"""The requester sends with its own timeout or the call's, and returns or raises the answer."""

from __future__ import annotations

from typing import cast

import msgspec
import pytest

from backtestr.io.io_thread import IoThread
from backtestr.io.mailboxes import PendingReply
from backtestr.io.request_windows import Success
from backtestr.requester import Requester
from backtestr_protocol.errors import NotFound
from backtestr_protocol.messages import Contract, Nothing, Pong


class Answering:
    """An I/O thread that has every answer at once."""

    def __init__(self, answer: Contract | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple[str, bytes, float]] = []

    def ask(self, request_type: str, data: msgspec.Raw, timeout: float) -> PendingReply[Success]:
        self.asked.append((request_type, bytes(data), timeout))
        reply: PendingReply[Success] = PendingReply()
        if isinstance(self.answer, Exception):
            reply.fail(self.answer)
        else:
            reply.succeed((self.answer, [b"table"]))
        return reply

    def call(self, request_type: str, data: msgspec.Raw, timeout: float) -> Success:
        return self.ask(request_type, data, timeout).read()


def requester(io_thread: Answering) -> Requester:
    return Requester(cast(IoThread, io_thread), 7.0)


def test_the_timeout_of_a_call_comes_before_the_requester_s_own() -> None:
    io_thread = Answering(Pong(timestamp=1))
    ask = requester(io_thread)
    assert ask("Ping", Nothing(), Pong) == Pong(timestamp=1)
    assert ask("Ping", Nothing(), Pong, timeout=0.0) == Pong(timestamp=1)
    assert io_thread.asked == [("Ping", b"\x80", 7.0), ("Ping", b"\x80", 0.0)]


def test_attachments_come_with_the_answer() -> None:
    ask = requester(Answering(Pong(timestamp=1)))
    assert ask.with_attachments("Ping", Nothing(), Pong) == (Pong(timestamp=1), [b"table"])


def test_an_error_is_raised() -> None:
    with pytest.raises(NotFound, match="gone"):
        requester(Answering(NotFound("gone")))("Ping", Nothing(), Pong)
