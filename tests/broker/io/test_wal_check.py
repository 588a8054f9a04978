"""A damaged write-ahead log is told from an old and from an unfinished one, bit by bit."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from backtestr_broker.io.wal_check import check_wal

HEADER, FRAME = 32, 24 + 512
COMMITS = 5


def written(path: Path, commits: int = COMMITS) -> tuple[bytes, bytes]:
    """Return a database and its log, with a number in it for each commit, as after a kill."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA page_size = 512")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA wal_autocheckpoint = 0")
    database.execute("CREATE TABLE numbers (number INTEGER)")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for number in range(commits):
        database.execute("INSERT INTO numbers VALUES (?)", (number,))
    found = path.read_bytes(), path.with_name(f"{path.name}-wal").read_bytes()
    database.close()
    return found


def reopened(path: Path, database: bytes, log: bytes) -> tuple[list[int], int]:
    """Return the numbers that SQLite still finds, and how many frames it has recovered."""
    path.write_bytes(database)
    path.with_name(f"{path.name}-wal").write_bytes(log)
    opened = sqlite3.connect(path, isolation_level=None)
    opened.execute("PRAGMA locking_mode = EXCLUSIVE")
    opened.execute("PRAGMA journal_mode = WAL")
    opened.execute("PRAGMA synchronous = OFF")
    _busy, frames, _moved = opened.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    numbers = [number for (number,) in opened.execute("SELECT number FROM numbers ORDER BY number")]
    opened.close()
    return numbers, frames


def test_a_log_that_lost_nothing_is_not_damaged(tmp_path: Path) -> None:
    database, log = written(tmp_path / "a.db")
    numbers, frames = reopened(tmp_path / "b.db", database, log)
    assert numbers == list(range(COMMITS))
    assert frames == (len(log) - HEADER) // FRAME
    assert check_wal(log, frames) is None
    assert check_wal(b"", 0) is None
    assert check_wal(log[:HEADER], 0) is None


def test_every_flipped_bit_that_loses_a_commit_is_seen(tmp_path: Path) -> None:
    """Each bit of the log's header and of two frames' headers, and bits of pages chosen by a fixed seed."""
    database, log = written(tmp_path / "a.db")
    chance = random.Random(7)
    starts = (HEADER + FRAME, len(log) - FRAME)
    headers = {at for start in starts for at in range(start, start + 24)} | set(range(HEADER))
    flips = [(at, bit) for at in sorted(headers) for bit in range(8)]
    flips += [(at, chance.randrange(8)) for at in range(0, len(log), 23) if at not in headers]
    certain = 0
    for at, bit in flips:
        damaged = bytearray(log)
        damaged[at] ^= 1 << bit
        numbers, frames = reopened(tmp_path / "b.db", database, bytes(damaged))
        damage = check_wal(bytes(damaged), frames)
        if numbers != list(range(COMMITS)):
            assert damage is not None, f"bit {bit} of byte {at} lost {COMMITS - len(numbers)} commits unseen"
        certain += damage is not None and damage.certain
        if damage is not None and damage.certain:
            assert len(numbers) < COMMITS, f"bit {bit} of byte {at} lost nothing"
    assert certain > 100


def test_a_loss_is_certain_only_where_a_later_transaction_was_finished(tmp_path: Path) -> None:
    database, log = written(tmp_path / "a.db")
    frames = (len(log) - HEADER) // FRAME
    for number, certain in ((1, True), (frames - 1, False)):
        damaged = bytearray(log)
        damaged[HEADER + number * FRAME + 100] ^= 1
        _, recovered = reopened(tmp_path / "b.db", database, bytes(damaged))
        damage = check_wal(bytes(damaged), recovered)
        assert damage is not None
        assert damage.certain == certain
        assert f"frame {number + 1} of the log is damaged" in damage.reason


def test_old_frames_behind_the_latest_are_no_damage(tmp_path: Path) -> None:
    """After a checkpoint the log is written again from its start, and old frames are left behind the new ones."""
    path = tmp_path / "a.db"
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA page_size = 512")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE numbers (number INTEGER)")
    for number in range(20):
        database.execute("INSERT INTO numbers VALUES (?)", (number,))
    database.execute("PRAGMA wal_checkpoint(RESTART)")
    for number in range(20, 23):
        database.execute("INSERT INTO numbers VALUES (?)", (number,))
    content, log = path.read_bytes(), path.with_name("a.db-wal").read_bytes()
    database.close()
    numbers, frames = reopened(tmp_path / "b.db", content, log)
    assert numbers == list(range(23))
    assert frames < (len(log) - HEADER) // FRAME
    assert check_wal(log, frames) is None


@pytest.mark.parametrize(("left", "shows"), [(0, False), (1, True), (24, False), (100, True), (FRAME - 1, True)])
def test_a_log_that_was_cut_shows_it_unless_a_kill_may_have_done_that(tmp_path: Path, left: int, shows: bool) -> None:
    database, log = written(tmp_path / "a.db")
    cut = log[: len(log) - FRAME + left]
    numbers, frames = reopened(tmp_path / "b.db", database, cut)
    assert numbers == list(range(COMMITS - 1))
    damage = check_wal(cut, frames)
    assert (damage is not None) == shows
    assert damage is None or not damage.certain


@pytest.mark.parametrize("size", [1, 31, 33, 55])
def test_a_log_that_was_cut_in_its_first_headers_shows_it(tmp_path: Path, size: int) -> None:
    _, log = written(tmp_path / "a.db")
    assert check_wal(log[:size], 0) is not None


def test_a_tail_of_zeros_shows(tmp_path: Path) -> None:
    """File systems leave such tails after a loss of power, so that it is not certain that a change is lost."""
    database, log = written(tmp_path / "a.db")
    zeroed = log[: -2 * FRAME] + bytes(2 * FRAME)
    _, frames = reopened(tmp_path / "b.db", database, zeroed)
    damage = check_wal(zeroed, frames)
    assert damage is not None
    assert not damage.certain


def test_an_unfinished_transaction_is_no_damage(tmp_path: Path) -> None:
    """The frames of a transaction without its end: the broker was killed while it wrote."""
    path = tmp_path / "a.db"
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA page_size = 512")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE numbers (number INTEGER)")
    database.execute("INSERT INTO numbers VALUES (0)")
    database.execute("BEGIN")
    for number in range(1, 500):
        database.execute("INSERT INTO numbers VALUES (?)", (number,))
    database.execute("COMMIT")
    content, log = path.read_bytes(), path.with_name("a.db-wal").read_bytes()
    database.close()
    cut = log[:-FRAME]
    numbers, frames = reopened(tmp_path / "b.db", content, cut)
    assert numbers == [0]
    assert check_wal(cut, frames) is None
