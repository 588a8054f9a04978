"""This module has the contracts of stored results: listing, pinning, deleting, and the use of the disk."""

from __future__ import annotations

from .messages import BacktestState, Contract
from .ranges import Name, NotNegative, Positive

# Results that an answer lists where no limit is named, and at most; and those that one PruneResults deletes at most.
LISTED = 1_000
MAX_LISTED = 10_000
MAX_PRUNED = 1_000


class DeletedBacktest(Contract, frozen=True, kw_only=True):
    """The answer to DeleteBacktest; `freed_bytes` is what its results took on disk."""

    backtest_id: str
    freed_bytes: int


class PinBacktest(Contract, frozen=True, kw_only=True):
    """The backtest to pin, or with `pinned` false to unpin."""

    backtest_id: Name
    pinned: bool


class PinnedBacktest(Contract, frozen=True, kw_only=True):
    backtest_id: str
    pinned: bool


class ListResults(Contract, frozen=True, kw_only=True):
    limit: Positive | None = None


class StoredResult(Contract, frozen=True, kw_only=True):
    """A stored result with its size on disk; `status` is that of a backtest that the broker still knows."""

    backtest_id: str
    bytes: int
    stored_time: int
    pinned: bool = False
    status: BacktestState | None = None


class ResultList(Contract, frozen=True, kw_only=True):
    """The stored results, the latest first; `count` and `bytes` are of all, also of those beyond the limit."""

    results: list[StoredResult]
    count: int
    bytes: int


class PruneResults(Contract, frozen=True, kw_only=True):
    """The rules by which results are deleted now: those of `[retention]` where a field is absent."""

    dry_run: bool = False
    max_age_ms: Positive | None = None
    max_count: Positive | None = None
    max_bytes: Positive | None = None
    keep_newest: NotNegative | None = None


class PrunedResult(Contract, frozen=True, kw_only=True):
    """A result that was deleted, or would be; `reason` names the rule."""

    backtest_id: str
    bytes: int
    reason: str


class PrunedResults(Contract, frozen=True, kw_only=True):
    """The results that were deleted, or with `dry_run` would be, the oldest first; `remaining` more are due."""

    results: list[PrunedResult]
    freed_bytes: int
    dry_run: bool
    remaining: int


class DiskUsage(Contract, frozen=True, kw_only=True):
    """The bytes that the data directory has on disk, as measured at `measured_time`, and those that are free there.

    `results` is the number of stored results. `damaged_bytes` is what was set aside of damaged databases.
    `tables_bytes` are those of table files, `sweeps_bytes` those of the rows of `sweeps`, `trials_bytes` those of the
    ledger of trials.
    """

    results: int
    results_bytes: int
    recordings_bytes: int
    database_bytes: int
    damaged_bytes: int
    catalogue_bytes: int
    free_bytes: int
    measured_time: int
    tables_bytes: int = 0
    sweeps: int = 0
    sweeps_bytes: int = 0
    trials_bytes: int = 0
