"""The records that outlive a broker, as data, the changes of them that the core issues, and the content at a start.

Their layout in SQLite is in `io/database_schema`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from backtestr_protocol.errors import ErrorData
from backtestr_protocol.messages import BacktestId, BacktestState
from backtestr_protocol.ranges import NotNegative
from backtestr_protocol.sweep_messages import SweepBest


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One job. `config` is MessagePack of its BacktestConfig; times in milliseconds since the Unix epoch.

    `to_pause` is true if it is paused, or is to be before its first bar.
    """

    backtest_id: BacktestId
    client_id: str
    request_id: str
    algorithm_id: str
    symbols: Annotated[list[str], msgspec.Meta(min_length=1)]
    config: bytes
    submit_time: NotNegative
    start_time: NotNegative | None
    end_time: NotNegative | None
    status: BacktestState
    progress_percent: Annotated[float, msgspec.Meta(ge=0.0)]
    error: ErrorData | None
    losses: NotNegative
    to_pause: bool


class AnswerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request that changed something: a duplicate gets it again."""

    client_id: str
    request_id: str
    payload: bytes
    wall_ms: int


class StateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a key of shared state.

    `value` is its MessagePack, None when the key was deleted; `revision` counts the changes of all keys.
    """

    key: str
    version: int
    value: bytes | None
    checksum: str
    timestamp: int
    revision: int

    @property
    def size(self) -> int:
        return 0 if self.value is None else len(self.value)


class PinRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A backtest whose results retention does not delete; `wall_ms` is when it was pinned."""

    backtest_id: BacktestId
    wall_ms: NotNegative


class DeletionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A backtest that was deleted and whose files may still be there; `wall_ms` is when it was deleted."""

    backtest_id: BacktestId
    wall_ms: NotNegative


class SweepFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a sweep so far: rows `done`, of which some have `failed`, and the seconds spent on them.

    `trials_after` are all trials on its data, once they are counted after its end.
    """

    done: NotNegative = 0
    failed: NotNegative = 0
    seconds: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    best: SweepBest | None = None
    trials_after: NotNegative | None = None


class SweepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One sweep. `checked` is MessagePack of its `CheckedSweep`; times in milliseconds since the Unix epoch.

    `asked` is the checksum of its request. `figures` are those of its last change of status: of one that has not
    ended, the files of its blocks say more.
    """

    sweep_id: BacktestId
    client_id: str
    request_id: str
    checked: bytes
    asked: str
    submit_time: NotNegative
    start_time: NotNegative | None
    end_time: NotNegative | None
    status: BacktestState
    error: ErrorData | None
    figures: SweepFigures


# --- changes ---


class JobPut(msgspec.Struct, frozen=True, tag=True):
    """Write the record, in place of an earlier one of that job, whose position in the order it keeps."""

    record: JobRecord

    @property
    def size(self) -> int:
        return len(self.record.config)


class JobDeleted(msgspec.Struct, frozen=True, tag=True):
    backtest_id: str

    @property
    def size(self) -> int:
        return 0


class AnswerPut(msgspec.Struct, frozen=True, tag=True):
    record: AnswerRecord

    @property
    def size(self) -> int:
        return len(self.record.payload)


class StatePut(msgspec.Struct, frozen=True, tag=True):
    """Write the record in place of the key's earlier one."""

    record: StateRecord

    @property
    def size(self) -> int:
        return self.record.size


class PinPut(msgspec.Struct, frozen=True, tag=True):
    """Write the record in place of an earlier one of that backtest."""

    record: PinRecord

    @property
    def size(self) -> int:
        return 0


class PinDeleted(msgspec.Struct, frozen=True, tag=True):
    backtest_id: str

    @property
    def size(self) -> int:
        return 0


class DeletionPut(msgspec.Struct, frozen=True, tag=True):
    """Write that the backtest's files have to go; a later broker removes them if this one does not come to it."""

    record: DeletionRecord

    @property
    def size(self) -> int:
        return 0


class DeletionDone(msgspec.Struct, frozen=True, tag=True):
    """Forget a deletion: the files are gone."""

    backtest_id: str

    @property
    def size(self) -> int:
        return 0


class SweepPut(msgspec.Struct, frozen=True, tag=True):
    """Write the record, in place of an earlier one of that sweep."""

    record: SweepRecord

    @property
    def size(self) -> int:
        return len(self.record.checked)


class SweepDeleted(msgspec.Struct, frozen=True, tag=True):
    sweep_id: str

    @property
    def size(self) -> int:
        return 0


Change = (
    JobPut
    | JobDeleted
    | AnswerPut
    | StatePut
    | PinPut
    | PinDeleted
    | DeletionPut
    | DeletionDone
    | SweepPut
    | SweepDeleted
)


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the database when the broker started, read at `wall_ms`.

    Jobs and sweeps are in the order of their acceptance, answers the oldest first, state in order of revision.
    `moved_aside` says what was damaged, where it was set aside, and what is lost by it; None if nothing was.
    """

    wall_ms: int = 0
    jobs: list[JobRecord] = []
    answers: list[AnswerRecord] = []
    state: list[StateRecord] = []
    pins: list[PinRecord] = []
    deletions: list[DeletionRecord] = []
    sweeps: list[SweepRecord] = []
    moved_aside: str | None = None
