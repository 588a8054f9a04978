"""A database that is damaged, of another version or in use loses nothing unseen when it is opened."""

from __future__ import annotations

import random
import shutil
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backtestr_broker.core.events import Committed, Persist
from backtestr_broker.core.records import (
    AnswerPut,
    JobPut,
    PinPut,
    PinRecord,
    Restored,
    StatePut,
)
from backtestr_broker.io import database as database_module
from backtestr_broker.io import database_schema
from backtestr_broker.io.database import Database, connect_to
from backtestr_broker.io.database_schema import MIGRATIONS, SCHEMA_VERSION, application_id
from backtestr_protocol.errors import InvalidConfiguration
from support.broker.database_store import Store, answer, job, key


def corrupt_header(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)


def corrupt_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)


def corrupt_an_index(path: Path) -> None:
    """Damage a page that only the check of the whole file reads."""
    database = sqlite3.connect(path)
    (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_state_1'").fetchone()
    (size,) = database.execute("PRAGMA page_size").fetchone()
    database.close()
    content = bytearray(path.read_bytes())
    content[(page - 1) * size : page * size] = b"\xa5" * size
    path.write_bytes(content)


def drop_a_table(path: Path) -> None:
    change(path, "DROP TABLE jobs")


def wrong_status(path: Path) -> None:
    change(path, "UPDATE jobs SET status = 'happy'")


def wrong_error(path: Path) -> None:
    change(path, "UPDATE jobs SET error = x'c1'")


def change(path: Path, statement: str) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(statement)
    database.close()


DAMAGES = [corrupt_header, corrupt_pages, drop_a_table, wrong_status, wrong_error]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_moved_aside_with_its_content_and_reported(
    store: Store, damage: Callable[[Path], None]
) -> None:
    store.write(JobPut(job("b1")))
    store.close()
    damage(store.path)
    content = store.path.read_bytes()
    restored = store.database.restored
    assert restored.jobs == []
    (aside,) = store.path.parent.glob("broker.db.corrupt-*Z")
    assert aside.read_bytes() == content
    assert restored.moved_aside is not None
    assert str(aside) in restored.moved_aside
    assert isinstance(store.write(JobPut(job("b2"))), Committed)
    assert store.reopen().restored.moved_aside is None
    assert [one.backtest_id for one in store.database.restored.jobs] == ["b2"]


def test_the_log_of_a_damaged_database_is_moved_with_it(store: Store) -> None:
    store.write(JobPut(job("b1")))
    store.close()
    corrupt_header(store.path)
    store.path.with_name("broker.db-wal").write_bytes(b"its log")
    assert store.database.restored.moved_aside is not None
    (log,) = store.path.parent.glob("*corrupt*-wal")
    assert log.read_bytes() == b"its log"


def test_a_damaged_index_loses_nothing(store: Store) -> None:
    store.write(JobPut(job("b1")), StatePut(key("a", 1, b"\x01", 1)))
    store.close()
    corrupt_an_index(store.path)
    restored = store.database.restored
    assert restored.jobs == [job("b1")]
    assert restored.state == [key("a", 1, b"\x01", 1)]
    assert restored.moved_aside is not None
    assert "all of its rows are intact" in restored.moved_aside


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE jobs SET symbols = '[]' WHERE backtest_id = 'b1'", "jobs b1"),
        ("UPDATE state SET value = x'02' WHERE key = 'a'", "state a"),
        ("UPDATE answers SET payload = x'02' WHERE request_id = 'r1'", "answers ann r1"),
        ("UPDATE jobs SET client_id = 'nobody' WHERE backtest_id = 'b1'", "jobs b1"),
        ("UPDATE state SET key = CAST(x'ff' AS TEXT) WHERE key = 'a'", "state \\udcff"),
        ("UPDATE pins SET wall_ms = 1 WHERE backtest_id = 'b1'", "pins b1"),
    ],
)
def test_a_damaged_row_is_set_aside_by_name_and_all_others_are_served(store: Store, statement: str, named: str) -> None:
    now = store.database.restored.wall_ms
    names = ("b1", "b2", "b3")
    store.write(*(JobPut(job(one)) for one in names))
    store.write(*(StatePut(key(one, 1, b"\x01", at + 1)) for at, one in enumerate("abc")))
    store.write(*(AnswerPut(answer(one, now)) for one in ("r1", "r2")))
    store.write(*(PinPut(PinRecord(backtest_id=one, wall_ms=now)) for one in names))
    store.close()
    change(store.path, statement)
    damaged_content = store.path.read_bytes()
    restored = store.database.restored
    found = {
        **{f"jobs {one.backtest_id}": one for one in restored.jobs},
        **{f"state {one.key}": one for one in restored.state},
        **{f"answers ann {one.request_id}": one for one in restored.answers},
        **{f"pins {one.backtest_id}": one for one in restored.pins},
    }
    assert len(found) == 3 + 3 + 2 + 3 - 1, "all rows but the damaged one"
    assert named not in found
    assert restored.moved_aside is not None
    assert f"{named}: it " in restored.moved_aside
    (listing,) = store.path.parent.glob("broker.db.corrupt-*.txt")
    assert f"{named}: " in listing.read_text()
    assert listing.with_suffix("").read_bytes() == damaged_content
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in store.path.parent.iterdir())
    assert store.reopen().restored.moved_aside is None, "it is said once"


