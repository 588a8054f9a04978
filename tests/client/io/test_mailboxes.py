"""A mailbox gives every delivery before its end and reports space; a pending reply is read any number of times."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from backtestr.core.effects import Gap
from backtestr.io.mailboxes import MAX_UNREAD, Mailbox, PendingReply
from backtestr_protocol.errors import NotFound, TimedOut


def test_a_reply_is_read_by_every_waiting_thread() -> None:
    reply: PendingReply[int] = PendingReply()
    with pytest.raises(TimedOut):
        reply.read(timeout=0)
    reply.succeed(7)
    assert (reply.read(), reply.read(timeout=0)) == (7, 7)
    failed: PendingReply[int] = PendingReply()
    failed.fail(NotFound("gone"))
    for _ in range(2):
        with pytest.raises(NotFound, match="gone"):
            failed.read()


def test_a_mailbox_gives_everything_before_its_end() -> None:
    mailbox = Mailbox(lambda _: None)
    mailbox.put([Gap("t", 1, 2)])
    mailbox.end(NotFound("gone"))
    mailbox.end(None)
    assert mailbox.take() == Gap("t", 1, 2)
    for _ in range(2):
        with pytest.raises(NotFound):
            mailbox.take()


def test_a_mailbox_reports_space_before_it_is_full() -> None:
    reported: list[int] = []
    mailbox = Mailbox(reported.append)
    mailbox.put([Gap("t", 1, 1)] * (MAX_UNREAD // 4))
    assert mailbox.take() == Gap("t", 1, 1)
    assert reported == [], "what is not taken takes its room"
    for _ in range(MAX_UNREAD // 4 - 1):
        mailbox.take()
    assert reported == [MAX_UNREAD // 4]
    with pytest.raises(TimedOut):
        Mailbox(reported.append).take(timeout=0)


def test_a_reader_that_is_interrupted_anywhere_leaves_a_mailbox_that_works() -> None:
    """Ctrl-C may come between any two instructions; whatever it cuts short, deliveries are put and taken afterwards."""
    interrupted = 0
    for at in range(1, 100_000):
        mailbox, seen = Mailbox(lambda _taken: None), [0]

        def trace(frame: FrameType, event: str, _: object, at: int = at, seen: list[int] = seen) -> Any:
            frame.f_trace_opcodes = True
            if event == "opcode":
                seen[0] += 1
                if seen[0] == at:
                    raise KeyboardInterrupt
            return trace

        try:
            sys.settrace(trace)
            try:
                mailbox.take(0.0)
            finally:
                sys.settrace(None)
        except TimedOut:
            break
        except KeyboardInterrupt:
            interrupted += 1
        mailbox.put([gap := Gap("t", 1, 2)])
        assert mailbox.take(1.0) is gap
        mailbox.end(None)
        assert mailbox.take(1.0) is None
    assert interrupted > 50
