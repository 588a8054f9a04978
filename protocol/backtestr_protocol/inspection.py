"""This module has the JSON documents that engine and broker print for commands that need no running broker.

Each command prints one document on standard output:

python -m backtestr_engine --check FILE       CheckedFile
python -m backtestr_engine --indicators       IndicatorList
python -m backtestr_broker --replay-log FILE  ReplayedLog
"""

from __future__ import annotations

from typing import Any

from .messages import BacktestState, Contract, Finding


class Verdict(Contract, frozen=True, kw_only=True):
    """The result of the look-ahead check of one algorithm.

    `finding` is None if it passed. `cuts` are the numbers of bars to which the sample of `bars` bars was cut.
    """

    algorithm_id: str
    bars: int
    cuts: list[int]
    finding: Finding | None

    @property
    def passed(self) -> bool:
        return self.finding is None


class CheckedFile(Contract, frozen=True, kw_only=True):
    """The verdicts on the algorithms of a file.

    `problems` state why the file has no algorithm, or which algorithms failed on the whole sample.
    """

    file: str
    verdicts: list[Verdict]
    problems: list[str]

    @property
    def passed(self) -> bool:
        return not self.problems and all(verdict.passed for verdict in self.verdicts)


class IndicatorInfo(Contract, frozen=True, kw_only=True):
    """An indicator: its TA-Lib name, its parameters with their defaults, and the names of its outputs."""

    name: str
    description: str
    group: str
    parameters: dict[str, int | float]
    outputs: list[str]


class IndicatorList(Contract, frozen=True, kw_only=True):
    """All indicators."""

    indicators: list[IndicatorInfo]


class StoryLine(Contract, frozen=True, kw_only=True):
    """Something that happened at the `event`-th event of a recording, from 1. `offsetMs` is since the first, by a clock
    that nobody sets; `timestamp` is by the one on the wall."""

    event: int
    offset_ms: int
    timestamp: int
    kind: str
    text: str
    facts: dict[str, Any]


class RecordedJob(Contract, frozen=True, kw_only=True):
    backtest_id: str
    status: BacktestState
    client_id: str


class RecordedSession(Contract, frozen=True, kw_only=True):
    session_id: str
    client_id: str


class ReplayedLog(Contract, frozen=True, kw_only=True):
    """What a flight recording tells.

    `replayedEvents` of all `events` were given to a core: of the others, behind a gap, only what clients and workers
    said is known. `effectsDigest` is of everything that the core did: replays of the same events have the same.
    `contradiction` is what is wrong with the core's state in the end, `problems` what is with the recording. `topics`
    have their last sequence number. `found` says whether there is anything of whom the story was asked.
    """

    files: list[str]
    version: str
    instance_id: str
    events: int
    replayed_events: int
    start_time: int | None
    end_time: int | None
    effects_digest: str
    contradiction: str | None
    problems: list[str]
    jobs: list[RecordedJob]
    sessions: list[RecordedSession]
    topics: dict[str, int]
    story: list[StoryLine]
    found: bool
