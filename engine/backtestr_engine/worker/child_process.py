"""A child process does work that may end its process: it loads sources that were never loaded, and reads foreign files.

    with Child("source_inspector", request, memory_bytes=…) as child:
        child.frame(START_SECONDS)      # it has started
        answer = child.frame(seconds)   # the next frame that it sends, or ChildLost with the reason

The child gets its request as a file on standard input. Its standard output becomes a pipe of frames that code of others
does not find under the number of standard output; what that code prints is counted, and is not logged. A child ends
with its parent, and whatever it has started ends with it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import BinaryIO

MAX_OUTPUT_BYTES = 1 << 20
"""The most that a child may print. A source that prints more when it is loaded would fill the log at every start."""

START_SECONDS = 60.0
"""The seconds in which a child starts, on a machine that is busy with other things: half a second of it is imports."""

MAX_FRAME_BYTES = 1 << 20

_HEAD = struct.Struct(">Q")
_READ_BYTES = 1 << 20
_CHECK_SECONDS = 0.05
# The end of what a child printed: enough for the last line of a traceback or of a library's last words.
_KEPT_OUTPUT_BYTES = 4096
_SHOWN_CHARACTERS = 300


class ChildLost(Exception):
    """A child process ended, or was ended, before it had sent a frame. The text is the reason."""


class Child:
    """A child process that does the work of a module beside this one; a context manager that ends it."""

    def __init__(self, module: str, request: bytes, memory_bytes: int) -> None:
        """Start it; it may take `memory_bytes` of memory more than it starts with. Raises `ChildLost` if it cannot."""
        self._received = bytearray()
        self._output = bytearray()
        self._printed = 0
        command = [sys.executable, "-m", f"{__package__}.{module}", str(os.getpid()), str(memory_bytes)]
        try:
            with tempfile.TemporaryFile() as file:
                file.write(request)
                file.seek(0)
                self._process = subprocess.Popen(
                    command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
                )
        except OSError as error:  # the machine has no room for a process, a descriptor or a file
            raise ChildLost(f"no process could be started for it: {error.strerror}") from error
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._results: BinaryIO | None = self._process.stdout  # type: ignore[assignment]
        self._prints: BinaryIO | None = self._process.stderr  # type: ignore[assignment]

    @property
    def pid(self) -> int:
        return self._process.pid

    def frame(self, seconds: float, most_bytes: int = MAX_FRAME_BYTES) -> bytes:
        """Return the next frame. Raises `ChildLost` if none comes within `seconds`, with the reason."""
        deadline = time.monotonic() + seconds
        while True:
            if len(self._received) >= _HEAD.size:
                (size,) = _HEAD.unpack_from(self._received)
                if size > most_bytes:
                    raise self._end(f"it answered with {size:,} bytes, and may answer with {most_bytes:,}")
                end = _HEAD.size + size
                if len(self._received) >= end:
                    frame = bytes(memoryview(self._received)[_HEAD.size : end])
                    del self._received[:end]
                    return frame
            self._receive(deadline, seconds)

    def _receive(self, deadline: float, seconds: float) -> None:
        """Take what the child has written, or wait a moment for it. Raises `ChildLost` for a child that is at its end.

        A process that the child started may hold the pipes open: the end of the child counts, not that of the pipes.
        """
        has_ended = self._has_ended()  # asked first: what it had written by then is read below
        is_empty = True
        with selectors.DefaultSelector() as selector:
            for pipe in (self._results, self._prints):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ)
            for key, _ in selector.select(0.0 if has_ended else _CHECK_SECONDS):
                content = os.read(key.fd, _READ_BYTES)
                is_empty = is_empty and not content
                if key.fileobj is self._results:
                    self._received += content
                    self._results = self._results if content else None
                else:
                    self._printed += len(content)
                    self._output = (self._output + content)[-_KEPT_OUTPUT_BYTES:]
                    self._prints = self._prints if content else None
        if self._printed > MAX_OUTPUT_BYTES:
            raise self._end(f"it printed more than {MAX_OUTPUT_BYTES >> 20} MiB")
        if has_ended and is_empty:
            raise self._end(None)
        if time.monotonic() > deadline:
            raise self._end(f"it did not come back within {seconds:g} s")

    def _has_ended(self) -> bool:
        """Return whether the process has ended, without taking its exit code: its group keeps its number until then."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # somebody else has taken its exit code
            return True

    def _end(self, reason: str | None) -> ChildLost:
        """End the child, and return the error with the reason; without one, with how it ended by itself."""
        self.close()
        return ChildLost(reason if reason is not None else _ending(self._process.returncode) + self._last_words())

    def _last_words(self) -> str:
        lines = self._output.decode("utf-8", "replace").split("\n")
        words = "".join(char if char.isprintable() else " " for char in next(filter(str.strip, reversed(lines)), ""))
        return f"; the last that it printed: {words.strip()[:_SHOWN_CHARACTERS]}" if words else ""

    def close(self) -> None:
        """End the child and the processes that it started in its group, and free everything."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Frames:
    """The child's end of the pipe: `send` writes a frame."""

    def __init__(self) -> None:
        """Take standard output for frames, and let prints go to standard error from now on."""
        sys.stdout.flush()
        self._handle = os.dup(1)
        os.dup2(2, 1)

    def send(self, frame: bytes | memoryview) -> None:
        """Write a frame as a whole."""
        size = memoryview(frame).nbytes
        for part in (memoryview(_HEAD.pack(size)), memoryview(frame).cast("B") if size else memoryview(b"")):
            while len(part):
                part = part[os.write(self._handle, part) :]


def take_request() -> bytes:
    """Return the request from standard input, which is empty from then on."""
    content = sys.stdin.buffer.read()
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return content


def _ending(code: int) -> str:
    """Return how a process ended, as text."""
    if code >= 0:
        return f"it ended its process with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"its process was ended by {name}"
