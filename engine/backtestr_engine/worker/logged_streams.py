"""The streams of a backtest that a worker holds, with their log: it makes progress, and pages of what was published.

Progress follows the clock. So a worker states at which bars it makes progress, before it sends any message of it; if
it is lost, the next one makes the progress and the marks at those bars again, and all topics continue as they were. One
that goes on from a checkpoint has the log up to there: the numbers of all messages follow from it and the records.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from backtestr_engine.backtest.run import Run
from backtestr_engine.data.arrays import Records
from backtestr_engine.publishing.backtest_streams import BacktestStreams, Made
from backtestr_engine.publishing.stream_pages import Pack, last_seq, messages, page
from backtestr_protocol import topics
from backtestr_protocol.errors import Busy
from backtestr_protocol.messages import FetchMissed
from backtestr_protocol.worker_channel import Continued, Counted, Fetch

from .checkpoints import Checkpoint

# Milliseconds until messages that a lost worker has published may have been made again.
RETRY_AFTER_MS = 200


class LoggedStreams:
    """The streams of one run.

    The checkpoint has their log up to its bars. The broker was told of the first `told` of its messages of progress.
    """

    def __init__(self, run: Run, streams: BacktestStreams, checkpoint: Checkpoint, told: int) -> None:
        self.streams = streams
        self.log = checkpoint.log
        self._checkpoint = checkpoint
        self._run = run
        self._repeated = deque(checkpoint.progress_at[self.log.progress_made :])
        self._made_at = list(checkpoint.progress_at[told:])
        self._percent: float | None = None

    @property
    def backtest_id(self) -> str:
        return self._run.backtest_id

    @property
    def symbols(self) -> Sequence[str]:
        return self._run.plan.panel.symbols

    @property
    def orders(self) -> Records:
        """Every state of every order so far."""
        return self._run.events.orders

    @property
    def positions(self) -> Records:
        """Every change of a position so far."""
        return self._run.events.positions

    @property
    def numbers(self) -> dict[str, int]:
        """The number of the last message of each topic of its own, as far as they are made."""
        return {topic: last_seq(self, self.log, topic) for topic in topics.of_backtest(self.backtest_id)}

    def continued(self) -> Continued:
        """Return the message that tells a later broker with which numbers the topics go on."""
        return Continued(
            task_id=self.backtest_id,
            numbers=self.numbers,
            progress_at=list(self._checkpoint.progress_at),
            progress_percent=self.log.percent,
        )

    def catch_up(self) -> Made:
        """Return the messages that the lost worker has made of the bars in its checkpoint, and has not published."""
        found = self.streams.catch_up(
            self._run.bars_simulated, self.numbers, lambda *wanted: messages(self, self.log, *wanted)
        )
        self._percent = self.log.percent
        return found

    @property
    def is_behind(self) -> bool:
        """True while something that an earlier worker has published or stated is not made again."""
        return self.streams.is_behind or bool(self._repeated)

    def bars_until_progress(self, bars: int) -> int:
        """Return `bars`, or the fewer after which the lost worker has made progress."""
        return min(bars, self._repeated[0] - self._run.bars_simulated) if self._repeated else bars

    def repeated_progress(self) -> Made:
        """Return the messages of progress that the lost worker has made at this bar, but those that it has sent."""
        found: Made = []
        while self._repeated and self._repeated[0] <= self._run.bars_simulated:
            self._repeated.popleft()
            if self.log.bars != self._run.bars_simulated:
                found += self._progress()
        return found

    def progress(self, *, is_last: bool = False) -> Made:
        """Return the messages of progress at this bar: the open positions at its prices, then the progress.

        There are none where progress was made at this bar, while what a lost worker has published is made again, and,
        unless it `is_last`, where the log has no room.
        """
        bars = self._run.bars_simulated
        found = self.repeated_progress()
        if self.is_behind or self.log.bars == bars:
            return found
        if not is_last and not self.log.has_room(bars / self._run.bars_total):
            return found
        self._made_at.append(bars)
        self._checkpoint.progressed(bars)
        return found + self._progress()

    def _progress(self) -> Made:
        progress, marks = self._run.progress(), self._run.marks()
        if not self.streams.has_marks:
            marks = marks[:0]
        self.log.add(self._run.bars_simulated, progress, self.positions, marks)
        made = self.streams.progress(progress, marks)
        if not any(topic == topics.progress(self.backtest_id) for topic, _ in made):
            self._percent = progress.progress_percent
        return made

    def counted(self) -> list[Counted]:
        """Return the message, if there is one, that has to be sent before any that were made since the last call."""
        counts, made_at, percent = self.streams.take_counts(), self._made_at, self._percent
        if not counts and not made_at:
            return []
        self._made_at, self._percent = [], None
        return [Counted(task_id=self.backtest_id, counts=counts, progress_at=made_at, progress_percent=percent)]

    def page(self, fetch: Fetch, pack: Pack) -> bytes:
        """Return the data of the answer to FetchMissed.

        Raises `Busy` where messages of a lost worker have not been made again yet, and `ValidationError` for a topic of
        another backtest.
        """
        request = FetchMissed(topic=fetch.topic, from_seq=fetch.from_seq, to_seq=fetch.to_seq)
        is_known = fetch.topic in topics.of_backtest(self.backtest_id)
        if is_known and last_seq(self, self.log, fetch.topic) < fetch.from_seq <= fetch.to_seq:
            raise Busy(
                f"message {fetch.from_seq} is made again, since its worker was lost; ask again in {RETRY_AFTER_MS} ms",
                retryAfterMs=RETRY_AFTER_MS,
            )
        return page(self, self.log, request, pack)
