"""Keep the sweeps, from acceptance on. Everything that can change a sweep's status is in this file.

    queued ──started──► running ──completed | failed | stopped──► (final, but for a failed one, which can be resumed)
      ▲                    │
      └──resumed── paused ◄┘ paused; also of a queued one

Finished blocks are on the worker's disk before they count here. So after a restart a survey of the disk says what is
left, and a record in the database need not follow every block.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal

import msgspec

from backtestr_broker.core.clients.answers import RequestKey
from backtestr_broker.core.records import SweepFigures, SweepRecord
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import Busy, ErrorData, StateConflict, unknown
from backtestr_protocol.messages import FINAL_STATES, BacktestState
from backtestr_protocol.stream_messages import Column
from backtestr_protocol.sweep_messages import (
    MAX_LIVE_CELLS,
    MAX_SWEEPS,
    SweepAccepted,
    SweepBest,
    SweepCluster,
    SweepDetails,
    SweepProgress,
    SweepStatus,
)
from backtestr_protocol.sweep_tasks import (
    USUAL_SPEED,
    BlockDone,
    CheckedSweep,
    SpanDone,
    SurveyedSweep,
    proposing_seconds,
)

from .sweep_blocks import BlockPlan
from .task_queue import RETRY_AFTER_MS

SweepEvent = Literal["started", "paused", "resumed", "completed", "failed", "stopped"]

TRANSITIONS: dict[tuple[BacktestState, SweepEvent], BacktestState] = {
    ("queued", "started"): "running",
    ("queued", "paused"): "paused",
    ("queued", "completed"): "completed",
    ("queued", "failed"): "failed",
    ("queued", "stopped"): "stopped",
    ("running", "paused"): "paused",
    ("running", "completed"): "completed",
    ("running", "failed"): "failed",
    ("running", "stopped"): "stopped",
    ("paused", "resumed"): "queued",
    ("paused", "completed"): "completed",
    ("paused", "failed"): "failed",
    ("paused", "stopped"): "stopped",
    ("failed", "resumed"): "queued",
}

# Blocks of which the rate is told: a few seconds of them.
RATED_BLOCKS = 32
# Workers that have spans of one sweep computed by its cluster: with two, its workers have the next blocks before the
# last ones of a span have ended. More would do nothing but keep backtests waiting.
MAX_SPANS = 2
# Sweeps that a wrong name is compared with, the newest.
COMPARED = 50

_checked_decoder = msgspec.msgpack.Decoder(CheckedSweep)


class Sweep:
    """One sweep, from its acceptance on. Times in milliseconds since the Unix epoch; `now` in monotonic seconds."""

    def __init__(
        self, sweep_id: str, checked: CheckedSweep, request_key: RequestKey, asked: str, submit_time: int
    ) -> None:
        self.sweep_id = sweep_id
        self.checked = checked
        self.request_key = request_key
        self.asked = asked  # the checksum of the request: the same again is answered, and not refused
        self.submit_time = submit_time
        self.start_time: int | None = None
        self.end_time: int | None = None
        self.status: BacktestState = "queued"
        self.error: ErrorData | None = None
        self.figures = SweepFigures()
        self.is_surveyed = True  # false: what is stored of it is not known yet
        self.surveyor: str | None = None  # the worker that finds out
        self.proposer: str | None = None  # the worker that proposes the next batch of trials
        self.proposals_lost = 0  # workers that were lost while they proposed it
        self.scheduler = checked.sweep.scheduler or None  # the address of the cluster that computes it
        self.cluster = None if self.scheduler is None else SweepCluster(scheduler=self.scheduler)
        in_spans = self.scheduler is not None
        batch, size = checked.sweep.batch_size, checked.sweep.block_size
        self.blocks = BlockPlan(checked.units, unit_seconds(checked), size, in_spans=in_spans, batch=batch)
        self._finished: deque[tuple[float, int]] = deque(maxlen=RATED_BLOCKS)  # when, and the rows

    @property
    def ended(self) -> bool:
        """True once the status is final."""
        return self.status in FINAL_STATES

    @property
    def stride(self) -> int:
        """The number of cells of which progress names one."""
        rows = self.checked.cells if self.checked.sweep.method == "grid" else self.checked.combinations
        return max(1, -(-rows // MAX_LIVE_CELLS))

    @property
    def is_done(self) -> bool:
        """True once every unit is on disk."""
        return self.is_surveyed and self.blocks.units_left == 0

    @property
    def is_at_work(self) -> bool:
        """True while a worker has a task of it: a block, a survey or a proposal, also of one that has ended."""
        return bool(self.blocks.in_flight) or self.surveyor is not None or self.proposer is not None

    def has_work(self) -> bool:
        """Return true if a worker could take a task of it now."""
        if self.status not in ("queued", "running"):
            return False
        if self.scheduler is not None and len(self.blocks.in_flight) >= MAX_SPANS:
            return False
        if not self.is_surveyed:
            return self.surveyor is None
        return self.blocks.has_left() or self.has_proposal()

    def has_proposal(self) -> bool:
        """Return true if the next batch of trials can be proposed, and nobody does it yet."""
        return self.proposer is None and self.blocks.next_batch() is not None

    def take_proposed(self, trials: int) -> None:
        """Take that so many of its trials are proposed, and on disk."""
        self.proposer, self.proposals_lost = None, 0
        self.blocks.take_proposed(trials)

    def block_done(self, worker_id: str, done: BlockDone, now: float) -> None:
        """Count a block, whose rows are on disk."""
        self.blocks.finished(worker_id, done.seconds)
        self._count(done, now)

    def is_at_span(self, worker_id: str) -> bool:
        """Return true if the worker has a span of it, which a cluster computes, and not a block."""
        return self.scheduler is not None and self.blocks.in_flight[worker_id].reason is None

    def span_done(self, worker_id: str, done: SpanDone, now: float) -> None:
        """Count what is on disk of a span, and take back what is left of it."""
        self.blocks.finished_but(worker_id, done.left, done.seconds, done.workers)
        if self.cluster is not None:
            self.cluster = msgspec.structs.replace(self.cluster, workers=done.workers, refused=done.refused)
        self._count(done, now)

    def _count(self, done: BlockDone | SpanDone, now: float) -> None:
        had = self.figures
        self.figures = SweepFigures(
            done=had.done + done.rows,
            failed=had.failed + done.failed,
            seconds=had.seconds + done.seconds,
            best=self._better(had.best, done.best),
        )
        self._finished.append((now, done.rows))

    def surveyed(self, found: SurveyedSweep) -> None:
        """Take what is stored of it."""
        self.surveyor, self.is_surveyed = None, True
        self.figures = SweepFigures(done=found.rows, failed=found.failed, seconds=found.seconds, best=found.best)
        self.blocks.surveyed(found.done, found.seconds)
        self.blocks.take_proposed(found.proposed)

    def worker_gone(self, worker_id: str, lost: str | None = None, *, killed: bool = False) -> None:
        """Take back what a worker had of it; `lost` is the reason where the worker itself was lost."""
        if self.surveyor == worker_id:
            self.surveyor = None
        elif self.proposer == worker_id:
            self.proposer = None
            self.proposals_lost += lost is not None
        elif lost is None:
            self.blocks.gave_back(worker_id)
        else:
            self.blocks.lost(worker_id, lost, killed=killed)

    def _better(self, one: SweepBest | None, other: SweepBest | None) -> SweepBest | None:
        """Return the better of two rows; of equal ones that of the lower cell, whichever came first."""
        if one is None or other is None:
            return one or other
        sign = 1.0 if self.checked.sweep.direction == "maximize" else -1.0
        return max(one, other, key=lambda best: (sign * best.value, -best.cell))

    # --- what clients see ---

    def _rate(self, now: float) -> float | None:
        """Return the combinations a second of the latest blocks; None until some are done, or while it does not run.

        The first of these blocks began at a time that is not known, so it is not counted.
        """
        if len(self._finished) < 2 or self.status != "running":
            return None
        seconds = now - self._finished[0][0]
        rows = sum(count for _, count in islice(self._finished, 1, None))
        return rows / seconds if seconds > 0.0 and rows else None

    def _left_ms(self, workers: int) -> int:
        return estimated_ms(self.checked, self.blocks.units_left, self.blocks.unit_seconds, workers)

    def _percent(self) -> float:
        if self.is_done or not self.checked.units:
            return 100.0
        if self.is_surveyed:
            return 100.0 * (1.0 - self.blocks.units_left / self.checked.units)
        return 100.0 * min(1.0, self.figures.done / max(1, self.checked.combinations))

    def _fields(self, now: float, workers: int) -> dict[str, Any]:
        checked, figures, config = self.checked, self.figures, self.checked.sweep.config
        rate, combinations = self._rate(now), max(self.checked.combinations, self.figures.done)
        time_left = None
        if rate is not None:
            time_left = round(1000.0 * (combinations - figures.done) / rate)
        elif self.status in ("queued", "running"):
            time_left = self._left_ms(workers)
        return {
            "sweep_id": self.sweep_id,
            "status": self.status,
            "algorithm_id": config.algorithm_id,
            "symbols": config.symbols or [config.symbol or ""],
            "timeframe": config.timeframe,
            "method": checked.sweep.method,
            "objective": checked.sweep.objective,
            "direction": checked.sweep.direction,
            "cells": checked.cells,
            "of": figures.done if self.status == "completed" else combinations,
            "exact": checked.exact or self.status == "completed",
            "done": figures.done,
            "failed": figures.failed,
            "progress_percent": self._percent(),
            "blocks": len(self.blocks.in_flight),
            "rate": rate,
            "time_left_ms": time_left,
            "work_ms": round(1000.0 * figures.seconds),
            "best": figures.best,
            "submit_time": self.submit_time,
            "start_time": self.start_time,
            "end_time": self.end_time,
            "cluster": self.cluster,
            "error": self.error,
            "trials_before": checked.trials_before,
            "trials_after": figures.trials_after,
            "trial_group": checked.trial_group,
        }

    def status_message(self, now: float, workers: int) -> SweepStatus:
        """Return the status as clients get it; `workers` is the number of those that compute."""
        return SweepStatus(**self._fields(now, workers))

    def details(self, now: float, workers: int) -> SweepDetails:
        """Return the status with the request."""
        checked = self.checked
        return SweepDetails(
            **self._fields(now, workers),
            path=checked.path,
            path_reason=checked.path_reason,
            notes=checked.notes,
            sweep=checked.sweep,
        )

    def progress(self, now: float, workers: int, cells_done: dict[str, Column]) -> SweepProgress:
        """Return the status with the cells that a block has just finished."""
        return SweepProgress(**self._fields(now, workers), cells_done=cells_done, stride=self.stride)

    def accepted(self, workers: int) -> SweepAccepted:
        """Return the answer to requests that start or change the sweep."""
        left = self._left_ms(workers)
        return msgspec.structs.replace(
            checked_answer(self.checked, workers), sweep_id=self.sweep_id, status=self.status, estimated_ms=left
        )

    def facts(self) -> dict[str, str]:
        """Return what the log has of it."""
        client_id, request_id = self.request_key
        facts = {"sweepId": self.sweep_id, "status": self.status, "clientId": client_id, "requestId": request_id}
        if self.error is not None:
            facts |= {"code": self.error.code, "message": self.error.message}
        return facts

    def record(self) -> SweepRecord:
        """Return the sweep's record on disk."""
        return SweepRecord(
            sweep_id=self.sweep_id,
            client_id=self.request_key[0],
            request_id=self.request_key[1],
            checked=encode(self.checked),
            asked=self.asked,
            submit_time=self.submit_time,
            start_time=self.start_time,
            end_time=self.end_time,
            status=self.status,
            error=self.error,
            figures=self.figures,
        )


