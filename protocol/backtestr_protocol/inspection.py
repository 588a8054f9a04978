"""This module has the JSON documents that engine and broker print for commands that need no running broker.

Each command prints one document on standard output:

python -m backtestr_engine --check FILE       CheckedFile
python -m backtestr_engine --indicators       IndicatorList
python -m backtestr_broker --replay-log FILE  ReplayedLog
"""

from __future__ import annotations

from typing import Any

import msgspec

from .messages import BacktestState, CheckedSample, Contract, Finding


class Verdict(Contract, frozen=True, kw_only=True):
    """The result of the look-ahead check of one algorithm.

    `finding` is None if it passed. `cuts` are the numbers of bars to which the sample of `bars` bars was cut. Where
    there were several samples, these are of the one with the finding, or of the first, and `samples` has all.
    """

    algorithm_id: str
    bars: int
    cuts: list[int]
    finding: Finding | None
    samples: list[CheckedSample] = []

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


class RecordedFact(Contract, frozen=True, kw_only=True):
    """Something that happened at the `event`-th event of a recording, from 1.

    `offsetMs` is since the first event, by a monotonic clock; `timestamp` is wall-clock time. `text` has `facts` on one
    line, of which `type` comes first.
    """

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
    """The playback of a recording, and the timeline of the subject that was asked for.

    `replayedEvents` of all `events` were given to a core: of the others, behind a gap, only what clients and workers
    sent is known. `effectsDigest` is of all effects of the core: playbacks of the same events have the same digest.
    `contradiction` is the invariant of the core that does not hold at the end, `problems` are those of the recording.
    `topics` have their last sequence number. `found` states whether any fact is about the subject.
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
    timeline: list[RecordedFact] = msgspec.field(name="story")
    found: bool
