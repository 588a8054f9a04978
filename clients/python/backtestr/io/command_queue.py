"""The commands that other threads give to the I/O thread, and the byte that wakes it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable

from .forks import check_process, is_forked

Command = Callable[[], None]
# Called with the fault of a command that could not be run to its end, so that no caller waits for it.
OnFault = Callable[[BaseException], None]

log = logging.getLogger("backtestr")


class CommandQueue:
    """A queue that any thread adds to and the I/O thread alone runs.

    `wake_up` becomes readable when the I/O thread may sleep while commands wait.
    """

    def __init__(self) -> None:
        self.wake_up, self._waker = socket.socketpair()
        self.wake_up.setblocking(False)
        self._commands: deque[tuple[Command, OnFault]] = deque()
        self._is_woken = False
        self._lock = threading.Lock()  # no command is added after the last ones were run
        self._is_closed = False
        self._fault: BaseException | None = None
        self._process = os.getpid()

    @property
    def is_forked(self) -> bool:
        """True in a child process, which has inherited the queue by a fork, and not the thread that runs it."""
        return is_forked(self._process)

    def add(self, command: Command, on_fault: OnFault = lambda _: None) -> None:
        """Have the I/O thread run `command`; if it raises, `on_fault` is called with the exception.

        Raises `RuntimeError` after `close`, and in a forked child.
        """
        check_process(self._process)  # before the lock, which another thread may have held at the fork
        with self._lock:
            if self._is_closed:
                raise RuntimeError("this client is closed") from self._fault
            self._commands.append((command, on_fault))
            self._wake()

    @property
    def is_empty(self) -> bool:
        """True if no command waits; one may be running."""
        return not self._commands

    def wake(self) -> None:
        """Wake the I/O thread without a command. It has no effect after `close`."""
        with self._lock:
            if not self._is_closed:
                self._wake()

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            self._waker.send(b"\0")

    def run(self) -> None:
        """Run the commands that wait, in the order in which they were added. Raises what a command raises."""
        self._is_woken = False  # in any case: Ctrl-C may have interrupted a caller before it could wake this thread
        while self._commands:
            command, on_fault = self._commands.popleft()
            try:
                command()
            except BaseException as fault:
                on_fault(fault)
                raise

    def close(self, fault: BaseException | None) -> None:
        """Take no further commands, run the last ones and close the sockets. `fault` is why the I/O thread ended."""
        with self._lock:
            self._is_closed, self._fault = True, fault
        while self._commands:
            try:
                self.run()
            except BaseException:  # its caller has the fault; the other commands are to be run all the same
                log.exception("a command of a client that ends failed")
        self.wake_up.close()
        self._waker.close()
