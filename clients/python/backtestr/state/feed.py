"""What a `SharedState` lives on: the latest of each of its topics, and who is to hear of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from backtestr.io.callback_thread import CallbackThread
from backtestr.io.error_log import ErrorLog, ErrorReport
from backtestr.io.io_thread import IoThread
from backtestr_protocol.errors import BacktestrError


class StateFeed:
    def __init__(self, io_thread: IoThread, prefix: str, callbacks: CallbackThread, errors: ErrorLog) -> None:
        self._io_thread = io_thread
        self._callbacks = callbacks
        self._errors = errors
        self._prefix = prefix
        self._number, self.mailbox = io_thread.open(prefix, "latest")

    def tell(self, call: Callable[[], object]) -> None:
        self._callbacks.tell(call)

    def report(self, error: BacktestrError) -> None:
        self._errors.add(ErrorReport(error, self._prefix, time.time_ns() // 1_000_000))

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # the client is closed already
            self._io_thread.shut(self._number)
