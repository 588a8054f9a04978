"""The database, and the one thread that writes to it: SQLite with a write-ahead log, synced at every commit.

    database = Database(data_dir / DATABASE, wake)   # opened and read: `database.restored`
    database.start()
    database.submit(order)                           # Persist, ReadState: never waits
    database.take()                                  # -> Committed, CommitFailed, StateRead: the results

Changes that are queued during one commit share the next: under load many share one sync. The file is locked until the
broker ends, since two brokers would run each other's backtests. All of it is checked at the start: the structure, the
checksum of every row, and whether the log has lost changes. What is damaged is set aside (`database_rescue`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from backtestr_broker.core.commit_queue import MAX_UNCOMMITTED
from backtestr_broker.core.events import CommitFailed, Committed, Persist, ReadState, StateRead
from backtestr_broker.core.records import Restored
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.private_files import check_file, make_private
from backtestr_protocol.system.file_lock import FileLock
from backtestr_protocol.system.open_flags import BINARY

from .database_rescue import aside_name, finish_rescue, keep_log, move_aside, rescue
from .database_rows import TABLES, DamagedRow, UnreadableRow, apply, read_key, read_table, remembered
from .database_schema import TooNew, migrate
from .wal_check import check_wal

# The name of its file in the data directory.
DATABASE = "broker.db"
# At most `MAX_UNCOMMITTED` changes, one batch of backtests and `MAX_REPAIRS` reads: twice the first is never reached.
MAX_QUEUED = 2 * MAX_UNCOMMITTED
# Seconds to wait for the lock of a broker that is just ending.
LOCK_PATIENCE = 2.0
# The file in the data directory that is locked while the database is opened.
_OPENING = "opening.lock"

Connect = Callable[[Path], sqlite3.Connection]
Order = Persist | ReadState
Report = Committed | CommitFailed | StateRead

_log = logging.getLogger(__name__)


class _Damaged(Exception):
    """The database is damaged."""


def connect_to(path: Path) -> sqlite3.Connection:
    """Open a connection on which transactions begin where the code begins them."""
    return sqlite3.connect(path, timeout=LOCK_PATIENCE, isolation_level=None, check_same_thread=False)


class Database:
    """The broker's records on disk."""

    def __init__(self, path: Path, wake: Callable[[], None], connect: Connect = connect_to) -> None:
        """Open the database, or a new one where there is none; what is damaged is set aside, see `restored`.

        `wake` is called when there is something to `take`. Raises `InvalidConfiguration` where another broker uses the
        database, a later backtestr or another user may have written it, or it cannot be opened at all.
        """
        self._wake = wake
        self._queue: queue.Queue[Order | None] = queue.Queue(MAX_QUEUED)
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._failed_generation = -1
        self._connection, self.restored = _open_or_replace(path, connect)
        self._thread = threading.Thread(target=self._run, name="backtestr database", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, order: Order) -> None:
        """Queue changes to be written, or a key to be read. The core bounds how many are on their way."""
        self._queue.put_nowait(order)

    def take(self) -> list[Report]:
        """Return the results since the last time, in order."""
        return [self._reports.get_nowait() for _ in range(self._reports.qsize())]

    def close(self) -> None:
        """Write what was submitted, and close the file."""
        if self._thread.ident is not None:
            self._queue.put(None)
            self._thread.join()
        self._connection.close()

    # --- the database thread ---

    def _run(self) -> None:
        running = True
        while running:
            batch: list[Order] = []
            one = self._queue.get()
            while one is not None:
                batch.append(one)
                if self._queue.empty():  # no other thread takes from it
                    break
                one = self._queue.get()
            running = one is not None
            changes = [one for one in batch if isinstance(one, Persist) and one.generation > self._failed_generation]
            if changes:
                self._reports.put(self._write(changes))
            for one in batch:
                if isinstance(one, ReadState):
                    self._reports.put(self._read_key(one.key))
            self._wake()

    def _write(self, batch: list[Persist]) -> Report:
        """Write a batch in one transaction. It is of one generation: the core begins another after a failure."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            apply(self._connection, (change for persist in batch for change in persist.changes))
            self._connection.execute("COMMIT")
        except Exception as error:  # after any error the thread continues, and the core gets the failure
            if not isinstance(error, sqlite3.Error):
                _log.exception("changes could not be written")
            self._roll_back()
            self._failed_generation = batch[-1].generation
            return CommitFailed(self._failed_generation, f"{error}", _wall_ms())
        return Committed(batch[-1].ticket, _wall_ms())

    def _read_key(self, key: str) -> StateRead:
        try:
            return StateRead(key, read_key(self._connection, key), _wall_ms())
        except (sqlite3.Error, UnreadableRow):
            _log.exception("the state key %r could not be read", key)
            return StateRead(key, None, _wall_ms())

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            _log.exception("a failed transaction could not be rolled back")


def _open_or_replace(path: Path, connect: Connect) -> tuple[sqlite3.Connection, Restored]:
    try:
        make_private(path.parent)
        with _opening(path):
            return _open_checked(path, connect)
    except TooNew as error:
        raise InvalidConfiguration(f"{path} cannot be used: {error} (BACKTESTR_DATA_DIR)") from error
    except sqlite3.DatabaseError as error:
        if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise InvalidConfiguration(
                f"another broker uses the data directory {path.parent}: connect to that one, or name another directory "
                "in BACKTESTR_DATA_DIR"
            ) from error
        raise InvalidConfiguration(f"{path} cannot be opened: {error}") from error
    except OSError as error:
        raise InvalidConfiguration(
            f"{path} cannot be opened: {error.strerror}; name a directory of your own in BACKTESTR_DATA_DIR"
        ) from error


def _open_checked(path: Path, connect: Connect) -> tuple[sqlite3.Connection, Restored]:
    finish_rescue(path)
    notes = _set_aside_orphan(path)
    connection, found = _open(path, connect, notes)
    if not isinstance(found, Restored):
        with contextlib.closing(connection):
            notes.append(rescue(connection, path, found))
        connection, found = _open(path, connect, notes)
    if isinstance(found, Restored):
        text = "; ".join(notes).encode("utf-8", "backslashreplace").decode()  # a path may be no UTF-8
        return connection, msgspec.structs.replace(found, moved_aside=text or None)
    connection.close()
    raise InvalidConfiguration(f"a new database in {path.parent} cannot be read either: {found}")


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Keep other brokers from opening the database, or finishing a rescue of it, at the same time.

    Raises `InvalidConfiguration` when another one takes longer than `LOCK_PATIENCE` for it.
    """
    lock = FileLock(path.parent / _OPENING)
    if not lock.take(LOCK_PATIENCE):
        raise InvalidConfiguration(
            f"another broker is opening the data directory {path.parent}: connect to that one, or name another "
            "directory in BACKTESTR_DATA_DIR"
        )
    try:
        yield
    finally:
        lock.release()


