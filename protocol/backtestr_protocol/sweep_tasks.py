"""This module has the data of the tasks of sweeps, between the broker and its workers; they are not public.

A sweep is cut into blocks of units. A unit of a grid is a cell. One of random trials is a draw, which is the cell that
a seeded permutation of all cells has at that place; a draw that the constraint leaves out has no row. One of a sweep
that learns from its rows is a trial, whose cell a worker has proposed and stored. So a unit means the same in every
block, on every worker and after every restart.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from .errors import ErrorData
from .messages import BacktestId
from .ranges import Name, NotNegative, Number, Positive, Text
from .stream_messages import Column
from .sweep_messages import (
    MAX_BLOCK,
    MAX_LEARNT_TRIALS,
    MAX_REFUSED,
    Refusal,
    StartSweep,
    SweepBest,
    SweepMethod,
    SweepPathName,
)

# Units of one span: a second of a thousand workers, as blocks of the usual size.
MAX_SPAN = 64 * MAX_BLOCK
# Ranges of finished units in the answer to a survey: with blocks in their order there are few.
MAX_RANGES = 1_000_000
# Seconds of a combination and bar until they are measured, by path: measured on one core.
USUAL_SPEED: dict[SweepPathName, float] = {"fused": 6e-9, "general": 2e-8, "single_runs": 4e-7}


def proposing_seconds(method: SweepMethod, trials: int) -> float:
    """Return how long it takes to propose so many trials, one after the other: measured on one core.

    TPE looks at all earlier ones for each.
    """
    match method:
        case "tpe":
            return trials * (2e-3 + 8e-6 * trials)
        case "cmaes":
            return trials * 5e-4
        case _:
            return 0.0


class _Task(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The base of these structs."""


class CheckedSweep(_Task, frozen=True, kw_only=True):
    """A sweep that has passed every check, as every block of it gets it: the answer to `CheckSweep`.

    `sweep` has all that the request left out filled in, and the version of its algorithm. It runs `combinations` of
    `cells`, which are told from a sample unless `exact`, and are found in `units`. `bars` are those of all its symbols.
    `data_version` says which bars these are: blocks on others are refused. `trial_group` is the group that its rows are
    trials of, and `trials_before` how many were in it; sweeps of earlier versions have neither.
    """

    sweep: StartSweep
    cells: Positive
    combinations: NotNegative
    exact: bool
    units: NotNegative
    bars: Positive
    path: SweepPathName
    path_reason: Text
    data_version: Name
    notes: list[Text] = []
    trial_group: Name | None = None
    trials_before: NotNegative | None = None


class SweepBlock(_Task, frozen=True, kw_only=True):
    """The data of `RunBlock`: units to compute and store, every `stride`th cell of which is named in the answer.

    A block with a `reason` is not computed: its rows are stored as failed for that reason.
    """

    sweep_id: BacktestId
    checked: CheckedSweep
    first: NotNegative
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_BLOCK)]
    stride: Positive = 1
    limit_ms: Positive | None = None
    reason: Text | None = None


class BlockDone(_Task, frozen=True, kw_only=True):
    """The answer to `RunBlock`: its rows are on disk. `seconds` were spent on them."""

    first: NotNegative
    count: NotNegative
    rows: NotNegative
    failed: NotNegative
    seconds: Number
    best: SweepBest | None = None
    cells_done: dict[Name, Column] = {}


class SweepSpan(_Task, frozen=True, kw_only=True):
    """The data of `RunSpan`: units that a worker has a cluster compute, in blocks, and stores as they come back.

    A unit takes `unit_seconds` of one processor, as measured so far, or as a guess unless `is_measured`.
    """

    sweep_id: BacktestId
    checked: CheckedSweep
    first: NotNegative
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_SPAN)]
    stride: Positive = 1
    unit_seconds: Number
    is_measured: bool = False


class SpanDone(_Task, frozen=True, kw_only=True):
    """The answer to `RunSpan`: all of its units but those `left`, ranges as [first, count] in order, are on disk.

    `seconds` were spent on them by `workers` of the cluster, added up. Where some are left, `problem` says why, and
    the sweep fails for it, or, with `pauses`, waits until it is resumed. `refused` names workers of the cluster that
    got no block, and why.
    """

    first: NotNegative
    count: NotNegative
    rows: NotNegative
    failed: NotNegative
    seconds: Number
    best: SweepBest | None = None
    cells_done: dict[Name, Column] = {}
    left: Annotated[list[tuple[NotNegative, Positive]], msgspec.Meta(max_length=MAX_SPAN)] = []
    problem: ErrorData | None = None
    pauses: bool = False
    workers: NotNegative = 0
    refused: Annotated[list[Refusal], msgspec.Meta(max_length=MAX_REFUSED)] = []


class SweepProposal(_Task, frozen=True, kw_only=True):
    """The data of `ProposeBatch`: propose the trials of a batch, whose earlier ones are all done, and store them.

    A batch that is stored already stays what it is.
    """

    sweep_id: BacktestId
    checked: CheckedSweep
    batch: NotNegative


class ProposedBatch(_Task, frozen=True, kw_only=True):
    """The answer to `ProposeBatch`: so many trials of the sweep have been `proposed` in all, and are on disk."""

    proposed: Annotated[int, msgspec.Meta(ge=1, le=MAX_LEARNT_TRIALS)]


class SweepSurvey(_Task, frozen=True, kw_only=True):
    """The data of `SurveySweep`: say what is stored of it."""

    sweep_id: BacktestId
    checked: CheckedSweep


class SurveyedSweep(_Task, frozen=True, kw_only=True):
    """The answer to `SurveySweep`: the stored ranges of units as [first, count], in order, and what is in them.

    Of a sweep that learns from its rows, so many trials have been `proposed`.
    """

    done: Annotated[list[tuple[NotNegative, Positive]], msgspec.Meta(max_length=MAX_RANGES)]
    rows: NotNegative
    failed: NotNegative
    seconds: Number
    best: SweepBest | None = None
    proposed: NotNegative = 0


class SweepRow(_Task, frozen=True, kw_only=True):
    """The data of `OpenSweepRun`; the answer is the checked configuration of that row's backtest."""

    checked: CheckedSweep
    row: NotNegative
    backtest_id: BacktestId
