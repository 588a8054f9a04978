"""Ctrl-C reaches the main thread anywhere; these functions put it off until what must not be cut in two is done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from .mailboxes import PendingReply

T = TypeVar("T")


def uninterrupted(call: Callable[[], T]) -> T:
    """Return or raise what `call` does, in a thread of its own; Ctrl-C meanwhile is raised afterwards."""
    reply: PendingReply[T] = PendingReply()

    def run() -> None:
        try:
            reply.succeed(call())
        except Exception as error:
            reply.fail(error)

    thread = threading.Thread(target=run, name="backtestr call")
    thread.start()
    join_uninterrupted(thread)
    return reply.read()


def join_uninterrupted(thread: threading.Thread) -> None:
    """Wait for the end of a thread that ends by itself; Ctrl-C meanwhile is raised afterwards."""
    interrupt: KeyboardInterrupt | None = None
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt as pressed:
            interrupt = pressed
    if interrupt is not None:
        raise interrupt
