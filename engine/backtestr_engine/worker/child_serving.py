"""The part of a child process that is the same for all work: its start, its limits, its answers and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import msgspec

from backtestr_protocol.errors import BacktestrError
from backtestr_protocol.system.process_ends import adopt_orphans, end_children, end_with_parent

from .child_process import Frames, take_request
from .resources import limit_memory


def serve_child(work: Callable[[Frames, bytes], None]) -> NoReturn:
    """Do the work that a parent has started this process for, then end it and whatever it has started.

    `work` gets the request, and sends its answers. An empty frame before tells the parent that the work begins.
    """
    parent, memory_bytes = map(int, sys.argv[1:3])
    end_with_parent(parent)
    adopt_orphans()
    frames = Frames()
    request = take_request()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    limit_memory(memory_bytes)
    frames.send(b"")
    try:
        work(frames, request)
    finally:
        end_children()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(0 if sys.exc_info()[0] is None else 1)


def answered(work: Callable[[], msgspec.Struct]) -> bytes:
    """Return the frame of an answer and an error, one of which is nil."""
    try:
        return msgspec.msgpack.encode((work(), None))
    except BacktestrError as error:
        data = error.to_data(component="engine", timestamp=time.time_ns() // 1_000_000)
        return msgspec.msgpack.encode((None, data))
