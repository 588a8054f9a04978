"""This module has the contracts of the ledger of trials: every combination that a broker has run, counted by its data.

A trial is a combination of everything that decides the figures of a backtest: the version of the algorithm, its
parameters, money, costs, options and warm-up. Trials are counted in groups: those of one algorithm on the same bars.
The same combination counts once, whether it was a backtest or a row of a sweep, and however often it was run.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from .messages import Contract
from .ranges import Name, Symbol

# Groups that an answer lists where no limit is named, and at most.
LISTED_GROUPS = 100
MAX_GROUPS = 1_000

GroupId = Annotated[
    str, msgspec.Meta(pattern="^[0-9a-f]{32}$", description="the id of a group of trials is 32 characters of hex")
]


class GetTrials(Contract, frozen=True, kw_only=True):
    """The groups to count: those to which every field that is given applies, the latest first.

    `group` is the id of one group, as results and sweeps name it. `algorithm_id` is a name, or an id, of which the name
    counts: all versions are in one group. `symbol` is among those of the group.
    """

    group: GroupId | None = None
    algorithm_id: Name | None = None
    symbol: Symbol | None = None
    timeframe: Name | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_GROUPS)] = LISTED_GROUPS


class TrialGroup(Contract, frozen=True, kw_only=True):
    """The trials of one algorithm on the same bars.

    `trials` is the number of distinct combinations, and `runs` how often workers have run one of them. `data_version`
    is a checksum of the `bars` that were tested, from the open time of the first (`start_time`) to the close of the
    last (`end_time`). `first_time` and `last_time` are when the first and the latest run was entered.
    """

    group: str
    algorithm: str
    symbols: list[str]
    timeframe: str
    data_version: str
    start_time: int
    end_time: int
    bars: int
    trials: int
    runs: int
    first_time: int
    last_time: int


class TrialList(Contract, frozen=True, kw_only=True):
    """The groups, those that were run last first; `count` is of all that match, also of those beyond the limit."""

    groups: list[TrialGroup]
    count: int
