"""Sweeps for tests of the core: checked ones, and workers that store rows where the next broker finds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from backtestr_protocol import worker_channel
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.sweep_messages import StartSweep, SweepBest
from backtestr_protocol.sweep_tasks import (
    BlockDone,
    CheckedSweep,
    ProposedBatch,
    SpanDone,
    SurveyedSweep,
    SweepBlock,
    SweepProposal,
    SweepSpan,
    SweepSurvey,
)
from backtestr_protocol.trial_messages import GetTrials, TrialGroup, TrialList
from support.broker.clients import Client
from support.broker.link import Link, Worker, config
from support.protocol.independent import Fields

UNITS = 1_000
# So that the first block, of a guessed speed, has 25 units.
BARS = 100_000
# The seconds of a unit that scripted workers tell: a block of 250 ms has 50.
UNIT_SECONDS = 0.005
# The group that the rows of all sweeps are trials of.
GROUP = "0123456789abcdef" * 2

_start = msgspec.msgpack.Decoder(StartSweep)
_block = msgspec.msgpack.Decoder(SweepBlock)
_span = msgspec.msgpack.Decoder(SweepSpan)
_survey = msgspec.msgpack.Decoder(SweepSurvey)
_proposal = msgspec.msgpack.Decoder(SweepProposal)
_trials = msgspec.msgpack.Decoder(GetTrials)

# By sweep and unit, the reason of a failed row, or None: what workers have stored.
Rows = dict[str, dict[int, str | None]]


def request(sweep_id: str | None = "s1", **changes: Any) -> Fields:
    """Return a StartSweep as a client sends it."""
    named = {} if sweep_id is None else {"sweepId": sweep_id}
    space = {"fast": {"low": 1, "high": UNITS, "step": 1}}
    return {**named, "config": config(), "space": space, "objective": "sharpe_ratio", **changes}


def checked(data: bytes, units: int = UNITS, trials_before: int = 0) -> bytes:
    """Return what an interactive worker makes of a request."""
    sweep = decode(_start, data)
    return encode(
        CheckedSweep(
            sweep=sweep,
            cells=units,
            combinations=units,
            exact=True,
            units=units,
            bars=BARS,
            path="general",
            path_reason="it is a test",
            data_version="bars",
            trial_group=GROUP,
            trials_before=trials_before,
        )
    )


class SweepWorkers:
    """The answers of workers to the tasks of sweeps, and the rows that they have stored: `rows` outlives a broker."""

    def __init__(self, link: Link, units: int = UNITS) -> None:
        self.link = link
        self.units = units
        self.rows: Rows = {}
        self.worst: set[int] = set()  # units that end their worker
        self.proposed: dict[str, int] = {}  # by sweep that learns from its rows, the units that are proposed
        self.trials: set[int] = set()  # units that were ever computed, deleted ones too
        plain = link.answer_to

        def answer_to(work: worker_channel.Work, data: bytes) -> bytes:
            match work:
                case "CheckSweep":
                    return checked(data, units, len(self.trials))
                case "GetTrials":
                    return self.counted(data)
                case "OpenSweepRun":
                    asked = msgspec.msgpack.decode(data)
                    opened = {**asked["checked"]["sweep"]["config"], "backtestId": asked["backtestId"]}
                    return encode(msgspec.convert(opened, BacktestConfig))
                case "DeleteSweep":
                    sweep_id = msgspec.msgpack.decode(data)["sweepId"]
                    self.proposed.pop(sweep_id, None)
                    return encode({"sweepId": sweep_id, "freedBytes": len(self.rows.pop(sweep_id, {}))})
                case _:
                    return plain(work, data)

        link.answer_to = answer_to  # type: ignore[method-assign]

    def block(self, worker: Worker) -> SweepBlock:
        """Return the block that the worker was assigned last."""
        message, payload = worker.received[-1]
        assert isinstance(message, worker_channel.Assign)
        assert message.work == "RunBlock"
        return decode(_block, payload[0])

    def has_task(self, worker: Worker) -> bool:
        """Return true if the worker is at a task of a sweep."""
        task_id = self.link.core.scheduler.workers.get(worker.worker_id).task_id
        return task_id is not None and task_id.startswith("sweep:")

    def store(self, worker: Worker) -> SweepBlock:
        """Store the rows of the worker's block, and say nothing yet."""
        block = self.block(worker)
        rows = self.rows.setdefault(block.sweep_id, {})
        if block.checked.sweep.batch_size is not None:
            assert block.first + block.count <= self.proposed[block.sweep_id], "it is not proposed yet"
        for unit in range(block.first, block.first + block.count):
            assert block.reason is not None or unit not in self.worst, "it would have ended"
            rows[unit] = block.reason
            self.trials.add(unit)
        return block

    def propose(self, data: bytes) -> bytes:
        """Store a batch of proposals, and return how many units are proposed."""
        asked = decode(_proposal, data)
        size, had = asked.checked.sweep.batch_size, self.proposed.get(asked.sweep_id, 0)
        assert size is not None
        if asked.batch * size < had:  # it is stored already
            assert had == min(self.units, (asked.batch + 1) * size)
        else:
            assert asked.batch * size == had == len(self.rows.get(asked.sweep_id, {})), (
                "earlier rows are not all stored"
            )
            self.proposed[asked.sweep_id] = min(self.units, had + size)
        return encode(ProposedBatch(proposed=self.proposed[asked.sweep_id]))

    def counted(self, data: bytes) -> bytes:
        """Return the group of all trials as an interactive worker counts it."""
        assert decode(_trials, data).group == GROUP
        group = TrialGroup(
            group=GROUP,
            algorithm="sma_cross",
            symbols=["BTCPERP"],
            timeframe="1m",
            data_version="bars",
            start_time=0,
            end_time=60_000,
            bars=BARS,
            trials=len(self.trials),
            runs=len(self.trials),
            first_time=0,
            last_time=0,
        )
        groups = [group] if self.trials else []
        return encode(TrialList(groups=groups, count=len(groups)))

    def span(self, worker: Worker) -> SweepSpan:
        """Return the span that the worker was assigned last."""
        message, payload = worker.received[-1]
        assert isinstance(message, worker_channel.Assign)
        assert message.work == "RunSpan"
        return decode(_span, payload[0])

    def do_span(self, worker: Worker, left: list[tuple[int, int]] | None = None, **told: Any) -> None:
        """Answer that all of the worker's span is stored but for ranges of units that are `left`."""
        span = self.span(worker)
        units = set(range(span.first, span.first + span.count))
        for first, count in left or []:
            units -= set(range(first, first + count))
        self.rows.setdefault(span.sweep_id, {}).update(dict.fromkeys(units))
        self.trials |= units
        done = SpanDone(
            first=span.first,
            count=span.count,
            rows=len(units),
            failed=0,
            seconds=UNIT_SECONDS * len(units),
            left=left or [],
            **told,
        )
        worker.finish(worker.assigned[-1].task_id, data=encode(done))

    def do(self, worker: Worker) -> None:
        """Do the task of a sweep that the worker was assigned, or end with it."""
        message, payload = worker.received[-1]
        assert isinstance(message, worker_channel.Assign)
        if message.work == "SurveySweep":
            asked = decode(_survey, payload[0])
            worker.finish(message.task_id, data=encode(self.survey(asked.sweep_id)))
            return
        if message.work == "ProposeBatch":
            worker.finish(message.task_id, data=self.propose(payload[0]))
            return
        block = self.block(worker)
        units = range(block.first, block.first + block.count)
        if block.reason is None and not self.worst.isdisjoint(units):
            self.link.lose_worker(worker)
            return
        self.store(worker)
        failed = len(units) if block.reason is not None else 0
        best = None if failed else SweepBest(cell=units[-1], value=float(units[-1]), parameters={"fast": units[-1]})
        done = BlockDone(
            first=block.first,
            count=block.count,
            rows=len(units),
            failed=failed,
            seconds=UNIT_SECONDS * len(units),
            best=best,
        )
        worker.finish(message.task_id, data=encode(done))

    def survey(self, sweep_id: str) -> SurveyedSweep:
        """Return what is stored of a sweep."""
        rows = self.rows.get(sweep_id, {})
        ranges: list[tuple[int, int]] = []
        for unit in sorted(rows):
            if ranges and sum(ranges[-1]) == unit:
                ranges[-1] = ranges[-1][0], ranges[-1][1] + 1
            else:
                ranges.append((unit, 1))
        good = [unit for unit, reason in rows.items() if reason is None]
        best = None
        if good:
            best = SweepBest(cell=max(good), value=float(max(good)), parameters={"fast": max(good)})
        failed = len(rows) - len(good)
        return SurveyedSweep(
            done=ranges,
            rows=len(rows),
            failed=failed,
            seconds=UNIT_SECONDS * len(rows),
            best=best,
            proposed=self.proposed.get(sweep_id, 0),
        )

    def run_to_end(self, sweep_id: str = "s1", most: int = 10_000) -> None:
        """Have all workers do their tasks until the sweep has ended."""
        sweep = self.link.core.scheduler.sweeping.sweeps.get(sweep_id)
        for _ in range(most):
            busy = [one for one in self.link.workers.values() if one.kind == "compute" and self.has_task(one)]
            if sweep.ended:
                return
            assert busy, f"no worker is at work, and the sweep is {sweep.status}"
            for worker in busy:
                if self.has_task(worker):
                    self.link.advance(0.1)
                    self.do(worker)
        raise AssertionError(f"the sweep has not ended: {sweep.status}")


def started(client: Client, sweep_id: str = "s1", **changes: Any) -> Mapping[str, Any]:
    """Start a sweep, and return the answer."""
    return client.ask("StartSweep", request(sweep_id, **changes))