def unit_seconds(checked: CheckedSweep) -> float:
    """Return how long a unit of a sweep takes as a rule: of units that the constraint leaves out, nothing."""
    share = checked.combinations / checked.units if checked.units else 1.0
    return USUAL_SPEED[checked.path] * checked.bars * max(share, 1e-3)


def estimated_ms(checked: CheckedSweep, units: int, seconds: float, workers: int) -> int:
    """Return how long so many units of a sweep take on so many workers, in whole milliseconds.

    Trials that are learnt from are proposed by one worker while all others wait.
    """
    together = max(1, min(workers, checked.sweep.batch_size or workers))
    method, known = checked.sweep.method, checked.units - units
    proposing = proposing_seconds(method, checked.units) - proposing_seconds(method, known)
    return round(1000.0 * (units * seconds / together + proposing))


def checked_answer(checked: CheckedSweep, workers: int) -> SweepAccepted:
    """Return the answer to a dry run of a sweep that has passed every check."""
    return SweepAccepted(
        cells=checked.cells,
        combinations=checked.combinations,
        exact=checked.exact,
        estimated_ms=estimated_ms(checked, checked.units, unit_seconds(checked), workers),
        batch_size=checked.sweep.batch_size,
        path=checked.path,
        path_reason=checked.path_reason,
        notes=checked.notes,
        trials_before=checked.trials_before,
        trial_group=checked.trial_group,
    )


