"""The rows of the database: how records become rows with a checksum, and how rows become records again.

Every row carries a checksum of its table and all its values. A row that does not have it, or whose values are no
record, is damaged: it is named, and none of it is used.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from typing import Any, assert_never

import msgspec

from backtestr_broker.core.clients.idempotency import KEPT_ANSWERS, KEPT_SECONDS
from backtestr_broker.core.records import (
    AnswerPut,
    AnswerRecord,
    Change,
    DeletionDone,
    DeletionPut,
    DeletionRecord,
    JobDeleted,
    JobPut,
    JobRecord,
    PinDeleted,
    PinPut,
    PinRecord,
    StatePut,
    StateRecord,
    SweepDeleted,
    SweepFigures,
    SweepPut,
    SweepRecord,
)
from backtestr_protocol.errors import ErrorData
from backtestr_protocol.messages import FINAL_STATES
from backtestr_protocol.state_values import NIL, checksum

# Bytes of a row's checksum: damage goes unseen once in 2**64 times, and a bit or two never in practice.
_CHECKSUM_BYTES = 8
_KEPT_MS = round(KEPT_SECONDS * 1000)
# The longest name of a damaged row that is reported: the name may be what is damaged.
_SHOWN = 80

# SQLite's words about a damaged schema may be no UTF-8, which Python then says instead of them.
_DAMAGE = (sqlite3.DatabaseError, UnicodeError)

AnyRecord = JobRecord | AnswerRecord | StateRecord | PinRecord | DeletionRecord | SweepRecord


class UnreadableRow(Exception):
    """A row that is not as it was written."""


class DamagedRow(msgspec.Struct, frozen=True):
    """A damaged row: its table, its name there as far as it can be read, and what is wrong with it."""

    table: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.table} {self.name}: {self.reason}"


class Table(msgspec.Struct, frozen=True):
    """A table: its columns beside the checksum, the columns that name a row, and the order in which it is read."""

    name: str
    kind: type[AnyRecord]
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    order: str

    @property
    def selected(self) -> str:
        """The columns of a row as `record_of` takes them."""
        return ", ".join((*self.columns, "row_checksum"))

    @property
    def upsert(self) -> str:
        columns = (*self.columns, "row_checksum")
        updates = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in self.keys)
        return (
            f"INSERT INTO {self.name} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
            f"ON CONFLICT ({', '.join(self.keys)}) DO UPDATE SET {updates}"
        )


def _table(name: str, kind: type[AnyRecord], keys: tuple[str, ...], order: str) -> Table:
    return Table(name, kind, tuple(field.name for field in msgspec.structs.fields(kind)), keys, order)


JOBS = _table("jobs", JobRecord, ("backtest_id",), "ordinal")
ANSWERS = _table("answers", AnswerRecord, ("client_id", "request_id"), "ordinal")
STATE = _table("state", StateRecord, ("key",), "revision")
PINS = _table("pins", PinRecord, ("backtest_id",), "wall_ms, backtest_id")
DELETIONS = _table("deletions", DeletionRecord, ("backtest_id",), "wall_ms, backtest_id")
SWEEPS = _table("sweeps", SweepRecord, ("sweep_id",), "ordinal")
TABLES = (JOBS, ANSWERS, STATE, PINS, DELETIONS, SWEEPS)

_UPSERTS = {table.name: table.upsert for table in TABLES}


def row_checksum(table: str, values: Iterable[Any]) -> bytes:
    """Return the checksum of a row. Raises `UnicodeEncodeError` for text that was no UTF-8 in the database."""
    return hashlib.blake2b(msgspec.msgpack.encode([table, *values]), digest_size=_CHECKSUM_BYTES).digest()


def values_of(record: AnyRecord) -> list[Any]:
    """Return the values of a record's row without its checksum, each as SQLite will give it back."""
    row = msgspec.structs.asdict(record)
    if isinstance(record, JobRecord):
        row["symbols"] = msgspec.json.encode(record.symbols).decode()
        row["error"] = None if record.error is None else msgspec.msgpack.encode(record.error)
        row["progress_percent"] = float(record.progress_percent)
        row["to_pause"] = int(record.to_pause)
    if isinstance(record, SweepRecord):
        row["error"] = None if record.error is None else msgspec.msgpack.encode(record.error)
        row["figures"] = msgspec.msgpack.encode(record.figures)
    return list(row.values())


