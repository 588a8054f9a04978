"""A child process does work that may end its process: it loads sources that were never loaded, and reads foreign files.

    with Child("source_inspector", request, memory_bytes=…) as child:
        child.frame(START_SECONDS)      # it has started
        answer = child.frame(seconds)   # the next frame that it sends, or ChildLost with the reason

The child gets its request as a file on standard input. Its standard output becomes a pipe of frames that code of others
does not find under the number of standard output; what that code prints is counted, and is not logged. A child ends
with its parent, and whatever it has started ends with it.
"""

from __future__ import annotations

import os
import queue
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from types import TracebackType
from typing import IO

from backtestr_protocol.system import process_ends, programs

MAX_OUTPUT_BYTES = 1 << 20
"""The most that a child may print. A source that prints more when it is loaded would fill the log at every start."""

START_SECONDS = 60.0
"""The seconds in which a child starts, on a machine that is busy with other things: half a second of it is imports."""

MAX_FRAME_BYTES = 1 << 20

_HEAD = struct.Struct(">Q")
_READ_BYTES = 1 << 20
_CHECK_SECONDS = 0.05
# Parts that have been read from the pipes of a child and not been taken yet.
_WAITING_PARTS = 8
# Seconds that what an ended child has written may take to be read, if a process that it left holds its pipes open.
_REST_SECONDS = 0.5
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
        self._arrived: queue.Queue[tuple[_Pipe, bytes]] = queue.Queue(_WAITING_PARTS)
        command = [sys.executable, "-m", f"{__package__}.{module}", str(os.getpid()), str(memory_bytes)]
        try:
            with tempfile.TemporaryFile() as file:
                file.write(request)
                file.seek(0)
                self._process: subprocess.Popen[bytes] = subprocess.Popen(
                    command,
                    **programs.python(),
                    stdin=file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    **programs.own_group(),
                )
        except OSError as error:  # the machine has no room for a process, a descriptor or a file
            raise ChildLost(f"no process could be started for it: {error.strerror}") from error
        self._results, self._prints = (
            _Pipe(pipe, self._arrived) for pipe in (self._process.stdout, self._process.stderr) if pipe is not None
        )

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
        has_ended = process_ends.has_ended(self._process)  # asked first: what it had written by then is read below
        wait = _CHECK_SECONDS if not has_ended else 0.0 if self._is_drained() else _REST_SECONDS
        try:
            pipe, content = self._arrived.get(timeout=wait)
        except queue.Empty:
            is_at_end = has_ended
        else:
            if pipe is self._results:
                self._received += content
            else:
                self._printed += len(content)
                self._output = (self._output + content)[-_KEPT_OUTPUT_BYTES:]
            pipe.is_at_end = pipe.is_at_end or not content
            is_at_end = has_ended and self._is_drained()
        if self._printed > MAX_OUTPUT_BYTES:
            raise self._end(f"it printed more than {MAX_OUTPUT_BYTES >> 20} MiB")
        if is_at_end:
            raise self._end(None)
        if time.monotonic() > deadline:
            raise self._end(f"it did not come back within {seconds:g} s")

    def _is_drained(self) -> bool:
        return self._results.is_at_end and self._prints.is_at_end

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
            process_ends.kill_with_descendants(self._process)
            self._process.wait()
        for pipe in (self._results, self._prints):
            pipe.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Pipe:
    """One of a child's pipes, which a thread reads: not every system can wait for several pipes at once.

    The thread closes the pipe when nobody writes to it any more, so that it never reads from another file.
    """

    def __init__(self, pipe: IO[bytes], arrived: queue.Queue[tuple[_Pipe, bytes]]) -> None:
        self.is_at_end = False  # the last part that was taken was its end
        self._pipe = pipe
        self._arrived = arrived
        self._is_wanted = True
        self._thread = threading.Thread(target=self._read, name="backtestr child's pipe", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._pipe:
            content = b"begin"
            while content and self._is_wanted:
                content = os.read(self._pipe.fileno(), _READ_BYTES)
                self._put(content)

    def _put(self, content: bytes) -> None:
        while self._is_wanted:
            try:
                return self._arrived.put((self, content), timeout=_CHECK_SECONDS)
            except queue.Full:
                continue

    def close(self) -> None:
        """Read no more; the child has ended. A process that holds the pipe open is not waited for."""
        self._is_wanted = False
        self._thread.join(_REST_SECONDS)


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
