"""A rescue carries every intact row over, and a crash at any point of it loses nothing."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from backtestr_broker.core.records import JobPut, Restored, StatePut
from backtestr_broker.io import database_rescue
from backtestr_broker.io.database import Database
from backtestr_broker.io.database_rows import apply
from backtestr_broker.io.database_schema import migrate
from support.broker.database_store import job, key


class Crash(Exception):
    """The broker ended here."""


def damaged_database(path: Path) -> None:
    """Write a database with ten jobs and ten keys, one of each damaged."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    migrate(connection)
    connection.execute("BEGIN")
    apply(connection, [JobPut(job(f"b{number}")) for number in range(10)])
    apply(connection, [StatePut(key(f"k{number}", 1, b"\x01", number + 1)) for number in range(10)])
    connection.execute("UPDATE jobs SET losses = 1 WHERE backtest_id = 'b4'")
    connection.execute("UPDATE state SET timestamp = 9 WHERE key = 'k7'")
    connection.execute("COMMIT")
    connection.close()


def opened(path: Path) -> Restored:
    database = Database(path, lambda: None)
    database.close()
    return database.restored


def assert_rescued(restored: Restored) -> None:
    assert [one.backtest_id for one in restored.jobs] == [f"b{number}" for number in range(10) if number != 4]
    assert [one.key for one in restored.state] == [f"k{number}" for number in range(10) if number != 7]


@pytest.mark.parametrize("step", range(6))
def test_a_crash_at_any_rename_of_a_rescue_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    path = tmp_path / "broker.db"
    damaged_database(path)
    before = path.read_bytes()
    done = 0

    def counted(real: object) -> object:
        def move(self: Path, target: Path) -> Path:
            nonlocal done
            if done == step:
                raise Crash
            done += 1
            os.rename(self, target)
            return target

        return move

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(Path, "replace", counted(Path.replace))
        try:
            opened(path)
        except Crash:
            assert done == step
    assert_rescued(opened(path))
    (aside,) = (one for one in tmp_path.glob("broker.db.corrupt-*Z"))
    assert aside.read_bytes()[100:] == before[100:], "only the header has changed, which every start writes"
    assert not list(tmp_path.glob("*.rescu*"))


def test_a_half_written_new_database_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "broker.db"
    damaged_database(path)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(database_rescue, "put", full)
        with pytest.raises(Exception, match="database or disk is full"):
            opened(path)
    assert path.exists()
    assert_rescued(opened(path))


def test_a_page_that_is_lost_costs_its_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA page_size = 1024")
    migrate(connection)
    connection.execute("BEGIN")
    apply(connection, [JobPut(job(f"b{number}", config=bytes(100))) for number in range(200)])
    connection.execute("COMMIT")
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'jobs'").fetchone()
    connection.close()
    content = bytearray(path.read_bytes())
    pages = {at: content[at : at + 1024] for at in range(page * 1024, len(content), 1024)}
    leaves = [at for at, page in pages.items() if page[0] == 13 and b"sma_cross" in page]
    content[leaves[len(leaves) // 2]] = 99
    path.write_bytes(content)
    restored = opened(path)
    assert 150 < len(restored.jobs) < 200
    assert restored.moved_aside is not None
    assert "rows may be missing that cannot be named" in restored.moved_aside
