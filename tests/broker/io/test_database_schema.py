"""The schema is migrated step by step, and records are read back from rows as they were written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from backtestr_broker.core.clients.idempotency import KEPT_ANSWERS, KEPT_SECONDS
from backtestr_broker.core.records import (
    AnswerPut,
    AnswerRecord,
    JobDeleted,
    JobPut,
    JobRecord,
    StatePut,
    StateRecord,
)
from backtestr_broker.io.database_schema import (
    MIGRATIONS,
    SCHEMA_VERSION,
    TooNew,
    UnreadableRows,
    apply,
    migrate,
    read_answers,
    read_jobs,
    read_key,
    read_state,
)
from backtestr_protocol.errors import TimedOut

NOW_MS = 1_790_000_000_000
ERROR = TimedOut("too late", bar=7).to_data(component="engine", timestamp=5)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """Open an empty database in memory, without a schema."""
    opened = sqlite3.connect(":memory:", isolation_level=None)
    yield opened
    opened.close()


@pytest.fixture
def migrated(connection: sqlite3.Connection) -> sqlite3.Connection:
    migrate(connection)
    return connection


def job(backtest_id: str, request_id: str, **changes: Any) -> JobRecord:
    fields: dict[str, Any] = {
        "backtest_id": backtest_id,
        "client_id": "ann",
        "request_id": request_id,
        "algorithm_id": "sma_cross",
        "symbols": ["SYNTH", "OTHER"],
        "config": b"\x80",
        "submit_time": 1000,
        "start_time": None,
        "end_time": None,
        "status": "queued",
        "progress_percent": 0.0,
        "error": None,
        "losses": 0,
        "to_pause": False,
    }
    return JobRecord(**{**fields, **changes})


def answer(client_id: str, request_id: str, wall_ms: int = NOW_MS) -> AnswerRecord:
    return AnswerRecord(client_id=client_id, request_id=request_id, payload=b"\x80", wall_ms=wall_ms)


def key(name: str, revision: int, value: bytes | None = b"\x01") -> StateRecord:
    return StateRecord(key=name, version=1, value=value, checksum="0" * 16, timestamp=5, revision=revision)


def schema_of(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()


@pytest.mark.parametrize("version", range(SCHEMA_VERSION + 1))
def test_every_earlier_version_is_migrated_to_the_schema_of_a_new_database(
    connection: sqlite3.Connection, version: int
) -> None:
    for step in MIGRATIONS[:version]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {version}")
    assert migrate(connection) == version
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    new = sqlite3.connect(":memory:", isolation_level=None)
    assert migrate(new) == 0
    assert schema_of(connection) == schema_of(new)
    new.close()
    assert migrate(connection) == SCHEMA_VERSION, "a second migration changes nothing"


def test_a_later_version_is_refused(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(TooNew, match=f"schema version {SCHEMA_VERSION + 1}"):
        migrate(connection)
    assert schema_of(connection) == []


def test_jobs_are_read_back_in_the_order_of_their_acceptance(migrated: sqlite3.Connection) -> None:
    first, second = job("b1", "r1"), job("b2", "r2", status="failed", error=ERROR, start_time=1, end_time=2, losses=1)
    apply(migrated, [JobPut(first), JobPut(second)])
    changed = job("b1", "r1", status="paused", progress_percent=12.5, to_pause=True)
    apply(migrated, [JobPut(changed)])
    assert read_jobs(migrated) == [changed, second]
    apply(migrated, [JobDeleted("b2"), JobDeleted("never there")])
    assert read_jobs(migrated) == [changed]


def test_a_request_key_belongs_to_its_latest_job(migrated: sqlite3.Connection) -> None:
    apply(migrated, [JobPut(job("b1", "r1")), JobPut(job("b2", "r2")), JobPut(job("b3", "r1"))])
    assert [one.backtest_id for one in read_jobs(migrated)] == ["b2", "b3"]


def test_answers_are_bounded_by_time_and_by_number_for_each_client(migrated: sqlite3.Connection) -> None:
    kept_ms = round(KEPT_SECONDS * 1000)
    apply(migrated, [AnswerPut(answer("bob", "old", NOW_MS - kept_ms - 1)), AnswerPut(answer("bob", "of bob"))])
    apply(migrated, [AnswerPut(answer("ann", str(number))) for number in range(KEPT_ANSWERS + 2)])
    found = read_answers(migrated, NOW_MS)
    assert [one.request_id for one in found] == ["of bob", *map(str, range(2, KEPT_ANSWERS + 2))]
    assert read_answers(migrated, NOW_MS + kept_ms + 1) == []


def test_state_is_read_in_order_of_revision_or_by_key(migrated: sqlite3.Connection) -> None:
    apply(migrated, [StatePut(key("b", 1)), StatePut(key("a", 2)), StatePut(key("b", 3, None))])
    assert read_state(migrated) == [key("a", 2), key("b", 3, None)]
    assert read_key(migrated, "a") == key("a", 2)
    assert read_key(migrated, "absent") is None


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE jobs SET status = 'unknown'",
        "UPDATE jobs SET symbols = 'no json'",
        "UPDATE jobs SET error = x'c1'",
        "UPDATE jobs SET error = x'80'",
    ],
)
def test_rows_that_no_version_wrote_are_unreadable(migrated: sqlite3.Connection, damage: str) -> None:
    apply(migrated, [JobPut(job("b1", "r1"))])
    migrated.execute(damage)
    with pytest.raises(UnreadableRows):
        read_jobs(migrated)
