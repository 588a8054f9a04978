"""A client maps a table file only if nobody else can have written it, and only the one that was announced."""

from __future__ import annotations

import errno
import gc
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtestr.io import table_files as module
from backtestr.io.table_files import FileUnusable, map_table, tables_directory
from backtestr_protocol import private_files
from backtestr_protocol.column_types import column_type
from backtestr_protocol.connection import Connection, Curve, Endpoints, Signing
from backtestr_protocol.errors import SerializationError
from backtestr_protocol.keys import new_pair
from backtestr_protocol.messages import TableColumn, TableFile
from backtestr_protocol.secret import Secret

FRAME = pl.DataFrame({"id": ["a", None, "c"] * 500, "value": [1.0, float("nan"), -0.0] * 500})
COLUMNS = [TableColumn(name=name, type=column_type(kind)) for name, kind in FRAME.schema.items()]
NAME = "42-0a.arrow"


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    directory = tmp_path / "tables"
    directory.mkdir(0o700)
    FRAME.write_ipc(directory / NAME, compression="uncompressed")
    (directory / NAME).chmod(0o400)
    return directory


def announced(directory: Path, **changes: Any) -> TableFile:
    file = TableFile(name=NAME, size=(directory / NAME).stat().st_size, columns=COLUMNS)
    return msgspec.structs.replace(file, **changes)


def connection(directory: Path | str | None, scheme: str = "ipc", curve: Curve | None = None) -> Connection:
    endpoints = {name: f"{scheme}:///run/{name}" for name in Endpoints.__struct_fields__}
    return Connection(
        protocol_version=1,
        instance_id="i",
        pid=1,
        start_time=0,
        endpoints=Endpoints(**endpoints),
        signing=Signing(algorithm="hmac-sha256", key=Secret(bytes(32))),
        curve=curve,
        tables_directory=None if directory is None else str(directory),
    )