def record_of(table: Table, row: tuple[Any, ...]) -> AnyRecord:
    """Return the record of a row, whose last value is the checksum. Raises `UnreadableRow`."""
    *values, stored = row
    try:
        is_intact = stored == row_checksum(table.name, values)
    except UnicodeEncodeError:  # its text is no UTF-8
        is_intact = False
    if not is_intact:
        raise UnreadableRow("it does not have its checksum")
    return checked_record(table, values)


def checked_record(table: Table, values: list[Any]) -> AnyRecord:
    """Return the record that these values are. Raises `UnreadableRow` for what no version of backtestr wrote."""
    row = dict(zip(table.columns, values, strict=True))
    try:
        if table is JOBS:
            row["symbols"] = msgspec.json.decode(row["symbols"])
            row["error"] = None if row["error"] is None else msgspec.msgpack.decode(row["error"], type=ErrorData)
            row["to_pause"] = bool(row["to_pause"])
        if table is SWEEPS:
            row["error"] = None if row["error"] is None else msgspec.msgpack.decode(row["error"], type=ErrorData)
            row["figures"] = msgspec.msgpack.decode(row["figures"], type=SweepFigures)
        record = msgspec.convert(row, table.kind)
        problem = _contradiction(record)
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise UnreadableRow(f"it is no {table.kind.__name__}: {error}") from error
    if problem is not None:
        raise UnreadableRow(problem)
    return record


def _contradiction(record: AnyRecord) -> str | None:
    """Return what is wrong with a record whose fields are each of the right type; None if nothing is."""
    match record:
        case JobRecord() | SweepRecord():
            if (record.status in FINAL_STATES) != (record.end_time is not None):
                return f"it is {record.status}, and its time of ending is {record.end_time}"
        case StateRecord():
            if record.version < 1 or record.revision < 1:
                return f"its version is {record.version}, its revision {record.revision}"
            if checksum(NIL if record.value is None else record.value) != record.checksum:
                return "its value does not have its checksum"
    return None


def damaged(table: Table, row: tuple[Any, ...], reason: str) -> DamagedRow:
    """Return the name of a damaged row, and what is wrong with it."""
    named = dict(zip(table.columns, row, strict=False))
    name = " ".join(str(named.get(key))[:_SHOWN] for key in table.keys)
    return DamagedRow(table.name, name.encode("unicode_escape").decode(), reason)


# --- writing ---


def put(connection: sqlite3.Connection, table: Table, record: AnyRecord) -> None:
    """Write a record in place of an earlier one of the same name."""
    values = values_of(record)
    connection.execute(_UPSERTS[table.name], (*values, row_checksum(table.name, values)))


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
                put(connection, JOBS, record)
                # The id is taken again: files of that name are no longer those that were to be removed.
                connection.execute("DELETE FROM deletions WHERE backtest_id = ?", (record.backtest_id,))
            case JobDeleted(backtest_id):
                connection.execute("DELETE FROM jobs WHERE backtest_id = ?", (backtest_id,))
            case AnswerPut(record):
                put(connection, ANSWERS, record)
                answered[record.client_id] = max(record.wall_ms, answered.get(record.client_id, 0))
            case StatePut(record):
                put(connection, STATE, record)
            case PinPut(record):
                put(connection, PINS, record)
            case PinDeleted(backtest_id):
                connection.execute("DELETE FROM pins WHERE backtest_id = ?", (backtest_id,))
            case DeletionPut(record):
                put(connection, DELETIONS, record)
            case DeletionDone(backtest_id):
                connection.execute("DELETE FROM deletions WHERE backtest_id = ?", (backtest_id,))
            case SweepPut(record):
                put(connection, SWEEPS, record)
            case SweepDeleted(sweep_id):
                connection.execute("DELETE FROM sweeps WHERE sweep_id = ?", (sweep_id,))
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


