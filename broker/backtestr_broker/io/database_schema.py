"""The schema of the database in all its versions.

A schema version is never changed once it was shipped; a later change is one more step in `MIGRATIONS`. The version
stands in the file's header twice, as `user_version` and in `application_id`: a damaged bit in one of them is not taken
for another version.
"""

from __future__ import annotations

import sqlite3

from . import database_rows

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
    (
        "ALTER TABLE jobs ADD COLUMN row_checksum BLOB",
        "ALTER TABLE answers ADD COLUMN row_checksum BLOB",
        "ALTER TABLE state ADD COLUMN row_checksum BLOB",
        """CREATE TABLE pins (
            backtest_id TEXT PRIMARY KEY, wall_ms INTEGER NOT NULL, row_checksum BLOB
        ) STRICT""",
        """CREATE TABLE deletions (
            backtest_id TEXT PRIMARY KEY, wall_ms INTEGER NOT NULL, row_checksum BLOB
        ) STRICT""",
    ),
    (
        """CREATE TABLE sweeps (
            ordinal INTEGER PRIMARY KEY, sweep_id TEXT NOT NULL UNIQUE, client_id TEXT NOT NULL,
            request_id TEXT NOT NULL, checked BLOB NOT NULL, asked TEXT NOT NULL, submit_time INTEGER NOT NULL,
            start_time INTEGER, end_time INTEGER, status TEXT NOT NULL, error BLOB, figures BLOB NOT NULL,
            row_checksum BLOB
        ) STRICT""",
    ),
)
SCHEMA_VERSION = len(MIGRATIONS)
# The first version whose rows have checksums.
_WITH_CHECKSUMS = 3
# `application_id` is this and the schema version: "bt", then two bytes.
_APPLICATION = 0x6274_0000


class TooNew(Exception):
    """The database was written by a later version of backtestr."""


def application_id(version: int) -> int:
    """Return the `application_id` of a database with that schema version."""
    return _APPLICATION | version


def migrate(connection: sqlite3.Connection) -> int:
    """Bring the schema to `SCHEMA_VERSION`, all steps or none; return the version it had. Raises `TooNew`.

    The version is written at every start, changed or not: so a file that cannot be written to is known at once.
    """
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application == application_id(SCHEMA_VERSION):
        found = SCHEMA_VERSION
    if found > SCHEMA_VERSION:
        raise TooNew(
            f"it has schema version {found} and this backtestr knows versions up to {SCHEMA_VERSION}: a later "
            "backtestr wrote it; use that one, or another data directory"
        )
    connection.execute("BEGIN IMMEDIATE")
    for step in MIGRATIONS[max(found, 0) :]:
        for statement in step:
            connection.execute(statement)
    if found < _WITH_CHECKSUMS:
        database_rows.stamp(connection)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute(f"PRAGMA application_id = {application_id(SCHEMA_VERSION)}")
    connection.execute("COMMIT")
    return int(found)
