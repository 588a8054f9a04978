"""A log writer takes lines without ever making its caller wait, and a thread of its own writes them.

Standard error may be a pipe that is full, since its reader has stopped, or a terminal after Ctrl-S. So lines wait in a
queue of bounded size; those beyond it are dropped and counted, and the log says so once lines are accepted again. A
descriptor that fails (its reader has ended, its disk is full) loses lines and is tried again at the next.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from .system.open_flags import WITHOUT_WAITING

# The bytes of lines that wait: seconds of the busiest log, and well below what is noticed beside a broker of 40 MB.
MAX_WAITING_BYTES = 4 << 20
# The bytes that are written at once.
_BATCH_BYTES = 1 << 16
# The seconds that the end of a process waits for its last lines: enough for any reader, and not noticed without one.
FLUSH_SECONDS = 0.3

_STANDARD = (0, 1, 2)


class LogWriter:
    """Writes lines to a file descriptor in a thread of its own; its methods may be called from any thread.

    It has the `write` and `flush` that loggers expect of a stream.
    """

    def __init__(
        self, descriptor: int, dropped_line: Callable[[int], str], *, max_waiting_bytes: int = MAX_WAITING_BYTES
    ) -> None:
        """Start the thread. `dropped_line` returns the line that states a number of dropped lines."""
        self._descriptor = descriptor
        self._dropped_line = dropped_line
        self._most = max_waiting_bytes
        self._prepare()
        self._thread = threading.Thread(target=self._run, name="backtestr log", daemon=True)
        self._thread.start()

    def _prepare(self) -> None:
        # A `with` block takes and releases a lock of C whole, and one of Python (`Condition`) not: an algorithm may be
        # interrupted in the middle of a print, and a lock that it has kept would hold all other threads.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[bytes] = deque()
        self._bytes = 0  # of the lines that wait, and of those that are being written
        self._dropped = 0
        self._is_closing = False
        self._forked_descriptor: int | None = None

    def write(self, text: str) -> int:
        """Take a line, or several, with their newlines; drop them where too many wait, or where memory ends."""
        try:
            self.write_bytes(text.encode("utf-8", "backslashreplace"))
        except MemoryError:
            self._dropped += 1
        return len(text)

    def write_bytes(self, lines: bytes) -> None:
        """Take lines in UTF-8, as `write` does."""
        if not lines:
            return
        if self._forked_descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._forked_descriptor, lines)
            return
        with self._lock:
            if self._bytes + len(lines) > self._most:
                self._dropped += _count(lines)
            else:
                self._waiting.append(lines)
                self._bytes += len(lines)
                self._changed.notify_all()

    def flush(self) -> None:
        """Do nothing: no caller waits. See `drain`."""

    def drain(self, seconds: float) -> bool:
        """Wait up to `seconds` until all lines are written; return True if they are."""
        with self._changed:
            return self._changed.wait_for(lambda: self._bytes <= 0, seconds)

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Write what waits, for up to `seconds`, and end; a thread that a full pipe holds does not hold the process."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(seconds)

    def use_in_forks(self, descriptor: int) -> None:
        """Have a forked child of this process, which has no thread, write its lines to `descriptor` itself."""

        def after_fork() -> None:
            self._prepare()
            self._forked_descriptor = descriptor

        if hasattr(os, "register_at_fork"):  # a system without it has no forks
            os.register_at_fork(after_in_child=after_fork)

    # --- the thread ---

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closing)
                if not self._waiting and not self._dropped:
                    return
                dropped, self._dropped = self._dropped, 0
                batch = self._take()
            try:
                lines = b"".join(batch)
                is_written = self._put((self._dropped_line(dropped).encode() if dropped else b"") + lines)
            except MemoryError:  # of a worker whose algorithm has taken all that it may
                is_written = False
            with self._changed:
                if not is_written:
                    self._dropped += dropped + sum(map(_count, batch))
                self._bytes -= sum(map(len, batch))
                self._changed.notify_all()
                if not is_written and self._is_closing and not self._waiting:
                    return

    def _take(self) -> list[bytes]:
        """Take the lines of one batch from the queue."""
        batch: list[bytes] = []
        size = 0
        while self._waiting and (not batch or size + len(self._waiting[0]) <= _BATCH_BYTES):
            batch.append(self._waiting.popleft())
            size += len(batch[-1])
        return batch

    def _put(self, lines: bytes) -> bool:
        """Write all of `lines`, however long that takes; return False if the descriptor fails."""
        left = memoryview(lines)
        try:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:  # another process has made this pipe non-blocking
                    select.select([], [self._descriptor], [])
        except (OSError, ValueError):
            return False
        return True


class _Raw(io.RawIOBase):
    """A raw stream that gives its bytes to a function. Its descriptor is the one that child processes get."""

    def __init__(self, write: Callable[[bytes], object], descriptor: int) -> None:
        super().__init__()
        self._take = write
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        taken = bytes(data)
        self._take(taken)
        return len(taken)

    def fileno(self) -> int:
        return self._descriptor


def text_stream(write: Callable[[bytes], object], descriptor: int) -> io.TextIOWrapper:
    """Return a stream in place of `sys.stdout` or `sys.stderr` that gives lines to `write`."""
    buffered = io.BufferedWriter(_Raw(write, descriptor))
    return io.TextIOWrapper(buffered, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def read_descriptor(descriptor: int, write: Callable[[bytes], object]) -> None:
    """Have a thread give what is written to a descriptor to `write`: by C code, by child processes, by `os.write`."""
    read_end, write_end = os.pipe()
    os.dup2(write_end, descriptor)
    os.close(write_end)

    def read() -> None:
        while read_bytes := os.read(read_end, _BATCH_BYTES):
            write(read_bytes)

    threading.Thread(target=read, name="backtestr output", daemon=True).start()


def open_without_waiting(descriptor: int) -> None:
    """Open what a descriptor is for once more, so that writing to it fails at once instead of waiting for the reader.

    Other processes have the same pipe or terminal, and are not affected. Where it cannot be opened, as on a system
    without /proc, it stays as it is.
    """
    with contextlib.suppress(OSError):
        opened = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_APPEND | WITHOUT_WAITING)
        os.dup2(opened, descriptor)
        os.close(opened)


def open_standard_descriptors() -> None:
    """Open the null device for each standard descriptor that is closed; child processes inherit it.

    Otherwise the next file that is opened, such as the database, would have its number and get the lines of the log.
    """
    for number in _STANDARD:
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                opened = os.open(os.devnull, os.O_RDWR)
                if opened != number:
                    os.dup2(opened, number)
                    os.close(opened)
                os.set_inheritable(number, True)


def _count(lines: bytes) -> int:
    return max(1, lines.count(b"\n"))
