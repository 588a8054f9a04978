"""The schema of the database in all its versions, and the conversion of records to rows and back.

A schema version is never changed once it was shipped; a later change is one more step in `MIGRATIONS`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, TypeVar, assert_never

import msgspec

from backtestr_broker.core.clients.idempotency import KEPT_ANSWERS, KEPT_SECONDS
from backtestr_broker.core.records import (
    AnswerPut,
    AnswerRecord,
    Change,
    JobDeleted,
    JobPut,
    JobRecord,
    StatePut,
    StateRecord,
)
from backtestr_protocol.errors import ErrorData

# Step n takes version n to n + 1, one statement at a time. `ordinal` is the order in which rows were first written.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE jobs (
            ordinal INTEGER PRIMARY KEY, backtest_id TEXT NOT NULL UNIQUE, client_id TEXT NOT NULL,
            request_id TEXT NOT NULL, algorithm_id TEXT NOT NULL, symbols TEXT NOT NULL, config BLOB NOT NULL,
            submit_time INTEGER NOT NULL, start_time INTEGER, end_time INTEGER, status TEXT NOT NULL,
            progress_percent REAL NOT NULL, error BLOB, losses INTEGER NOT NULL, to_pause INTEGER NOT NULL,
            UNIQUE (client_id, request_id)
        ) STRICT""",
        """CREATE TABLE answers (
            ordinal INTEGER PRIMARY KEY, client_id TEXT NOT NULL, request_id TEXT NOT NULL, payload BLOB NOT NULL,
            wall_ms INTEGER NOT NULL, UNIQUE (client_id, request_id)
        ) STRICT""",
        "CREATE INDEX answers_by_client ON answers (client_id, ordinal)",
        "CREATE INDEX answers_by_time ON answers (wall_ms)",
    ),
    (
        """CREATE TABLE state (
            key TEXT PRIMARY KEY, version INTEGER NOT NULL, value BLOB, checksum TEXT NOT NULL,
            timestamp INTEGER NOT NULL, revision INTEGER NOT NULL
        ) STRICT""",
    ),
)
SCHEMA_VERSION = len(MIGRATIONS)

Record = TypeVar("Record", bound=msgspec.Struct)

_KEPT_MS = round(KEPT_SECONDS * 1000)
_JOB_COLUMNS = tuple(field.name for field in msgspec.structs.fields(JobRecord))
_ANSWER_COLUMNS = tuple(field.name for field in msgspec.structs.fields(AnswerRecord))
_STATE_COLUMNS = tuple(field.name for field in msgspec.structs.fields(StateRecord))


def _upsert(table: str, columns: tuple[str, ...], keys: tuple[str, ...]) -> str:
    updates = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in keys)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {updates}"
    )


_PUT_JOB = _upsert("jobs", _JOB_COLUMNS, ("backtest_id",))
_PUT_STATE = _upsert("state", _STATE_COLUMNS, ("key",))
_PUT_ANSWER = _upsert("answers", _ANSWER_COLUMNS, ("client_id", "request_id"))


class TooNew(Exception):
    """The database was written by a later version of backtestr."""


class UnreadableRows(Exception):
    """Rows that no version of backtestr wrote."""


