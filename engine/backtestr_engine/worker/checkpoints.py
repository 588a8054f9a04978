"""The checkpoint of a backtest: the place from which another worker goes on if this one is lost.

Nothing is written within the first `INTERVAL` of work; after that, what has come since is appended whenever so much
work was done. After a loss the next worker is careful: it writes that it is about to run the algorithm, or a step, and
what came of it, step by step, until it has worked for an interval and is past what was published. Where a worker ends
in between, that step has ended it, and a step that has ended two is not tried again.

A checkpoint that cannot be written costs the backtest nothing but the checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from backtestr_engine.backtest.checkpoint_format import (
    MAGIC,
    Attempt,
    CheckpointHead,
    Contents,
    Progressed,
    Record,
    Writer,
    read_checkpoint,
)
from backtestr_engine.backtest.checkpoint_store import CheckpointFile, CheckpointStore
from backtestr_engine.backtest.run import Run
from backtestr_engine.backtest.run_state import SavedUpTo, Unfit, computed, fingerprint, go_on
from backtestr_engine.publishing.stream_log import StreamLog, from_bytes, to_bytes
from backtestr_protocol.worker_channel import Assign, Checkpointed

INTERVAL = 0.25
"""Seconds of work between two checkpoints; of one with a pace, seconds."""

FATAL = 2
"""Workers that the same step may end."""

_log = logging.getLogger(__name__)


class Checkpoint:
    """The checkpoint of one backtest: written by this worker, perhaps taken up from an earlier one.

    It has the stream log of the backtest, to which others add, and the bars at which workers have made progress so far,
    in order: the log ends somewhere among them.
    """

    def __init__(
        self, store: CheckpointStore | None, run: Run, *, careful: bool, paced: bool, progress_at: Sequence[int]
    ) -> None:
        """Take what decides when it is due; `progress_at` are the bars at which a worker has said it made progress."""
        options = run.plan.options.streams
        self.log = StreamLog(orders=options.orders, positions=options.positions)
        self.progress_at = progress_at
        self.is_taken_up = False
        self.fatal: tuple[int, int] | None = None  # the bars that have ended so many workers
        self._store = store
        self._run = run
        self._careful = careful
        self._paced = paced
        self._file: CheckpointFile | None = None
        self._writer = Writer()
        self._saved = SavedUpTo()
        self._saved_progress = 0  # messages of it that are saved
        self._has_signals = False
        self._saved_after = 0.0  # seconds of work
        self._saved_at: float | None = None
        self._told_after: float | None = None

    @classmethod
    def taken_up(
        cls,
        store: CheckpointStore | None,
        new_run: Callable[[], Run],
        assign: Assign,
        *,
        is_user_code: bool,
    ) -> tuple[Run, Checkpoint]:
        """Return a run and its checkpoint: behind the bars of that of an earlier worker, if there is one that fits."""
        run = new_run()
        paced = run.plan.options.pace is not None

        def checkpoint_of(one: Run) -> Checkpoint:
            return cls(store, one, careful=bool(assign.losses), paced=paced, progress_at=assign.progress_at or [])

        checkpoint = checkpoint_of(run)
        if store is None or not assign.resumes:
            return run, checkpoint
        try:
            content = store.read(assign.task_id)
            if content is not None:
                found = read_checkpoint(content)
                if found.head is None:
                    raise Unfit("it is damaged")
                if found.head.fingerprint != fingerprint(run.plan):
                    raise Unfit("it was made with another configuration, other data or another engine")
                checkpoint._take(found, go_on(run, found))
                checkpoint.fatal = _fatal(found, assign, is_user_code=is_user_code)
                checkpoint._open(content[: found.size])
        except (OSError, Unfit) as error:
            _log.warning(
                "the checkpoint of backtest %s is not used, and the backtest begins at its first bar: %s",
                assign.task_id,
                error,
            )
            _remove(store, assign.task_id)  # else a later worker might use it, and give numbers twice
            run = new_run()
            checkpoint = checkpoint_of(run)
        return run, checkpoint

    @property
    def shown_bars(self) -> int:
        """The bars of which earlier workers have made progress."""
        return self.progress_at[-1] if self.progress_at else 0

    def start(self) -> list[Checkpointed]:
        """Run the algorithm, if no earlier worker has; if this one is careful, keep what it gave."""
        run = self._run
        if run.started or not self._careful:
            return []
        self._attempt(0, 0)
        run.start()
        self._append_signals()
        return self._told(0.0)

    def before(self, bars: int) -> None:
        """Note that so many bars are about to be simulated."""
        if self._careful:
            self._attempt(self._run.bars_simulated, min(self._run.bars_simulated + bars, self._run.bars_total))

    def before_end(self) -> None:
        """Note that the backtest is about to end: its result is computed and stored."""
        if self._careful:
            self._attempt(self._run.bars_simulated, self._run.bars_simulated)

    def after(self, spent: float, now: float) -> list[Checkpointed]:
        """Write what has come since the last checkpoint if that is due after `spent` seconds of work.

        Returns messages for the broker.
        """
        if self._saved_at is None:
            self._saved_at = now
        run = self._run
        if self._careful and spent >= INTERVAL and run.bars_simulated >= self.shown_bars:
            self._careful = False
        elif not self._careful:
            passed = now - self._saved_at if self._paced else spent - self._saved_after
            if passed < INTERVAL or run.done:
                return []
        self._saved_after, self._saved_at = spent, now
        return self.save(spent)

    def save(self, spent: float) -> list[Checkpointed]:
        """Write what has come since the last checkpoint, and return messages."""
        if self._store is None:
            return []
        self._append_signals()
        log, self._saved_progress = to_bytes(self.log, self._saved_progress), self.log.progress_made
        self._append(lambda: self._saved.next_chunk(self._run, log))
        if self._careful and self._told_after is not None and spent - self._told_after < INTERVAL:
            return []
        return self._told(spent)

    def progressed(self, bars: int) -> None:
        """Note that progress is made at these bars, before its messages are sent."""
        if self._file is not None:
            self._append(lambda: Progressed(bars))

    def remove(self) -> None:
        """Remove the checkpoint: the backtest has ended."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        assert self._store is not None
        _remove(self._store, self._run.backtest_id)

    def _take(self, found: Contents, saved: SavedUpTo) -> None:
        """Take up what was found.

        Raises `Unfit` where progress was made elsewhere than its worker has said: messages would get other numbers.
        """
        self._saved = saved
        self._has_signals = self.is_taken_up = found.computed is not None
        self._writer = Writer(found.checksum)
        if found.chunks:
            try:
                self.log = from_bytes(*(one.log for one in found.chunks))
            except ValueError as error:
                raise Unfit(str(error)) from error
        self._saved_progress = self.log.progress_made
        noted = [*self.log.progress_at, *(bars for bars in found.progress_at if bars > self.log.bars)]
        if any(said != bars for said, bars in zip(self.progress_at, noted, strict=False)):
            raise Unfit("it was made before the worker that was lost")
        self.progress_at = max(self.progress_at, noted, key=len)

    def _told(self, spent: float) -> list[Checkpointed]:
        if self._file is None:
            return []
        self._told_after = spent
        return [Checkpointed(task_id=self._run.backtest_id, bars=self._saved.bars)]

    def _attempt(self, first_bar: int, stop_bar: int) -> None:
        self._append(lambda: Attempt(first_bar, stop_bar))

    def _append_signals(self) -> None:
        if not self._has_signals:
            self._has_signals = True
            self._append(lambda: computed(self._run))

    def _append(self, record: Callable[[], Record]) -> None:
        if self._file is None:
            self._open(None)
        if self._file is None:
            return
        try:
            self._file.append(self._writer.encode(record()))
        except (OSError, OverflowError, ValueError) as error:
            self._give_up(error)

    def _open(self, content: bytes | None) -> None:
        """Open the file with the content of an earlier one, or begin one."""
        if self._store is None:
            return
        try:
            if content is None:
                records: list[Record] = [CheckpointHead(fingerprint(self._run.plan))]
                records += [Progressed(bars) for bars in self.progress_at if bars > self.log.bars]
                content = MAGIC + b"".join(map(self._writer.encode, records))
            self._file = self._store.create(self._run.backtest_id, content)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Go on without checkpoints, and leave the room on the disk to the result."""
        _log.warning(
            "backtest %s goes on without checkpoints, since one could not be written: %s", self._run.backtest_id, error
        )
        self.remove()
        self._store = None


def _remove(store: CheckpointStore, backtest_id: str) -> None:
    try:
        store.remove(backtest_id)
    except OSError as error:  # the broker removes it with the next survey
        _log.warning("the checkpoint of backtest %s could not be removed: %s", backtest_id, error)


def _fatal(found: Contents, assign: Assign, *, is_user_code: bool) -> tuple[int, int] | None:
    """Return the bars that have ended too many workers, if there are any.

    The first worker writes no attempts. If it published no progress, it may have been the algorithm of a user that
    ended it.
    """
    attempts = len(found.attempts)
    if found.computed is None and is_user_code and not assign.progress_at and not assign.unnumbered:
        attempts = min(attempts + 1, assign.losses or 0)
    if attempts < FATAL:
        return None
    return found.attempts[-1].first_bar, max(one.stop_bar for one in found.attempts)