def restored_sweep(record: SweepRecord) -> Sweep:
    """Return the sweep of an earlier broker; one that had not ended goes on behind what is stored of it.

    Raises `msgspec.ValidationError` for a sweep of another version.
    """
    checked = _checked_decoder.decode(record.checked)
    request_key = (record.client_id, record.request_id)
    sweep = Sweep(record.sweep_id, checked, request_key, record.asked, record.submit_time)
    sweep.status = "queued" if record.status == "running" else record.status
    sweep.start_time, sweep.end_time, sweep.error = record.start_time, record.end_time, record.error
    sweep.figures = record.figures
    sweep.is_surveyed = False
    return sweep


class Sweeps:
    """All sweeps that are known, in the order in which they were accepted."""

    def __init__(self) -> None:
        self._sweeps: OrderedDict[str, Sweep] = OrderedDict()
        self._by_request_key: dict[RequestKey, str] = {}
        self._turns: OrderedDict[str, None] = OrderedDict()  # those that have not ended; the next one stands first
        self.unsaved: dict[str, None] = {}  # sweeps whose records on disk are not what they are in memory

    def __iter__(self) -> Iterator[Sweep]:
        return iter(self._sweeps.values())

    def __len__(self) -> int:
        return len(self._sweeps)

    def __contains__(self, sweep_id: str) -> bool:
        return sweep_id in self._sweeps

    def check_room(self, starting: int) -> None:
        """Raise `Busy` where no further sweep may be started."""
        if len(self._sweeps) + starting >= MAX_SWEEPS:
            raise Busy(
                f"{MAX_SWEEPS:,} sweeps are kept, the most there can be: delete some (DeleteSweep)",
                retryAfterMs=RETRY_AFTER_MS,
            )

    def add(self, sweep: Sweep) -> None:
        """Add a sweep, whose id is free."""
        assert sweep.sweep_id not in self._sweeps
        self._sweeps[sweep.sweep_id] = sweep
        self._by_request_key[sweep.request_key] = sweep.sweep_id
        if not sweep.ended:
            self._turns[sweep.sweep_id] = None

    def restore(self, records: Iterable[SweepRecord]) -> list[str]:
        """Add the sweeps of an earlier broker; return those of another version, which cannot be read."""
        unreadable: list[str] = []
        for record in records:
            try:
                self.add(restored_sweep(record))
            except msgspec.MsgspecError:
                unreadable.append(record.sweep_id)
        return unreadable

    def get(self, sweep_id: str) -> Sweep:
        """Return a sweep. Raises `NotFound`, naming a near miss."""
        sweep = self._sweeps.get(sweep_id)
        if sweep is None:
            raise unknown("sweep", sweep_id, islice(reversed(self._sweeps), COMPARED))
        return sweep

    def started_by(self, request_key: RequestKey) -> Sweep | None:
        """Return the sweep that this request started, if it did."""
        sweep_id = self._by_request_key.get(request_key)
        return None if sweep_id is None else self._sweeps[sweep_id]

    def next(self) -> Sweep | None:
        """Return the sweep of which a worker takes the next task: from each in turn."""
        for sweep_id in self._turns:
            if (sweep := self._sweeps[sweep_id]).has_work():
                self._turns.move_to_end(sweep_id)
                return sweep
        return None

    def has_work(self) -> bool:
        """Return true if a worker could take a task of some sweep now."""
        return any(self._sweeps[sweep_id].has_work() for sweep_id in self._turns)

    def change(self, sweep: Sweep, event: SweepEvent, wall_ms: int, error: ErrorData | None = None) -> None:
        """Move `sweep` along the table above. Raises `StateConflict` where the table has no such arrow."""
        following = TRANSITIONS.get((sweep.status, event))
        if following is None:
            raise StateConflict(f"a sweep that is {sweep.status} cannot be {event}", status=sweep.status)
        sweep.status, sweep.error = following, error
        if event == "started" and sweep.start_time is None:
            sweep.start_time = wall_ms
        if event == "resumed":
            sweep.figures = msgspec.structs.replace(sweep.figures, trials_after=None)
        if event != "started":
            sweep._finished.clear()  # the rate begins anew
        sweep.end_time = wall_ms if sweep.ended else None
        if sweep.ended:
            self._turns.pop(sweep.sweep_id, None)
        else:
            self._turns.setdefault(sweep.sweep_id)
        self.unsaved[sweep.sweep_id] = None

    def counted(self, sweep: Sweep, trials: int) -> None:
        """Take the number of all trials on the data of a sweep that has ended."""
        sweep.figures = msgspec.structs.replace(sweep.figures, trials_after=trials)
        self.unsaved[sweep.sweep_id] = None

    def forget(self, sweep_id: str) -> None:
        """Remove a sweep that has ended."""
        sweep = self._sweeps.pop(sweep_id)
        del self._by_request_key[sweep.request_key]
        self._turns.pop(sweep_id, None)
        self.unsaved.pop(sweep_id, None)

    def check_invariants(self) -> None:
        assert len(self._by_request_key) == len(self._sweeps)
        assert set(self._turns) == {sweep.sweep_id for sweep in self if not sweep.ended}
        for sweep in self:
            sweep.blocks.check_invariants()
            assert (sweep.end_time is not None) == sweep.ended
            assert not (sweep.surveyor is not None and sweep.is_surveyed)
            assert sweep.proposer is None or sweep.blocks.next_batch() is not None
            assert not (sweep.blocks.in_flight and not sweep.is_surveyed)
