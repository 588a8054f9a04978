"""Take over what is intact of a damaged database into a new one, and set the damaged files aside.

The files stay beside the database, under names that begin with `broker.db.corrupt-`, with a text that names every row
that was lost. A crash at any point of this loses nothing: the new database counts from its renaming to `.rescued` on,
and the next start does the rest.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from pathlib import Path

from backtestr_protocol.system.durable_files import OPEN_FILES_MOVE, remove, replace, sync_folder
from backtestr_protocol.system.open_flags import BINARY

from .database_rows import TABLES, DamagedRow, put, salvage_table
from .database_schema import migrate

# Between the name of the database and the time at which its damage was found.
ASIDE = ".corrupt-"
# Damaged rows that a message names; the text beside the files names all.
SHOWN_ROWS = 10

_RESCUING, _RESCUED = ".rescuing", ".rescued"
_PARTS = ("-wal", "-shm", "-journal", "")


def finish_rescue(path: Path) -> None:
    """Do what is left of a rescue that an earlier start did not finish."""
    _beside(path, _RESCUING).unlink(missing_ok=True)
    _beside(path, f"{_RESCUING}-journal").unlink(missing_ok=True)
    rescued = _beside(path, _RESCUED)
    if rescued.exists():
        move_aside(path, aside_name(path))
        _replace(rescued, path)


def rescue(damaged: sqlite3.Connection, path: Path, problem: Exception) -> str:
    """Put a new database with the intact rows in place of a damaged one; return a message about it for people.

    `damaged` is the open connection to it, which is closed here. Raises `OSError` and `sqlite3.Error` where the new one
    cannot be written.
    """
    rescuing = _beside(path, _RESCUING)
    rescuing.unlink(missing_ok=True)
    bad = _take_over(damaged, rescuing)
    _replace(rescuing, _beside(path, _RESCUED))
    aside = aside_name(path)
    _move_open_aside(damaged, path, aside)
    _replace(_beside(path, _RESCUED), path)
    text = f"the database {path} was damaged ({problem}) and was moved to {aside}"
    if not bad:
        return f"{text}; all of its rows are intact and were taken over into a new one"
    listing = aside.with_name(f"{aside.name}.txt")
    _write(listing, "".join(f"{one}\n" for one in bad).encode("utf-8", "backslashreplace"))
    shown = "; ".join(str(one) for one in bad[:SHOWN_ROWS])
    more = f"; and {len(bad) - SHOWN_ROWS} more, all of them in {listing}" if len(bad) > SHOWN_ROWS else ""
    return f"{text}; intact rows were taken over into a new one, these are lost (results are not): {shown}{more}"


def aside_name(path: Path) -> Path:
    """Return the name under which damaged files of this database are set aside now."""
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(seconds))}.{milliseconds:03d}Z"
    return path.with_name(f"{path.name}{ASIDE}{stamp}")


def move_aside(path: Path, aside: Path) -> None:
    """Give a database and its log another name."""
    for part in _PARTS:
        if (file := _beside(path, part)).exists():
            file.rename(_beside(aside, part))


def _move_open_aside(damaged: sqlite3.Connection, path: Path, aside: Path) -> None:
    """Set the files of an open database aside, and close it.

    SQLite writes the log into the file and deletes it when it closes, and both are evidence. So they get their other
    names before, and where open files cannot be renamed they are copied.
    """
    if OPEN_FILES_MOVE:
        move_aside(path, aside)
        damaged.close()
        return
    files = [part for part in _PARTS if _beside(path, part).exists()]
    for part in files:
        shutil.copyfile(_beside(path, part), _beside(aside, part))
    damaged.close()
    for part in files:
        remove(_beside(path, part))


def keep_log(path: Path, log: bytes) -> Path:
    """Keep a copy of a damaged log, and return its path."""
    aside = aside_name(path)
    kept = _beside(aside, "-wal")
    _write(kept, log)
    return kept


def _take_over(damaged: sqlite3.Connection, path: Path) -> list[DamagedRow]:
    """Write the intact rows of a database into a new one; return the others."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o600))
    connection = sqlite3.connect(path, isolation_level=None)
    bad: list[DamagedRow] = []
    try:
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection)
        connection.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            records, lost = salvage_table(damaged, table)
            bad += lost
            for record in records:
                try:
                    put(connection, table, record)
                except sqlite3.IntegrityError as error:
                    bad.append(DamagedRow(table.name, str(getattr(record, table.keys[0])), str(error)))
        connection.execute("COMMIT")
    finally:
        connection.close()
    return bad


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _replace(source: Path, target: Path) -> None:
    """Rename a file, and wait until that is on disk."""
    replace(source, target)
    sync_folder(target.parent)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | BINARY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
