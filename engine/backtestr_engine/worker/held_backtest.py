"""A backtest that a worker holds, running or parked: the state of its run beside the simulation.

It says when its next step is due and how many bars that has, and when progress is due.
"""

from __future__ import annotations

import contextlib
import math
from concurrent.futures import Future

from backtestr_engine.backtest.result_store import ResultStore, Storing
from backtestr_engine.backtest.run import Run

from .checkpoints import Checkpoint
from .logged_streams import LoggedStreams
from .pace import Pace

# Seconds between two steps of a backtest with a pace: more steps would not be visible, and each has its messages.
MOMENT = 0.01
# Bars between two calls that write the result ahead: fewer take longer to hand over than to write at the end.
BARS_AHEAD = 1 << 17


class HeldBacktest:
    """A run with its streams and its checkpoint.

    Its time limit counts the seconds `spent` on steps, not those parked or paced.
    """

    def __init__(self, run: Run, logged: LoggedStreams, checkpoint: Checkpoint, *, to_check: bool) -> None:
        self.run = run
        self.logged = logged
        self.streams = logged.streams
        self.checkpoint = checkpoint
        self.trial: Future[str] | None = None  # its entry in the ledger of trials
        self.storing: Storing | None = None  # its result, once it is written while bars are simulated
        self._written_ahead = 0  # bars of it
        self.to_check = to_check  # on its own bars: with a pace before it lends its worker, else after the last bar
        # Bars that an earlier worker has shown: the next one simulates them at full speed, whatever the pace.
        self.shown_bars = checkpoint.shown_bars
        self.has_begun = False  # its algorithm has run
        self.spent = 0.0
        self.call_seconds = 0.0  # that the algorithm took for its signals, with the first chunk
        self.progress_due = 0.0
        self.now = 0.0  # the end of the last step
        self.stepped = -math.inf  # the start of the last step
        self.turn = 0  # the number of that step among those of all backtests
        pace = run.plan.options.pace
        self.pace = None if pace is None else Pace(pace)

    @property
    def backtest_id(self) -> str:
        return self.run.backtest_id

    @property
    def time_limit(self) -> float:
        return self.run.plan.options.conventions.time_limit_ms / 1000

    @property
    def progress_interval(self) -> float:
        return self.run.plan.options.streams.progress_interval_ms / 1000

    @property
    def pace_in_force(self) -> Pace | None:
        """The pace of the next step, if it has one."""
        return None if self.run.done or self.run.bars_simulated < self.shown_bars else self.pace

    @property
    def due_at(self) -> float:
        """The time at which the next step is due."""
        if (pace := self.pace_in_force) is None:
            return self.now
        return max(pace.deadline(self.now), self.stepped + MOMENT)

    def write_ahead(self, results: ResultStore) -> None:
        """Have what is simulated so far written to the result, so that its end waits for the last of it alone.

        One with a pace has time at its end. Where the disk does not take it, the end says so.
        """
        simulated = self.run.bars_simulated
        if self.pace is not None or self.run.done or simulated - self._written_ahead < BARS_AHEAD:
            return
        self._written_ahead = simulated
        with contextlib.suppress(OSError):
            self.storing = self.storing or results.begin(self.backtest_id)
            self.storing.so_far(self.run.simulation)

    def trial_group(self) -> str | None:
        """Return the group of its trial once that is on disk; None without a ledger. Raises `OSError`."""
        return None if self.trial is None else self.trial.result()

    def discard_result(self) -> None:
        """Remove what is written of the result."""
        if self.storing is not None:
            self.storing.discard()
            self.storing, self._written_ahead = None, 0

    def due(self, chunk_bars: int, now: float) -> int:
        """Return the number of bars to simulate now: a chunk, or as many of it as are due by the pace."""
        if (pace := self.pace_in_force) is not None:
            return min(chunk_bars, pace.due(now))
        if self.pace is not None:
            chunk_bars = min(chunk_bars, self.shown_bars - self.run.bars_simulated)
        return self.logged.bars_until_progress(chunk_bars)

    def takes_progress(self, now: float) -> bool:
        """Return True if progress is due, and set the next time.

        With a pace, progress comes with the step that is nearest to that time, so that every step has progress if steps
        are as rare.
        """
        slack = 0.0 if self.pace is None else 0.5 / self.pace.rate
        if now + slack < self.progress_due:
            return False
        self.progress_due = now + self.progress_interval
        return True
