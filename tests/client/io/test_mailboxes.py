"""A mailbox gives every delivery before its end and reports space; a pending reply is read any number of times."""

from __future__ import annotations

import contextlib
import threading

import pytest

from backtestr.core.effects import Gap
from backtestr.io.mailboxes import MAX_UNREAD, Mailbox, PendingReply
from backtestr_protocol.errors import NotFound, TimedOut
from support.client.interruptions import interrupted_anywhere


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

    def read(mailbox: Mailbox) -> None:
        with contextlib.suppress(TimedOut):
            mailbox.take(0.0)

    interrupted = 0
    for mailbox in interrupted_anywhere(lambda: Mailbox(lambda _taken: None), read):
        gap = Gap("t", 1, 2)
        other = threading.Thread(target=mailbox.put, args=([gap],), daemon=True)  # as the I/O thread
        other.start()
        other.join(5)
        assert not other.is_alive()
        assert mailbox.take(1.0) is gap
        mailbox.end(None)
        assert mailbox.take(1.0) is None
        interrupted += 1
    assert interrupted > 50
