"""Committed changes are in the database after any failure, and a failed commit is reported."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backtestr_broker.core.clients.idempotency import KEPT_ANSWERS, KEPT_SECONDS
from backtestr_broker.core.events import CommitFailed, Committed, ReadState, StateRead
from backtestr_broker.core.records import (
    AnswerPut,
    JobDeleted,
    JobPut,
    StatePut,
)
from backtestr_broker.io.database import Database, connect_to
from backtestr_protocol.errors import InvalidConfiguration
from support.broker.database_store import ANY_TIME, LATE, Store, answer, job, key


def test_committed_jobs_are_there_in_the_order_of_their_first_commit(store: Store) -> None:
    first, second = job("b1"), job("b2", start_time=5, end_time=9, status="failed", error=LATE, losses=1)
    assert store.write(JobPut(first), JobPut(second)) == Committed(1, ANY_TIME)
    ran = job("b1", status="paused", start_time=4, progress_percent=12.5)
    assert isinstance(store.write(JobPut(ran)), Committed)
    assert store.woken.is_set()
    restored = store.reopen().restored
    assert restored.jobs == [ran, second]
    assert restored.moved_aside is None


def test_a_deleted_job_is_gone_and_its_request_may_start_another(store: Store) -> None:
    store.write(JobPut(job("b1")), JobPut(job("b2")))
    store.write(JobDeleted("b1"), JobDeleted("never there"))
    store.write(JobPut(job("b3", request_id="start b2")))
    assert [one.backtest_id for one in store.reopen().restored.jobs] == ["b3"]


def test_a_commit_is_synced_and_survives_without_a_close(store: Store) -> None:
    """Nothing is closed, as after kill -9, and the write-ahead log beside the file has the job."""
    store.write(JobPut(job("b1")))
    pragmas: dict[str, Any] = {}
    copies = store.path.parent / "copy"
    copies.mkdir()
    for suffix in ("", "-wal"):
        (copies / f"broker.db{suffix}").write_bytes((store.path.parent / f"broker.db{suffix}").read_bytes())
    other = Database(copies / "broker.db", lambda: None)
    assert [one.backtest_id for one in other.restored.jobs] == ["b1"]
    for name in ("journal_mode", "synchronous"):
        (pragmas[name],) = other._connection.execute(f"PRAGMA {name}").fetchone()
    other.close()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}


def test_the_file_is_private(store: Store) -> None:
    store.write(JobPut(job("b1")))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in store.path.parent.iterdir()}
    assert modes == {"broker.db": 0o600, "broker.db-wal": 0o600, "opening.lock": 0o600}


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_database_that_another_user_could_have_written_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "broker.db"
    for name in (path, path.with_name(f"{path.name}{suffix}")):
        name.touch(0o600)
    path.with_name(f"{path.name}{suffix}").chmod(0o666)
    with pytest.raises(InvalidConfiguration, match=f"chmod go-w '{path}{suffix}'"):
        Database(path, lambda: None)
    assert path.read_bytes() == b""


# --- answers ---


def test_answers_are_remembered_for_their_time_and_not_longer(store: Store) -> None:
    now = store.database.restored.wall_ms
    kept_ms = round(KEPT_SECONDS * 1000)
    store.write(AnswerPut(answer("old", now - kept_ms - 1)), AnswerPut(answer("young", now - 1000)))
    store.write(AnswerPut(answer("new", now)))
    assert [one.request_id for one in store.reopen().restored.answers] == ["young", "new"]
    store.close()
    database = sqlite3.connect(store.path)
    assert database.execute("SELECT request_id FROM answers ORDER BY ordinal").fetchall() == [("young",), ("new",)]
    database.close()


def test_a_bounded_number_of_answers_of_a_client_is_remembered(store: Store) -> None:
    now = store.database.restored.wall_ms
    store.write(AnswerPut(answer("bob's", now - 1, "bob")))
    store.write(*(AnswerPut(answer(str(number), now)) for number in range(KEPT_ANSWERS + 3)))
    restored = store.reopen().restored.answers
    assert [one.request_id for one in restored] == ["bob's", *map(str, range(3, KEPT_ANSWERS + 3))]


def test_an_answer_may_replace_an_earlier_one(store: Store) -> None:
    """The request was sent again after its answer was no longer remembered."""
    now = store.database.restored.wall_ms
    store.write(AnswerPut(answer("r", now - 5)))
    store.write(AnswerPut(answer("r", now)))
    assert [one.wall_ms for one in store.reopen().restored.answers] == [now]


# --- shared state ---


def test_shared_state_is_there_in_order_of_revision_with_its_deletions(store: Store) -> None:
    store.write(*(StatePut(one) for one in (key("b", 1, b"\x01", 1), key("a", 1, b"\x02", 2))))
    store.write(StatePut(key("b", 2, None, 3)), StatePut(key("c", 1, b"\x80", 4)))
    expected = [key("a", 1, b"\x02", 2), key("b", 2, None, 3), key("c", 1, b"\x80", 4)]
    assert store.reopen().restored.state == expected


def test_a_key_is_read_after_the_changes_that_were_submitted_before(store: Store) -> None:
    ticket = store.submit(StatePut(key("a", 1, b"\x01", 1)))
    store.database.submit(ReadState("a"))
    store.database.submit(ReadState("b"))
    assert store.report() == Committed(ticket, ANY_TIME)
    assert store.report() == StateRead("a", key("a", 1, b"\x01", 1), ANY_TIME)
    assert store.report() == StateRead("b", None, ANY_TIME)


def test_a_key_that_cannot_be_read_is_none_and_the_thread_continues(store: Store, faulty: type[Faulty]) -> None:
    store.write(StatePut(key("a", 1, b"\x01", 1)))
    faulty.unreadable = True
    store.database.submit(ReadState("a"))
    assert store.report() == StateRead("a", None, ANY_TIME)
    faulty.unreadable = False
    store.database.submit(ReadState("a"))
    assert store.report() == StateRead("a", key("a", 1, b"\x01", 1), ANY_TIME)


# --- failures ---


class Faulty(sqlite3.Connection):
    """A connection whose next commits fail, or wait for `gate`."""

    failure: Exception | None = None
    gate = threading.Event()
    began = threading.Event()

    unreadable = False

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if Faulty.unreadable and "FROM state" in sql:
            raise sqlite3.OperationalError("disk I/O error")
        if sql == "COMMIT":
            Faulty.began.set()
            assert Faulty.gate.wait(10)
            if Faulty.failure is not None:
                raise Faulty.failure
        return super().execute(sql, *parameters)


@pytest.fixture
def faulty(store: Store) -> Iterator[type[Faulty]]:
    Faulty.failure = None
    Faulty.gate.set()
    store.connect = lambda path: sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Faulty)
    assert store.database.take() == []  # opens it
    Faulty.began.clear()
    yield Faulty
    Faulty.gate.set()
    Faulty.failure = None


FULL = sqlite3.OperationalError("database or disk is full")


@pytest.mark.parametrize("failure", [FULL, OverflowError("Python int too large to convert to SQLite INTEGER")])
def test_a_failed_commit_is_reported_and_the_next_may_succeed(
    store: Store, faulty: type[Faulty], failure: Exception
) -> None:
    store.write(JobPut(job("b1")))
    faulty.failure = failure
    failed = store.write(JobPut(job("b2")))
    assert isinstance(failed, CommitFailed)
    assert (failed.generation, failed.reason) == (0, str(failure))
    faulty.failure = None
    store.generation = 1
    assert isinstance(store.write(JobPut(job("b3"))), Committed)
    assert [one.backtest_id for one in store.reopen().restored.jobs] == ["b1", "b3"]


def test_changes_of_a_failed_generation_are_not_written(store: Store, faulty: type[Faulty]) -> None:
    faulty.failure = FULL
    assert isinstance(store.write(JobPut(job("b1"))), CommitFailed)
    faulty.failure = None
    store.submit(JobPut(job("depends on b1")))
    store.generation = 1
    last = store.submit(JobPut(job("b2")))
    assert store.report() == Committed(last, ANY_TIME)
    assert [one.backtest_id for one in store.reopen().restored.jobs] == ["b2"]


def test_changes_that_queue_during_a_commit_share_the_next(store: Store, faulty: type[Faulty]) -> None:
    faulty.gate.clear()
    store.submit(JobPut(job("b0")))
    assert faulty.began.wait(10)
    for number in range(1, 6):
        store.submit(JobPut(job(f"b{number}")))
    faulty.gate.set()
    assert store.report() == Committed(1, ANY_TIME)
    assert store.report() == Committed(6, ANY_TIME)


def test_a_full_disk_fails_and_recovers_when_there_is_space(store: Store) -> None:
    """SQLite's own limit stands in for the disk's: the error is the same."""

    def small(path: Path) -> sqlite3.Connection:
        connection = connect_to(path)
        connection.execute("PRAGMA max_page_count = 40")
        return connection

    store.connect = small
    large = JobPut(job("large", config=bytes(60_000)))
    store.write(large)
    failed = store.write(JobPut(job("more", config=bytes(120_000))))
    assert isinstance(failed, CommitFailed)
    assert failed.reason == "database or disk is full"
    store.generation = 1
    assert isinstance(store.write(JobDeleted("large")), Committed)
    assert isinstance(store.write(JobPut(job("small", config=bytes(40_000)))), Committed)
    assert [one.backtest_id for one in store.reopen().restored.jobs] == ["small"]


def test_close_writes_the_submitted_changes(store: Store, faulty: type[Faulty]) -> None:
    for number in range(50):
        store.submit(JobPut(job(f"b{number}")))
    assert len(store.reopen().restored.jobs) == 50
