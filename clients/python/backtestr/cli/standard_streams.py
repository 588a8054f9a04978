"""The standard streams of a command, which may be closed, full, or in an encoding that lacks most characters.

A stream that is closed takes everything and keeps nothing. Characters that the encoding lacks are written as in
Python's source. A full standard error costs no command its result; a full standard output does, and is said.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from backtestr_protocol.log_writer import open_standard_descriptors

_INPUT, _OUTPUT, _ERROR = 0, 1, 2
_EXIT_UNWRITABLE = 1


class Descriptor(io.FileIO):
    """A descriptor to write to. Its first failure is kept, and raised unless it is `quiet`; later ones say no more."""

    def __init__(self, number: int, *, quiet: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self._quiet = quiet
        self.failure: OSError | None = None

    def write(self, content: Any, /) -> int:
        """Return the number of bytes taken: all of them after a failure, since buffers try again at the end."""
        if self.failure is None:
            try:
                return super().write(content) or 0
            except OSError as error:
                self.failure = error
                if not self._quiet:
                    raise
        return len(memoryview(content).cast("B"))


def text_stream(descriptor: Descriptor, encoding: str) -> TextIO:
    """Return a stream of text that writes lines at once where a person reads them."""
    buffered = io.BufferedWriter(descriptor)
    is_watched = descriptor.isatty() or descriptor.fileno() == _ERROR
    return io.TextIOWrapper(buffered, encoding, errors="backslashreplace", line_buffering=is_watched)


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Run a command with streams that can be used, and end the program with its exit code, or that of a lost output."""
    open_standard_descriptors()
    if sys.stdin is None:
        sys.stdin = os.fdopen(_INPUT, "r", closefd=False)
    output = Descriptor(_OUTPUT, quiet=False)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout = text_stream(output, encoding)
    sys.stderr = text_stream(Descriptor(_ERROR, quiet=True), getattr(sys.stderr, "encoding", None) or encoding)
    code: Any = 0
    try:
        yield
    except SystemExit as end:
        code = end.code
    except OSError:
        if output.failure is None:
            raise
    with contextlib.suppress(OSError):  # kept as the failure
        sys.stdout.flush()
    if output.failure is not None:
        code = code or _EXIT_UNWRITABLE
        if output.failure.errno != errno.EPIPE:  # a reader that has seen enough, such as `head`, is no fault
            print(f"standard output cannot be written: {output.failure.strerror}", file=sys.stderr)
    sys.exit(code)
