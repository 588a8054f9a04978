"""Ctrl-C reaches the main thread anywhere; these functions put it off until what must not be cut in two is done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from .mailboxes import PendingReply

T = TypeVar("T")

# The seconds after which a wait looks whether the thread has ended, should its word have been lost to an interrupt.
_CHECK_SECONDS = 0.1


class JoinableThread(threading.Thread):
    """A thread that says itself when its work has ended.

    `Thread.join` of Python before 3.13, cut short by an exception, may take a thread for ended that runs.
    """

    def __init__(self, target: Callable[[], None], name: str, *, daemon: bool = False) -> None:
        super().__init__(target=target, name=name, daemon=daemon)
        self.has_ended = False
        self._end = threading.Lock()
        self._end.acquire()

    def run(self) -> None:
        """Work, and say that it has ended."""
        try:
            super().run()
        finally:
            self.has_ended = True
            self._end.release()

    def wait(self) -> None:
        """Wait for the end of the work, or for some time."""
        self._end.acquire(timeout=_CHECK_SECONDS)


def uninterrupted(call: Callable[[], T]) -> T:
    """Return or raise what `call` does, in a thread of its own; Ctrl-C meanwhile is raised afterwards."""
    reply: PendingReply[T] = PendingReply()

    def run() -> None:
        try:
            reply.succeed(call())
        except Exception as error:
            reply.fail(error)

    thread = JoinableThread(run, "backtestr call")
    thread.start()
    join_uninterrupted(thread)
    return reply.read()


def join_uninterrupted(thread: JoinableThread) -> None:
    """Wait for the end of a thread that ends by itself; Ctrl-C meanwhile is raised afterwards."""
    interrupt: KeyboardInterrupt | None = None
    while not thread.has_ended or thread.is_alive():
        try:
            if thread.has_ended:
                thread.join()
            else:
                thread.wait()
        except KeyboardInterrupt as pressed:
            interrupt = pressed
    if interrupt is not None:
        raise interrupt
