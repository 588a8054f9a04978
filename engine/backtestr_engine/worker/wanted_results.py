"""The answer to a request for the results of a backtest, which waits for its end.

Its tables are made in a thread of their own, while the figures are computed and the result is stored: most of the time
for both is spent in numpy, polars and the disk, beside one another.
"""

from __future__ import annotations

import logging
import threading
from functools import partial

import msgspec

from backtestr_engine.backtest.run import RecordedRun
from backtestr_engine.backtest.tables import HandOver, Table
from backtestr_protocol.codec import encode
from backtestr_protocol.messages import BacktestResults, TableName, TableRef

_log = logging.getLogger(__name__)


class WantedResults:
    """The answer with these tables of a run, which are begun at once."""

    def __init__(self, recorded: RecordedRun, names: list[TableName], hand_over: HandOver) -> None:
        self._tables = [Table(name, partial(recorded.frame, name)) for name in names]
        self._hand_over = hand_over
        self._made: tuple[list[TableRef], list[bytes]] | None = None
        self._thread = threading.Thread(target=self._make, name="backtestr tables", daemon=True)
        self._thread.start()

    def frames(self, answer: BacktestResults) -> list[bytes]:
        """Return the frames of `answer` with the tables; none where these could not be made, and are read later."""
        self.join()
        if self._made is None:
            return []
        references, attachments = self._made
        return [encode(msgspec.structs.replace(answer, tables=references)), *attachments]

    def join(self) -> None:
        """Wait for the thread."""
        self._thread.join()

    def _make(self) -> None:
        try:
            self._made = self._hand_over(self._tables)
        except Exception:  # the backtest has its result, from which another worker makes the answer
            _log.exception("tables could not be made at the end of a backtest")
