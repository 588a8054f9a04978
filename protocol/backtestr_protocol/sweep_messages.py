"""This module has the contracts of sweeps: many backtests over the values of some parameters, as one task.

A cell is a combination of the space by its number: with the parameters in the order of the space, the last one varies
first. A row is the figures of one cell, and is named by its cell.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from .errors import ErrorData
from .messages import BacktestConfig, BacktestId, BacktestState, Contract, TableRef
from .ranges import FreeMap, Name, NotNegative, Positive, check_levels
from .stream_messages import Column

SweepMethod = Literal["grid", "random", "tpe", "cmaes"]
Direction = Literal["maximize", "minimize"]
SweepPathName = Literal["fused", "general", "single_runs"]

# Rows of one sweep: of ten million, some 600 bytes each, the table has 6 GB on disk.
MAX_COMBINATIONS = 10_000_000
# Trials that a sweep with method random makes where it names no number.
DEFAULT_TRIALS = 1_000
# Those of a method that learns from rows, where it names no number, and the most: a proposal takes longer with every
# trial before it, 0.1 s with so many.
DEFAULT_LEARNT_TRIALS = 200
MAX_LEARNT_TRIALS = 10_000
# Trials that are proposed together where a sweep names no number, by method, and the most.
DEFAULT_BATCH: dict[SweepMethod, int] = {"tpe": 16, "cmaes": 8}
MAX_BATCH = 256
# Cells of one block. A block of the fastest path is a quarter of a second of work then, and its rows take 20 MB.
MAX_BLOCK = 32_768
# The names of metrics that a sweep may ask for: more than there are.
MAX_METRICS = 128
# A constraint or a filter is written by hand.
MAX_EXPRESSION = 1_000
# Rows of one answer: 30 MB with all metrics.
MAX_ROWS = 50_000
DEFAULT_ROWS = 10_000
# Finished cells that all progress messages of a sweep name together. Of a larger space every nth cell is named.
MAX_LIVE_CELLS = 65_536
# Sweeps that a broker keeps, ended ones included, until they are deleted.
MAX_SWEEPS = 1_000
# Sweeps that an answer lists where no limit is named.
LISTED_SWEEPS = 100

Expression = Annotated[str, msgspec.Meta(max_length=MAX_EXPRESSION)]
# The address of a Dask scheduler.
MAX_ADDRESS = 220
# Workers of a cluster that a status names as refused: of a large cluster with one wrong image, some say enough.
MAX_REFUSED = 16
# The address of a worker, and what differs.
Refusal = Annotated[str, msgspec.Meta(max_length=1_000)]

SchedulerAddress = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(?:(?:tcp|tls)://(?:[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.%]+\]):[0-9]{1,5})?(?!\n)$",
        max_length=MAX_ADDRESS,
        description="the address of a Dask scheduler, such as tcp://10.0.0.5:8786 or tls://host:8786, or an empty text",
    ),
]


class StartSweep(Contract, frozen=True, kw_only=True):
    """A sweep to run, or with `dry_run` only to check, count and estimate.

    `config` is that of each of its backtests, as in StartBacktest and without a `backtest_id`; its `parameters` are the
    ones that are not swept. `space` has, by parameter, a value, a list of values, or `{low, high, step}`, both ends
    included, or `{low, high, distribution}` with `uniform` or `log_uniform`. `where` is a constraint on parameters,
    such as `fast < slow`. `grid` runs every combination, and all other methods so many `trials` of them, each once:
    `random` those that `seed` alone selects, and `tpe` and `cmaes` those that they propose from the rows of earlier
    ones, `batch_size` of them at a time. `objective` names the metric that `direction` is about. `metrics` are the
    figures of each row: the usual ones if absent, and every one for `["all"]`. `block_size` is the number of cells that
    a worker takes at a time; if absent, it follows from the measured speed. `scheduler` is the address of the Dask
    cluster that computes it: absent, that of the broker's configuration; empty, none, so that the broker's own workers
    do.
    """

    sweep_id: BacktestId | None = None
    config: BacktestConfig
    space: FreeMap
    where: Expression | None = None
    method: SweepMethod = "grid"
    trials: Annotated[int, msgspec.Meta(ge=1, le=MAX_COMBINATIONS)] | None = None
    seed: NotNegative = 0
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_BATCH)] | None = None
    objective: Name = "sharpe_ratio"
    direction: Direction = "maximize"
    metrics: Annotated[list[Name], msgspec.Meta(max_length=MAX_METRICS)] | None = None
    block_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_BLOCK)] | None = None
    scheduler: SchedulerAddress | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        check_levels(self.space, "$.space")


class SweepAccepted(Contract, frozen=True, kw_only=True):
    """The answer to StartSweep and to Pause-, Resume- and StopSweep.

    The sweep runs `combinations` of its `cells`; where the number is not `exact`, it is told from a sample of the
    space. `estimated_ms` is how long that takes on all compute workers if they do nothing else. `notes` say what the
    sweep does in another way than it was asked to. The answer to a dry run has no `sweep_id` and no `status`.
    `batch_size` is that of a sweep that learns from its rows. `trials_before` is how many combinations this broker had
    run with this algorithm on these bars, in sweeps and backtests, before the sweep began; `trial_group` names them for
    GetTrials.
    """

    sweep_id: str | None = None
    status: BacktestState | None = None
    cells: int
    combinations: int
    exact: bool = True
    estimated_ms: int
    path: SweepPathName
    path_reason: str
    notes: list[str] = []
    batch_size: int | None = None
    trials_before: int | None = None
    trial_group: str | None = None


class SweepRef(Contract, frozen=True, kw_only=True):
    """The data of Pause-, Resume-, Stop- and DeleteSweep and GetSweepStatus."""

    sweep_id: Name


class SweepBest(Contract, frozen=True, kw_only=True):
    """The best row so far: its cell, its value of the objective, and its swept parameters."""

    cell: NotNegative
    value: float
    parameters: dict[Name, Any]


class SweepCluster(Contract, frozen=True, kw_only=True):
    """The cluster that computes a sweep, as its latest blocks found it.

    `workers` of the scheduler's compute. `refused` names those that would compute other bits, and what differs.
    """

    scheduler: SchedulerAddress
    workers: NotNegative = 0
    refused: Annotated[list[Refusal], msgspec.Meta(max_length=MAX_REFUSED)] = []


class SweepStatus(Contract, frozen=True, kw_only=True):
    """The status of a sweep: `done` of `of` combinations, of which `failed` ones have a reason in place of figures.

    `rate` is in combinations a second, and absent until some are done. `time_left_ms` follows from it. `blocks` are
    being computed at this moment. `work_ms` is the time that workers have spent on what is done, added up. `cluster` is
    that of a sweep on several machines. A paused sweep with an `error` has lost its cluster.
    `trials_before` is how many combinations this broker had run with this algorithm on these bars, in sweeps and
    backtests, when the sweep was accepted. `trials_after` is that number soon after the sweep has ended, its own
    combinations included; it is absent until then. GetTrials with `trial_group` gives the number at any moment.
    """

    sweep_id: str
    status: BacktestState
    algorithm_id: str
    symbols: list[str]
    timeframe: str
    method: SweepMethod
    objective: str
    direction: Direction
    cells: int
    of: int
    exact: bool = True
    done: int
    failed: int
    progress_percent: float
    blocks: int = 0
    rate: float | None = None
    time_left_ms: int | None = None
    work_ms: int = 0
    best: SweepBest | None = None
    submit_time: int
    start_time: int | None = None
    end_time: int | None = None
    cluster: SweepCluster | None = None
    error: ErrorData | None = None
    trials_before: int | None = None
    trials_after: int | None = None
    trial_group: str | None = None


class SweepDetails(SweepStatus, frozen=True, kw_only=True):
    """The answer to GetSweepStatus: the status, and `sweep`, the request with all that it left out filled in."""

    path: SweepPathName
    path_reason: str
    notes: list[str] = []
    sweep: StartSweep


class ListSweeps(Contract, frozen=True, kw_only=True):
    status: BacktestState | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_SWEEPS)] | None = None


class SweepList(Contract, frozen=True, kw_only=True):
    """The sweeps, the latest first; `count` is of all, also of those beyond the limit."""

    sweeps: list[SweepStatus]
    count: int


class GetSweepResults(Contract, frozen=True, kw_only=True):
    """The rows to read: `limit` of those for which `where` holds, after the first `offset`, in the order of `sort`.

    `sort` names a column; without it rows are in the order of their cells. Rows without a value of it come last, and
    equal ones in the order of their cells. `where` is an expression on columns, such as `sharpe_ratio > 1`. `columns`
    are those of the answer beside `cell`, all if absent. With `mapped` the table may come as a table file.
    """

    sweep_id: Name
    sort: Name | None = None
    descending: bool = False
    where: Expression | None = None
    offset: NotNegative = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_ROWS)] = DEFAULT_ROWS
    columns: Annotated[list[Name], msgspec.Meta(max_length=2 * MAX_METRICS)] | None = None
    mapped: bool = False


class SweepResults(Contract, frozen=True, kw_only=True):
    """The table `rows`; `matching` rows fulfil the filter, of `stored` ones."""

    sweep_id: str
    stored: int
    matching: int
    tables: list[TableRef]


class GetSweepRun(Contract, frozen=True, kw_only=True):
    """The row, by its cell, to start as a backtest of its own."""

    sweep_id: Name
    row: NotNegative
    backtest_id: BacktestId | None = None


class DeletedSweep(Contract, frozen=True, kw_only=True):
    """The answer to DeleteSweep; `freed_bytes` is what its rows took on disk."""

    sweep_id: str
    freed_bytes: int


class SweepProgress(SweepStatus, frozen=True, kw_only=True):
    """The progress of a sweep, after each block of it.

    `cells_done` are finished cells as columns: `cell`, `trial` where the method is `tpe` or `cmaes`, the swept
    parameters, and `value`, that of the objective, NaN where it is undefined. A parameter that is true or false is 1 or
    0, and one that is text is the place of its value in the list of the space. Every `stride`th cell is named.
    """

    cells_done: dict[Name, Column] = {}
    stride: Positive = 1