def large(rows: int = 100_000) -> pl.DataFrame:
    values = pl.Series(range(rows))
    return pl.DataFrame(
        {
            "timestamp": values.cast(pl.Datetime("us", "UTC")),
            "number": values.cast(pl.Float64) / 3,
            "nulls": pl.Series([None, 1.0] * (rows // 2)),
            "small": values.cast(pl.UInt32),
            "text": ["é", "b"] * (rows // 2),
            "flag": [True, False] * (rows // 2),
        }
    )


def write(directory: Path, frame: pl.DataFrame, **how: Any) -> TableFile:
    frame.write_ipc(directory / "7-f.arrow", **{"compat_level": pl.CompatLevel.oldest()} | how)
    (directory / "7-f.arrow").chmod(0o400)
    columns = [TableColumn(name=name, type=column_type(kind)) for name, kind in frame.schema.items()]
    return TableFile(name="7-f.arrow", size=(directory / "7-f.arrow").stat().st_size, columns=columns)


def places() -> list[range]:
    """Return the addresses at which this process has mapped the large file."""
    lines = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if "7-f.arrow" in line]
    return [range(*(int(end, 16) for end in line.split("-"))) for line in lines]


def is_mapped(column: pl.Series) -> bool:
    addresses = [part.to_physical().to_numpy(allow_copy=False).ctypes.data for part in column.get_chunks()]
    return all(any(address in one for one in places()) for address in addresses)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not say what is mapped")
def test_numbers_and_times_of_a_large_table_are_the_pages_of_its_file(tables: Path) -> None:
    frame = large()
    found = map_table(tables, file := write(tables, frame))
    assert found.equals(frame)
    assert found.schema == frame.schema
    assert all(is_mapped(found[name]) for name in ("timestamp", "number", "small"))
    (tables / file.name).unlink()
    assert found.equals(frame)
    changed = found.with_columns(number=pl.col("number").sort(descending=True))
    changed[0, "small"] = 9
    assert found.equals(frame), "what a program computes changes nothing of it"
    assert places()
    del found, changed
    gc.collect()
    assert not places(), "the file is let go with the last of its columns"


def test_so_many_files_are_mapped_and_others_are_read(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MAPPED", 2)
    frame = large()
    file = write(tables, frame)
    held = [map_table(tables, file) for _ in range(4)]
    assert [is_mapped(one["number"]) for one in held] == [True, True, False, False]
    assert all(one.equals(frame) for one in held)
    held.pop(0)
    gc.collect()
    assert is_mapped(map_table(tables, file)["number"])


def test_without_numpy_a_large_file_is_read(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tables, large())
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert map_table(tables, file).equals(large())


def test_a_large_file_is_read_if_its_columns_are_of_other_kinds_and_refused_if_it_is_damaged(tables: Path) -> None:
    for odd, how in ((large().with_columns(parts=pl.lit([1, 2])), {}), (large(400_000), {"compression": "lz4"})):
        file = write(tables, odd, **how)
        assert file.size >= module.MAPPED_FROM
        assert map_table(tables, file).equals(odd)
        (tables / file.name).unlink()
    write(tables, large())
    (tables / file.name).chmod(0o600)
    (tables / file.name).write_bytes(b"x" * (1 << 20))
    with pytest.raises((SerializationError, FileUnusable)):
        map_table(tables, msgspec.structs.replace(file, size=1 << 20))


def test_a_table_is_mapped_and_stays_when_its_file_is_removed_or_replaced(tables: Path) -> None:
    file = announced(tables)
    removed, replaced = map_table(tables, file), map_table(tables, file)
    other = tables / "other"
    other.write_bytes(b"\xff" * file.size)
    os.replace(other, tables / NAME)
    assert replaced.equals(FRAME)
    (tables / NAME).unlink()
    assert removed.equals(FRAME)
    assert removed["value"].sum() is not None
    with pytest.raises(FileUnusable):
        map_table(tables, file)


@pytest.mark.parametrize(
    "name",
    [
        "../tables/42-0a.arrow",
        "/etc/passwd",
        "a/42-0a.arrow",
        "./42-0a.arrow",
        "..",
        "",
        ".arrow",
        "42-0a.arrow\n",
        "42-0a.arrow\0",
        "42-0*.arrow",
        "42-0A.arrow",
        "é.arrow",
        "0" * 200 + ".arrow",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name: str, tables: Path) -> None:
    with pytest.raises(SerializationError, match="is no name of a table file"):
        map_table(tables, announced(tables, name=name))
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": name, "size": 1, "columns": []}, TableFile)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=120) | st.from_regex(r"[./0-9a-f\\-]{1,40}(\.arrow)?"), size=st.integers(0, 1 << 40))
def test_hostile_names_and_sizes_raise_the_two_errors_or_nothing(name: str, size: int, tables: Path) -> None:
    try:
        found = map_table(tables, announced(tables, name=name, size=size))
    except (SerializationError, FileUnusable):
        return
    assert (name, size) == (NAME, (tables / NAME).stat().st_size)
    assert found.equals(FRAME)


@pytest.mark.parametrize("inside", [True, False], ids=["to a file beside it", "out of the directory"])
def test_a_link_is_refused(inside: bool, tables: Path, tmp_path: Path) -> None:
    size = (tables / NAME).stat().st_size
    target = tables / NAME if inside else tmp_path / "elsewhere"
    if not inside:
        (tables / NAME).rename(target)
    (tables / "1-b.arrow").symlink_to(target)
    with pytest.raises(SerializationError, match="is a link, and is not used; remove it"):
        map_table(tables, TableFile(name="1-b.arrow", size=size, columns=COLUMNS))


def test_no_file_but_a_regular_one_is_used(tables: Path) -> None:
    (tables / "1-b.arrow").mkdir()
    os.mkfifo(tables / "1-c.arrow")
    for name in ("1-b.arrow", "1-c.arrow"):
        with pytest.raises(SerializationError, match="is no regular file"):
            map_table(tables, announced(tables, name=name))


@pytest.mark.parametrize("mode", [0o402, 0o422, 0o666])
def test_a_file_that_others_may_write_is_refused(mode: int, tables: Path) -> None:
    (tables / NAME).chmod(mode)
    with pytest.raises(SerializationError, match=r"others may write to .* chmod go-w"):
        map_table(tables, announced(tables))


def test_a_file_of_another_user_is_refused(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = (tables / NAME).stat().st_uid
    monkeypatch.setattr(private_files, "_trusted_users", lambda: {owner + 1})
    with pytest.raises(SerializationError, match="belongs to another user"):
        map_table(tables, announced(tables))


@pytest.mark.parametrize("bytes_left", [0, 6, 100, -1])
def test_a_truncated_file_is_refused_whatever_is_announced(bytes_left: int, tables: Path) -> None:
    file = announced(tables)
    content = (tables / NAME).read_bytes()[:bytes_left]
    (tables / NAME).chmod(0o600)
    (tables / NAME).write_bytes(content)
    with pytest.raises(SerializationError, match=f"has {len(content):,} bytes; {file.size:,} were announced"):
        map_table(tables, file)
    with pytest.raises((SerializationError, FileUnusable)):
        map_table(tables, announced(tables))


def test_other_columns_are_refused(tables: Path) -> None:
    for wrong in (COLUMNS[:1], COLUMNS[::-1], [COLUMNS[0], TableColumn(name="value", type="int64")]):
        with pytest.raises(SerializationError, match="were announced"):
            map_table(tables, announced(tables, columns=wrong))


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES, errno.ENOMEM, errno.ESTALE])
def test_a_file_that_cannot_be_opened_now_is_to_be_received(
    code: int, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    file = announced(tables)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail)
        with pytest.raises(FileUnusable):
            map_table(tables, file)
    monkeypatch.setattr(pl, "read_ipc", fail)
    with pytest.raises(FileUnusable):
        map_table(tables, file)


def test_the_directory_of_the_connection_file_is_used_over_ipc(tables: Path) -> None:
    assert tables_directory(connection(tables)) == tables


def test_other_connections_have_no_directory(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = new_pair()
    curve = Curve(server_public_key=pair.public)
    assert tables_directory(connection(None)) is None
    assert tables_directory(connection(tables, "tcp")) is None
    assert tables_directory(connection(tables, "inproc")) is None
    assert tables_directory(connection(tables, curve=curve)) is None
    monkeypatch.setattr(module, "HAS_OWNERS", False)
    assert tables_directory(connection(tables)) is None


def test_a_directory_that_is_not_trusted_or_not_there_is_not_used(tables: Path, tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (open_to_all / "inner").mkdir(0o700)
    patterned = tmp_path / "a[b]"
    patterned.mkdir(0o700)
    for directory in (open_to_all, open_to_all / "inner", tmp_path / "none", tables / NAME, patterned, "tables", "\0"):
        assert tables_directory(connection(directory)) is None, directory
