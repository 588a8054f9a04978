"""The records that outlive a broker, as data, the changes of them that the core issues, and the content at a start.

Their layout in SQLite is in `io/database_schema`.
"""

from __future__ import annotations

import msgspec

from backtestr_protocol.errors import ErrorData
from backtestr_protocol.messages import BacktestState


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One job. `config` is MessagePack of its BacktestConfig; times in milliseconds since the Unix epoch.

    `to_pause` is true if it is paused, or is to be before its first bar.
    """

    backtest_id: str
    client_id: str
    request_id: str
    algorithm_id: str
    symbols: list[str]
    config: bytes
    submit_time: int
    start_time: int | None
    end_time: int | None
    status: BacktestState
    progress_percent: float
    error: ErrorData | None
    losses: int
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


Change = JobPut | JobDeleted | AnswerPut | StatePut


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the database when the broker started, read at `wall_ms`.

    Jobs are in the order of their acceptance, answers the oldest first, state in order of revision. `moved_aside` is
    where a database went that could not be read, and why.
    """

    wall_ms: int = 0
    jobs: list[JobRecord] = []
    answers: list[AnswerRecord] = []
    state: list[StateRecord] = []
    moved_aside: str | None = None