def migrate(connection: sqlite3.Connection) -> int:
    """Bring the schema to `SCHEMA_VERSION`, all steps or none; return the version it had. Raises `TooNew`."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > SCHEMA_VERSION:
        raise TooNew(
            f"it has schema version {found} and this backtestr knows versions up to {SCHEMA_VERSION}: a later "
            "backtestr wrote it; use that one, or another data directory"
        )
    if found < SCHEMA_VERSION:
        connection.execute("BEGIN IMMEDIATE")
        for step in MIGRATIONS[found:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    return int(found)


def apply(connection: sqlite3.Connection, changes: Iterable[Change]) -> None:
    """Write the changes within the open transaction."""
    answered: dict[str, int] = {}
    for change in changes:
        match change:
            case JobPut(record):
                # A request key that is used again belongs to its latest job, as it does in memory.
                connection.execute(
                    "DELETE FROM jobs WHERE client_id = ? AND request_id = ? AND backtest_id <> ?",
                    (record.client_id, record.request_id, record.backtest_id),
                )
                row = {
                    **msgspec.structs.asdict(record),
                    "symbols": msgspec.json.encode(record.symbols).decode(),
                    "error": None if record.error is None else msgspec.msgpack.encode(record.error),
                }
                connection.execute(_PUT_JOB, tuple(row.values()))
            case JobDeleted(backtest_id):
                connection.execute("DELETE FROM jobs WHERE backtest_id = ?", (backtest_id,))
            case AnswerPut(record):
                connection.execute(_PUT_ANSWER, msgspec.structs.astuple(record))
                answered[record.client_id] = max(record.wall_ms, answered.get(record.client_id, 0))
            case StatePut(record):
                connection.execute(_PUT_STATE, msgspec.structs.astuple(record))
            case _:
                assert_never(change)
    if answered:
        _forget_answers(connection, answered)


def _forget_answers(connection: sqlite3.Connection, answered: dict[str, int]) -> None:
    """Delete the answers that are no longer remembered in memory.

    These are the answers past their time, and of the given clients all but the latest.
    """
    connection.execute("DELETE FROM answers WHERE wall_ms < ?", (max(answered.values()) - _KEPT_MS,))
    for client_id in answered:
        connection.execute(
            "DELETE FROM answers WHERE client_id = ? AND ordinal <= "
            "(SELECT ordinal FROM answers WHERE client_id = ? ORDER BY ordinal DESC LIMIT 1 OFFSET ?)",
            (client_id, client_id, KEPT_ANSWERS),
        )


def read_jobs(connection: sqlite3.Connection) -> list[JobRecord]:
    """Return all jobs in the order of their acceptance. Raises `UnreadableRows`."""
    rows = connection.execute(f"SELECT {', '.join(_JOB_COLUMNS)} FROM jobs ORDER BY ordinal")
    return [_job(dict(zip(_JOB_COLUMNS, row, strict=True))) for row in rows]


def read_answers(connection: sqlite3.Connection, wall_ms: int) -> list[AnswerRecord]:
    """Return the answers that are still remembered at `wall_ms`, the oldest first. Raises `UnreadableRows`."""
    rows = connection.execute(
        f"SELECT {', '.join(_ANSWER_COLUMNS)} FROM answers WHERE wall_ms >= ? ORDER BY wall_ms, ordinal",
        (wall_ms - _KEPT_MS,),
    )
    return [_record(dict(zip(_ANSWER_COLUMNS, row, strict=True)), AnswerRecord) for row in rows]


def read_state(connection: sqlite3.Connection) -> list[StateRecord]:
    """Return every key, deleted ones too, in order of revision. Raises `UnreadableRows`."""
    rows = connection.execute(f"SELECT {', '.join(_STATE_COLUMNS)} FROM state ORDER BY revision")
    return [_record(dict(zip(_STATE_COLUMNS, row, strict=True)), StateRecord) for row in rows]


def read_key(connection: sqlite3.Connection, key: str) -> StateRecord | None:
    """Return one key, or None where there is none. Raises `UnreadableRows`."""
    row = connection.execute(f"SELECT {', '.join(_STATE_COLUMNS)} FROM state WHERE key = ?", (key,)).fetchone()
    return None if row is None else _record(dict(zip(_STATE_COLUMNS, row, strict=True)), StateRecord)


def _job(row: dict[str, Any]) -> JobRecord:
    try:
        symbols = msgspec.json.decode(row["symbols"], type=list[str])
        error = None if row["error"] is None else msgspec.msgpack.decode(row["error"], type=ErrorData)
    except msgspec.MsgspecError as problem:
        raise UnreadableRows(f"the row of backtest {row['backtest_id']} cannot be read: {problem}") from problem
    return _record({**row, "symbols": symbols, "error": error, "to_pause": bool(row["to_pause"])}, JobRecord)


def _record(row: dict[str, Any], kind: type[Record]) -> Record:
    try:
        return msgspec.convert(row, kind)
    except msgspec.ValidationError as problem:
        raise UnreadableRows(f"a row is no {kind.__name__}: {problem}") from problem