def test_many_damaged_rows_are_all_in_the_listing(store: Store) -> None:
    store.write(*(JobPut(job(f"b{number}")) for number in range(30)))
    store.close()
    change(store.path, "UPDATE jobs SET losses = 5")
    restored = store.database.restored
    assert restored.jobs == []
    assert restored.moved_aside is not None
    assert "and 20 more" in restored.moved_aside
    (listing,) = store.path.parent.glob("broker.db.corrupt-*.txt")
    assert len(listing.read_text().splitlines()) == 30


class Unsynced(sqlite3.Connection):
    """A connection that does not wait for the disk, for tests that open hundreds of databases."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        return super().execute(sql.replace("synchronous = FULL", "synchronous = OFF"), *parameters)


def unsynced(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Unsynced)
    connection.execute("PRAGMA page_size = 512")
    return connection


CHANCE = random.Random(11)


def small_store(store: Store) -> tuple[bytes, bytes]:
    """Return a database and its log as a kill leaves them, with rows in both of every table."""

    store.connect = unsynced
    now = store.database.restored.wall_ms
    for number in range(8):
        store.write(JobPut(job(f"b{number}")), AnswerPut(answer(f"r{number}", now)))
        store.write(StatePut(key(f"k{number}", 1, b"\xc4\x40" + bytes(64), number + 1)))
        if number == 4:
            store.reopen()
    return store.path.read_bytes(), store.path.with_name("broker.db-wal").read_bytes()


def content_of(restored: Restored) -> set[str]:
    jobs = {f"jobs {one.backtest_id}" for one in restored.jobs if one == job(one.backtest_id)}
    answers = {f"answers {one.request_id}" for one in restored.answers if one.payload == one.request_id.encode()}
    return jobs | answers | {f"state {one.key}" for one in restored.state if one.value == b"\xc4\x40" + bytes(64)}


@pytest.mark.parametrize("which", ["database", "log"])
def test_no_flipped_bit_loses_a_row_without_a_word(store: Store, tmp_path: Path, which: str) -> None:
    """Every row that is not named as lost is there as it was written; the database can be written to again."""
    database, log = small_store(store)
    everything = {f"{table}{number}" for table in ("jobs b", "answers r", "state k") for number in range(8)}
    target = database if which == "database" else log
    headers = 100 if which == "database" else 32 + 24
    places = [*range(headers), *(CHANCE.randrange(len(target)) for _ in range(120))]
    for count, at in enumerate(places):
        folder = tmp_path / f"{count}"
        folder.mkdir()
        damaged = bytearray(target)
        bit = CHANCE.randrange(8)
        damaged[at] ^= 1 << bit
        (folder / "broker.db").write_bytes(damaged if which == "database" else database)
        (folder / "broker.db-wal").write_bytes(damaged if which == "log" else log)
        try:
            again = Database(folder / "broker.db", lambda: None, unsynced)
        except InvalidConfiguration as error:
            raise AssertionError(f"bit {bit} of byte {at} ends the start: {error}") from error
        restored = again.restored
        missing = everything - content_of(restored)
        extra = len(restored.jobs) + len(restored.answers) + len(restored.state) - len(content_of(restored))
        assert not extra, f"bit {bit} of byte {at} changed a row unseen"
        if missing:
            assert restored.moved_aside, f"bit {bit} of byte {at} lost {missing} unseen"
        again.start()
        again.submit(Persist(1, 0, (JobPut(job("after")),)))
        again.close()
        (report,) = again.take()
        assert isinstance(report, Committed), f"bit {bit} of byte {at} leaves a database that cannot be written to"
        shutil.rmtree(folder)


def test_a_log_without_its_database_is_kept_and_said(store: Store) -> None:
    """SQLite would delete it."""
    store.write(JobPut(job("b1")))
    log = store.path.with_name("broker.db-wal").read_bytes()
    store.close()
    store.path.write_bytes(b"")
    store.path.with_name("broker.db-wal").write_bytes(log)
    assert store.database.restored.moved_aside is not None
    (kept,) = store.path.parent.glob("broker.db.corrupt-*-wal")
    assert kept.read_bytes() == log


# Version 1 as it was shipped, with a backtest in it: this text is never changed.
VERSION_1 = """
CREATE TABLE jobs (
    ordinal INTEGER PRIMARY KEY, backtest_id TEXT NOT NULL UNIQUE, client_id TEXT NOT NULL, request_id TEXT NOT NULL,
    algorithm_id TEXT NOT NULL, symbols TEXT NOT NULL, config BLOB NOT NULL, submit_time INTEGER NOT NULL,
    start_time INTEGER, end_time INTEGER, status TEXT NOT NULL, progress_percent REAL NOT NULL, error BLOB,
    losses INTEGER NOT NULL, to_pause INTEGER NOT NULL, UNIQUE (client_id, request_id)
) STRICT;
CREATE TABLE answers (
    ordinal INTEGER PRIMARY KEY, client_id TEXT NOT NULL, request_id TEXT NOT NULL, payload BLOB NOT NULL,
    wall_ms INTEGER NOT NULL, UNIQUE (client_id, request_id)
) STRICT;
CREATE INDEX answers_by_client ON answers (client_id, ordinal);
CREATE INDEX answers_by_time ON answers (wall_ms);
INSERT INTO jobs (backtest_id, client_id, request_id, algorithm_id, symbols, config, submit_time, status,
                  progress_percent, losses, to_pause)
