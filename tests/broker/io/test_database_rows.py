"""Records are read back from rows as they were written, and a row that was changed is named and not used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core.clients.idempotency import KEPT_ANSWERS, KEPT_SECONDS
from backtestr_broker.core.records import (
    AnswerPut,
    AnswerRecord,
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
from backtestr_broker.io.database_rows import (
    ANSWERS,
    DELETIONS,
    JOBS,
    PINS,
    STATE,
    SWEEPS,
    TABLES,
    UnreadableRow,
    apply,
    read_key,
    read_table,
    record_of,
    remembered,
    row_checksum,
    salvage_table,
    stamp,
    values_of,
)
from backtestr_broker.io.database_schema import MIGRATIONS, migrate
from backtestr_protocol.errors import TimedOut
from backtestr_protocol.state_values import NIL, checksum
from backtestr_protocol.sweep_messages import SweepBest

NOW_MS = 1_790_000_000_000
ERROR = TimedOut("too late", bar=7).to_data(component="engine", timestamp=5)


@pytest.fixture
def migrated() -> Iterator[sqlite3.Connection]:
    """Open an empty database in memory, with the schema."""
    opened = sqlite3.connect(":memory:", isolation_level=None)
    migrate(opened)
    yield opened
    opened.close()


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
    found = checksum(NIL if value is None else value)
    return StateRecord(key=name, version=1, value=value, checksum=found, timestamp=5, revision=revision)


RECORDS: dict[str, Any] = {
    "jobs": job("b1", "r1", status="failed", error=ERROR, start_time=1, end_time=2, progress_percent=12.5),
    "answers": answer("ann", "r1"),
    "state": key("a.b", 3, b"\xa1x"),
    "pins": PinRecord(backtest_id="b1", wall_ms=NOW_MS),
    "deletions": DeletionRecord(backtest_id="b2", wall_ms=NOW_MS),
    "sweeps": SweepRecord(
        sweep_id="s1",
        client_id="ann",
        request_id="r1",
        checked=b"\x80",
        asked="checksum",
        submit_time=1,
        start_time=2,
        end_time=3,
        status="failed",
        error=ERROR,
        figures=SweepFigures(done=7, failed=1, seconds=0.5, best=SweepBest(cell=3, value=1.5, parameters={"fast": 3})),
    ),
}
PUTS = {
    "jobs": JobPut,
    "answers": AnswerPut,
    "state": StatePut,
    "pins": PinPut,
    "deletions": DeletionPut,
    "sweeps": SweepPut,
}


def test_jobs_are_read_back_in_the_order_of_their_acceptance(migrated: sqlite3.Connection) -> None:
    first, second = job("b1", "r1"), job("b2", "r2", status="failed", error=ERROR, start_time=1, end_time=2, losses=1)
    apply(migrated, [JobPut(first), JobPut(second)])
    changed = job("b1", "r1", status="paused", progress_percent=12.5, to_pause=True)
    apply(migrated, [JobPut(changed)])
    assert read_table(migrated, JOBS) == ([changed, second], [])
    apply(migrated, [JobDeleted("b2"), JobDeleted("never there")])
    assert read_table(migrated, JOBS) == ([changed], [])


def test_a_request_key_belongs_to_its_latest_job(migrated: sqlite3.Connection) -> None:
    apply(migrated, [JobPut(job("b1", "r1")), JobPut(job("b2", "r2")), JobPut(job("b3", "r1"))])
    assert [one.backtest_id for one in read_table(migrated, JOBS)[0]] == ["b2", "b3"]


def test_answers_are_bounded_by_time_and_by_number_for_each_client(migrated: sqlite3.Connection) -> None:
    kept_ms = round(KEPT_SECONDS * 1000)
    apply(migrated, [AnswerPut(answer("bob", "old", NOW_MS - kept_ms - 1)), AnswerPut(answer("bob", "of bob"))])
    apply(migrated, [AnswerPut(answer("ann", str(number))) for number in range(KEPT_ANSWERS + 2)])
    stored, bad = read_table(migrated, ANSWERS)
    assert bad == []
    found = remembered(stored, NOW_MS)
    assert [one.request_id for one in found] == ["of bob", *map(str, range(2, KEPT_ANSWERS + 2))]
    assert remembered(stored, NOW_MS + kept_ms + 1) == []


def test_state_is_read_in_order_of_revision_or_by_key(migrated: sqlite3.Connection) -> None:
    apply(migrated, [StatePut(key("b", 1)), StatePut(key("a", 2)), StatePut(key("b", 3, None))])
    assert read_table(migrated, STATE) == ([key("a", 2), key("b", 3, None)], [])
    assert read_key(migrated, "a") == key("a", 2)
    assert read_key(migrated, "absent") is None


def test_pins_and_deletions_are_kept_until_they_are_taken_back(migrated: sqlite3.Connection) -> None:
    pin, deletion = RECORDS["pins"], RECORDS["deletions"]
    apply(migrated, [PUTS["pins"](pin), PUTS["deletions"](deletion)])
    assert read_table(migrated, PINS) == ([pin], [])
    assert read_table(migrated, DELETIONS) == ([deletion], [])
    apply(migrated, [PinDeleted("b1"), DeletionDone("b2")])
    assert read_table(migrated, PINS) == read_table(migrated, DELETIONS) == ([], [])


def test_a_job_that_takes_an_id_again_ends_the_deletion_of_its_files(migrated: sqlite3.Connection) -> None:
    """Otherwise a later start would delete the results of the new backtest."""
    apply(migrated, [PUTS["deletions"](RECORDS["deletions"]), JobPut(job("b2", "again"))])
    assert read_table(migrated, DELETIONS) == ([], [])


def test_a_sweep_is_kept_in_its_place_until_it_is_deleted(migrated: sqlite3.Connection) -> None:
    first: SweepRecord = RECORDS["sweeps"]
    second = msgspec.structs.replace(first, sweep_id="s2", request_id="r2", error=None)
    apply(migrated, [SweepPut(first), SweepPut(second)])
    running = msgspec.structs.replace(first, status="running", end_time=None)
    apply(migrated, [SweepPut(running)])
    assert read_table(migrated, SWEEPS) == ([running, second], [])
    apply(migrated, [SweepDeleted("s1"), SweepDeleted("never there")])
    assert read_table(migrated, SWEEPS) == ([second], [])


# --- damage ---


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_change_of_any_value_of_a_row_is_seen(migrated: sqlite3.Connection, table: Any) -> None:
    record = RECORDS[table.name]
    apply(migrated, [PUTS[table.name](record)])
    assert read_table(migrated, table) == ([record], [])
    for column in (*table.columns, "row_checksum"):
        (before,) = migrated.execute(f"SELECT {column} FROM {table.name}").fetchone()
        for other in (None, 7, 0.5, "x", b"x"):
            if type(other) is type(before) and other == before:
                continue
            try:
                migrated.execute(f"UPDATE {table.name} SET {column} = ?", (other,))
            except sqlite3.IntegrityError:  # the table's own rules refuse it
                continue
            if migrated.execute(f"SELECT {column} FROM {table.name}").fetchone() == (before,):
                continue
            records, bad = read_table(migrated, table)
            assert records == []
            assert [one.table for one in bad] == [table.name]
            migrated.execute(f"UPDATE {table.name} SET {column} = ?", (before,))
    assert read_table(migrated, table) == ([record], [])


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(TABLES), st.data())
def test_no_row_with_a_flipped_bit_becomes_a_record(table: Any, data: st.DataObject) -> None:
    values = values_of(RECORDS[table.name])
    good = (*values, row_checksum(table.name, values))
    assert record_of(table, good) == RECORDS[table.name]
    place = data.draw(st.integers(0, len(good) - 1))
    changed = list(good)
    match good[place]:
        case bytes() as value if value:
            bit = data.draw(st.integers(0, len(value) * 8 - 1))
            changed[place] = bytes(one ^ (1 << bit % 8 if at == bit // 8 else 0) for at, one in enumerate(value))
        case str() as value if value:
            bit = data.draw(st.integers(0, len(value) * 7 - 1))
            changed[place] = "".join(
                chr(ord(one) ^ (1 << bit % 7 if at == bit // 7 else 0)) for at, one in enumerate(value)
            )
        case int() as value:
            changed[place] = value ^ 1 << data.draw(st.integers(0, 62))
        case _:
            changed[place] = data.draw(st.sampled_from(["", b"", 1, 2.5]))
    with pytest.raises(UnreadableRow):
        record_of(table, tuple(changed))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE jobs SET status = 'unknown'",
        "UPDATE jobs SET symbols = 'no json'",
        "UPDATE jobs SET symbols = '[]'",
        "UPDATE jobs SET error = x'c1'",
        "UPDATE jobs SET error = x'80'",
        "UPDATE jobs SET config = x'c1'",
        "UPDATE jobs SET status = 'completed'",
        "UPDATE jobs SET end_time = 5",
        "UPDATE jobs SET submit_time = -1",
        "UPDATE jobs SET backtest_id = '../elsewhere'",
        "UPDATE state SET value = x'02'",
        "UPDATE state SET version = 0",
    ],
)
def test_rows_that_no_version_wrote_are_no_records_though_they_have_a_checksum(
    migrated: sqlite3.Connection, damage: str
) -> None:
    """Rows of earlier versions have no checksum to tell it, and a broker must not end at one of them."""
    apply(migrated, [JobPut(job("b1", "r1")), StatePut(key("a", 1))])
    migrated.execute(damage)
    migrated.execute("UPDATE jobs SET row_checksum = NULL")
    migrated.execute("UPDATE state SET row_checksum = NULL")
    stamp(migrated)
    bad = [one for table in TABLES for one in read_table(migrated, table)[1]]
    assert len(bad) == 1


def test_rows_of_earlier_versions_get_their_checksums(migrated: sqlite3.Connection) -> None:
    old = sqlite3.connect(":memory:", isolation_level=None)
    for step in MIGRATIONS[:2]:
        for statement in step:
            old.execute(statement)
    old.execute("PRAGMA user_version = 2")
    for table in (JOBS, ANSWERS, STATE):
        columns = ", ".join(table.columns)
        values = values_of(RECORDS[table.name])
        old.execute(f"INSERT INTO {table.name} ({columns}) VALUES ({', '.join('?' * len(values))})", values)
    migrate(old)
    for table in (JOBS, ANSWERS, STATE):
        assert read_table(old, table) == ([RECORDS[table.name]], [])
    old.close()


def test_salvage_gives_what_reading_gives(migrated: sqlite3.Connection) -> None:
    apply(migrated, [JobPut(job(f"b{number}", f"r{number}")) for number in range(5)])
    migrated.execute("UPDATE jobs SET losses = 3 WHERE backtest_id = 'b2'")
    records, bad = salvage_table(migrated, JOBS)
    assert [one.backtest_id for one in records] == ["b0", "b1", "b3", "b4"]
    assert (records, bad) == read_table(migrated, JOBS)
    assert str(bad[0]) == "jobs b2: it does not have its checksum"


def test_a_key_whose_row_is_damaged_is_not_read(migrated: sqlite3.Connection) -> None:
    apply(migrated, [StatePut(key("a", 1))])
    migrated.execute("UPDATE state SET timestamp = 6")
    with pytest.raises(UnreadableRow):
        read_key(migrated, "a")
