"""Pages of the streams of stored results, as an interactive worker answers FetchMissed of a backtest that has ended.

A late reader fetches page after page. So what the latest page was made of is kept, until the last page is read.
"""

from __future__ import annotations

from backtestr_engine.backtest.result_store import RecordedStreams, ResultStore
from backtestr_engine.publishing.stream_log import StreamLog, from_bytes
from backtestr_engine.publishing.stream_pages import PAGE, Pack, last_seq, page
from backtestr_protocol.errors import DataError
from backtestr_protocol.messages import FetchMissed
from backtestr_protocol.topics import backtest_of


class StoredStreams:
    """The streams of the results in a store; what one page was made of is kept for the next."""

    def __init__(self, results: ResultStore, pack: Pack) -> None:
        self._results = results
        self._pack = pack
        self._kept: tuple[tuple[int, int] | None, RecordedStreams, StreamLog] | None = None

    def page(self, request: FetchMissed) -> bytes:
        """Return the data of the answer to `request`, a topic of a backtest.

        Raises `NotFound` where no result or no log is stored, `DataError` for one that cannot be read.
        """
        recorded, log = self._read(backtest_of(request.topic) or "")
        answer = page(recorded, log, request, self._pack)
        if request.from_seq + PAGE > last_seq(recorded, log, request.topic):
            self._kept = None
        return answer

    def _read(self, backtest_id: str) -> tuple[RecordedStreams, StreamLog]:
        version = self._results.version(backtest_id)
        if self._kept is not None and self._kept[0] == version and self._kept[1].backtest_id == backtest_id:
            return self._kept[1:]
        self._kept = None
        recorded = self._results.recorded(backtest_id)
        try:
            log = from_bytes(recorded.log)
        except ValueError as error:
            raise DataError(f"the streams of backtest {backtest_id} cannot be read: {error}") from error
        self._kept = version, recorded, log
        return recorded, log
