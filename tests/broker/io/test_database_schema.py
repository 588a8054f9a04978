"""The schema is migrated step by step, and its version is read right though a bit of it is damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from backtestr_broker.io.database_schema import MIGRATIONS, SCHEMA_VERSION, TooNew, application_id, migrate


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """Open an empty database in memory, without a schema."""
    opened = sqlite3.connect(":memory:", isolation_level=None)
    yield opened
    opened.close()


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
    """A later version writes both numbers, as every version does."""
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.execute(f"PRAGMA application_id = {application_id(SCHEMA_VERSION + 1)}")
    with pytest.raises(TooNew, match=f"schema version {SCHEMA_VERSION + 1}"):
        migrate(connection)
    assert schema_of(connection) == []


@pytest.mark.parametrize("number", ["user_version", "application_id"])
@pytest.mark.parametrize("bit", range(31))
def test_a_flipped_bit_of_the_version_is_not_taken_for_another_version(
    connection: sqlite3.Connection, number: str, bit: int
) -> None:
    migrate(connection)
    before = schema_of(connection)
    (good,) = connection.execute(f"PRAGMA {number}").fetchone()
    connection.execute(f"PRAGMA {number} = {good ^ 1 << bit}")
    assert migrate(connection) == SCHEMA_VERSION
    assert connection.execute(f"PRAGMA {number}").fetchone() == (good,)
    assert schema_of(connection) == before