def _set_aside_orphan(path: Path) -> list[str]:
    """Set a log aside that has no database: SQLite would delete it. Returns a message about it, if there is one."""
    log = path.with_name(f"{path.name}-wal")
    if (path.exists() and path.stat().st_size) or not log.exists() or not log.stat().st_size:
        return []
    aside = aside_name(path)
    move_aside(path, aside)
    return [f"the database {path} was empty beside its log, which was moved to {aside}-wal: what was in it is lost"]


def _open(
    path: Path, connect: Connect, notes: list[str]
) -> tuple[sqlite3.Connection, Restored | _Damaged | sqlite3.DatabaseError]:
    """Return the connection, and the content of the database or its damage. Raises where the file is not damaged.

    `notes` gets a message if the log has lost changes.
    """
    _make_or_check(path)
    connection = connect(path)
    # Text that is no UTF-8 is damage of one row, and must not end the reading of all.
    connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
    try:
        return connection, _read(connection, path, notes)
    except _Damaged as error:
        return connection, error
    except UnicodeError as error:  # in SQLite's message about a damaged schema
        return connection, _Damaged(f"its schema cannot be read: {error}")
    except sqlite3.DatabaseError as error:
        if _is_damage(error):
            return connection, error
        connection.close()
        raise
    except BaseException:  # after Ctrl-C too: the database is locked while it is open
        connection.close()
        raise


def _make_or_check(path: Path) -> None:
    """Create the file with mode 0600. Raises `InvalidConfiguration` for files that another user may have written."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | BINARY, 0o600)
    try:
        check_file(path, os.fstat(descriptor))
    finally:
        os.close(descriptor)
    for log in (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")):
        with contextlib.suppress(FileNotFoundError):
            check_file(log, log.lstat())


def _read(connection: sqlite3.Connection, path: Path, notes: list[str]) -> Restored:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    _check_log(connection, path, notes)
    migrate(connection)
    problems = [text for (text,) in connection.execute("PRAGMA integrity_check(1)")]
    if problems != ["ok"]:
        raise _Damaged(problems[0])
    tables: dict[str, Any] = {}
    bad: list[DamagedRow] = []
    for table in TABLES:
        tables[table.name], damaged = read_table(connection, table)
        bad += damaged
    if bad:
        raise _Damaged(f"{len(bad)} row(s) of it are")
    now = _wall_ms()
    return Restored(wall_ms=now, **(tables | {"answers": remembered(tables["answers"], now)}))


def _check_log(connection: sqlite3.Connection, path: Path, notes: list[str]) -> None:
    """Compare the log with what SQLite has read of it; keep a copy of it if that is not all."""
    log = path.with_name(f"{path.name}-wal")
    content = log.read_bytes() if log.exists() else b""
    if not content:
        return
    _busy, recovered, _moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    damage = check_wal(content, recovered)
    if damage is None:
        return
    lost = (
        "changes that were acknowledged are lost"
        if damage.certain
        else "the latest changes may be lost, or were not finished and not acknowledged when the broker was killed"
    )
    notes.append(f"the log of the database {path} was damaged: {damage.reason}; {lost}; see {keep_log(path, content)}")


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Return True for damage of the file itself, and False for a fault of the disk, its mode, or another broker.

    SQLITE_ERROR is a missing table or column; SQLITE_READONLY is a header that says so, since the file was opened for
    writing before.
    """
    damage = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY)
    return _code(error) in damage


def _code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code."""
    extended = getattr(error, "sqlite_errorcode", None)
    return None if extended is None else extended & 0xFF


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