VALUES ('b1', 'ann', 'start b1', 'sma_cross', '["SYNTH","OTHER"]', x'80', 1000, 'queued', 0.0, 0, 0);
"""


def test_a_database_of_an_earlier_version_is_migrated(store: Store) -> None:
    store.path.parent.mkdir()
    database = sqlite3.connect(store.path, isolation_level=None)
    database.executescript(VERSION_1)
    database.execute("PRAGMA user_version = 1")
    database.close()
    assert store.database.restored.jobs == [job("b1")]
    store.close()
    database = sqlite3.connect(store.path)
    assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert schema_of(database) == schema_of(new_database())
    database.close()


def new_database() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database_schema.migrate(database)
    return database


def schema_of(database: sqlite3.Connection) -> list[tuple[str, str]]:
    rows = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
    return [(name, " ".join(sql.replace("(", " ( ").split())) for name, sql in rows]


def test_a_migration_that_fails_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(JobPut(job("b1")))
    store.close()
    change(store.path, "PRAGMA application_id = 0")  # as another version's, which has to be migrated
    steps = (*MIGRATIONS, ("CREATE TABLE half (x INTEGER)", "CREATE TABLE jobs (x INTEGER)"))
    with monkeypatch.context() as patch:
        patch.setattr(database_schema, "MIGRATIONS", steps)
        patch.setattr(database_schema, "SCHEMA_VERSION", len(steps))
        connection = connect_to(store.path)
        with pytest.raises(sqlite3.OperationalError, match="already exists"):
            database_schema.migrate(connection)
        connection.close()
    assert [one.backtest_id for one in store.database.restored.jobs] == ["b1"]


def test_a_database_of_a_later_version_is_refused_and_left_as_it_is(store: Store) -> None:
    store.write(JobPut(job("b1")))
    store.close()
    change(store.path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    change(store.path, f"PRAGMA application_id = {application_id(SCHEMA_VERSION + 1)}")
    content = store.path.read_bytes()
    with pytest.raises(InvalidConfiguration, match=f"schema version {SCHEMA_VERSION + 1}"):
        store.database  # noqa: B018 - opening it is the point
    assert store.path.read_bytes() == content
    assert not list(store.path.parent.glob("*corrupt*"))


def test_a_database_that_another_broker_uses_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "LOCK_PATIENCE", 0.01)
    store.write(JobPut(job("b1")))
    with pytest.raises(InvalidConfiguration, match="another broker uses the data directory"):
        Database(store.path, lambda: None)
    assert isinstance(store.write(JobPut(job("b2"))), Committed)


def test_a_directory_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(InvalidConfiguration, match="BACKTESTR_DATA_DIR"):
        Database(tmp_path / "file" / "broker.db", lambda: None)
    (tmp_path / "broker.db").mkdir()
    with pytest.raises(InvalidConfiguration, match=r"cannot be opened"):
        Database(tmp_path / "broker.db", lambda: None)
