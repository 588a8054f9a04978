"""The commands that other threads give to the I/O thread, and the byte that wakes it."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable

Command = Callable[[], None]


class CommandQueue:
    """A queue that any thread adds to and the I/O thread alone runs.

    `wake_up` becomes readable when the I/O thread may sleep while commands wait.
    """

    def __init__(self) -> None:
        self.wake_up, self._waker = socket.socketpair()
        self.wake_up.setblocking(False)
        self._commands: deque[Command] = deque()
        self._is_woken = False
        self._lock = threading.Lock()  # no command is added after the last ones were run
        self._is_closed = False
        self._fault: BaseException | None = None

    def add(self, command: Command) -> None:
        """Have the I/O thread run `command`. Raises `RuntimeError` after `close`."""
        with self._lock:
            if self._is_closed:
                raise RuntimeError("this client is closed") from self._fault
            self._commands.append(command)
            if not self._is_woken:
                self._is_woken = True
                self._waker.send(b"\0")

    def run(self) -> None:
        """Run the commands that wait, in the order in which they were added."""
        self._is_woken = False  # in any case: Ctrl-C may have interrupted a caller before it could wake this thread
        while self._commands:
            self._commands.popleft()()

    def close(self, fault: BaseException | None) -> None:
        """Take no further commands, run the last ones and close the sockets. `fault` is why the I/O thread ended."""
        with self._lock:
            self._is_closed, self._fault = True, fault
        self.run()
        self.wake_up.close()
        self._waker.close()