# --- reading ---


def read_table(connection: sqlite3.Connection, table: Table) -> tuple[list[Any], list[DamagedRow]]:
    """Return the records of a table in its order, and the rows that are damaged. Raises `sqlite3.DatabaseError`."""
    records: list[AnyRecord] = []
    bad: list[DamagedRow] = []
    for row in connection.execute(f"SELECT {table.selected} FROM {table.name} ORDER BY {table.order}"):
        try:
            records.append(record_of(table, row))
        except UnreadableRow as error:
            bad.append(damaged(table, row, str(error)))
    return records, bad


def salvage_table(connection: sqlite3.Connection, table: Table) -> tuple[list[Any], list[DamagedRow]]:
    """Return what `read_table` does, of a damaged file: row by row, whatever of it can still be reached."""
    bad: list[DamagedRow] = []
    rowids: dict[int, None] = {}
    for direction in ("ASC", "DESC"):
        try:
            for (rowid,) in connection.execute(f"SELECT rowid FROM {table.name} ORDER BY rowid {direction}"):
                rowids[rowid] = None
            break
        except _DAMAGE as error:
            rest = f"rows may be missing that cannot be named: {error}"
            if not bad:
                bad.append(DamagedRow(table.name, "(part of the table)", rest))
    rows: list[tuple[int, AnyRecord]] = []
    for rowid in sorted(rowids):
        row: tuple[Any, ...] = ()
        try:
            query = f"SELECT {table.selected} FROM {table.name} WHERE rowid = ?"
            row = connection.execute(query, (rowid,)).fetchone() or ()
            if not row:
                raise UnreadableRow("it is listed and cannot be found")
            rows.append((rowid, record_of(table, row)))
        except (UnreadableRow, *_DAMAGE) as error:
            name = damaged(table, row, str(error)) if row else DamagedRow(table.name, f"row {rowid}", str(error))
            bad.append(name)
    return [record for _, record in rows], bad


def read_key(connection: sqlite3.Connection, key: str) -> StateRecord | None:
    """Return one key of the shared state, or None where there is none. Raises `UnreadableRow`."""
    row = connection.execute(f"SELECT {STATE.selected} FROM state WHERE key = ?", (key,)).fetchone()
    if row is None:
        return None
    record = record_of(STATE, row)
    assert isinstance(record, StateRecord)
    return record


def remembered(answers: Iterable[AnswerRecord], wall_ms: int) -> list[AnswerRecord]:
    """Return the answers that are still remembered at `wall_ms`, the oldest first."""
    return sorted((one for one in answers if one.wall_ms >= wall_ms - _KEPT_MS), key=lambda one: one.wall_ms)


def stamp(connection: sqlite3.Connection) -> None:
    """Give a checksum to every row of earlier versions, which have none, unless it is no record as it stands."""
    for table in TABLES:
        query = f"SELECT rowid, {', '.join(table.columns)} FROM {table.name} WHERE row_checksum IS NULL"
        for rowid, *values in connection.execute(query).fetchall():
            try:
                record = checked_record(table, values)
                if isinstance(record, JobRecord):
                    msgspec.msgpack.decode(record.config, type=dict[str, Any])
                found = row_checksum(table.name, values)
            except (UnreadableRow, UnicodeEncodeError, msgspec.MsgspecError):
                continue
            connection.execute(f"UPDATE {table.name} SET row_checksum = ? WHERE rowid = ?", (found, rowid))
