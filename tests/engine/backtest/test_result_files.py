"""The arrays of a result come back bit for bit, whatever their layout, and one that is damaged or torn is refused."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import stat
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtestr_engine.backtest.result_files import RECORDS, Part, RecordFile, RecordWriter
from backtestr_engine.data.arrays import AnyArray
from backtestr_engine.simulation.records import POSITION


def written(folder: Path, arrays: dict[str, AnyArray | bytes]) -> dict[str, Part]:
    writer = RecordWriter(folder / RECORDS)
    for name, content in arrays.items():
        writer.add(name, content)
    parts = writer.parts()
    writer.close()
    return msgspec.json.decode(msgspec.json.encode(parts), type=dict[str, Part])  # as result.json has them


def positions(rows: int) -> np.ndarray:
    made = np.zeros(rows, dtype=POSITION)
    for number, name in enumerate(POSITION.names or ()):
        made[name] = np.arange(rows) * (number + 1)
    return made


def test_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    equity = np.array([1.5, -0.0, np.nan, 5e-324])
    strided = np.arange(20, dtype=np.int64)[::2]
    empty = np.zeros(0, dtype=POSITION)
    given: dict[str, AnyArray | bytes] = {"equity": equity, "bars": strided, "positions": positions(5)}
    given |= {"open": empty, "streams": b"\x00log"}
    found = RecordFile(tmp_path, written(tmp_path, given))

    assert found.column("equity").tobytes() == equity.tobytes()
    assert found.column("bars").tolist() == strided.tolist()
    assert found.records("positions", POSITION).tobytes() == positions(5).tobytes()
    assert len(found.records("open", POSITION)) == 0
    assert found.content("streams") == b"\x00log"
    assert [found.has(name) for name in ("streams", "states")] == [True, False]
    assert stat.S_IMODE((tmp_path / RECORDS).stat().st_mode) == 0o600


def test_an_array_that_is_used_can_be_written(tmp_path: Path) -> None:
    found = RecordFile(tmp_path, written(tmp_path, {"positions": positions(2)}))
    found.records("positions", POSITION)["quantity"] = 1.0


def test_records_of_another_layout_are_read_by_the_names_of_their_columns(tmp_path: Path) -> None:
    names = POSITION.names or ()
    other = np.dtype([*((name, POSITION[name]) for name in reversed(names)), ("later", "<i8")])
    moved = np.zeros(3, dtype=other)
    for name in names:
        moved[name] = positions(3)[name]
    found = RecordFile(tmp_path, written(tmp_path, {"positions": moved}))
    assert found.records("positions", POSITION).tobytes() == positions(3).tobytes()


def test_a_column_that_is_missing_is_an_error(tmp_path: Path) -> None:
    fewer = np.zeros(3, dtype=[("position_id", "<i8")])
    found = RecordFile(tmp_path, written(tmp_path, {"positions": fewer}))
    with pytest.raises(ValueError, match="timestamp"):
        found.records("positions", POSITION)


def test_large_arrays_are_on_disk_before_the_last_one_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", noted)
    large = np.arange(1 << 18, dtype=np.int64)
    written(tmp_path, {"equity": large, "bars": np.arange(3)})
    assert synced[-1] == large.nbytes + 24


class FullDisk(io.FileIO):
    def write(self, _content: object, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_error_of_the_disk_is_raised_where_the_parts_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RecordWriter(tmp_path / RECORDS)
    opened = writer._file
    monkeypatch.setattr(writer, "_file", FullDisk(opened.fileno(), "wb", closefd=False))
    for number in range(20):  # what follows an error does not wait for ever
        writer.add(f"a{number}", b"abc")
    with pytest.raises(OSError, match="No space left"):
        writer.parts()
    with pytest.raises(OSError, match="No space left"):
        writer.close()
    opened.close()


class Hesitant(io.FileIO):
    """A file that takes three bytes at a time, as one without a buffer may."""

    def write(self, content: Any, /) -> int:
        return super().write(memoryview(content)[:3])


def test_a_file_that_takes_less_at_a_time_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RecordWriter(tmp_path / RECORDS)
    opened = writer._file
    monkeypatch.setattr(writer, "_file", Hesitant(opened.fileno(), "wb", closefd=False))
    writer.add("positions", positions(3))
    parts = writer.parts()
    writer.close()
    opened.close()
    assert RecordFile(tmp_path, parts).records("positions", POSITION).tobytes() == positions(3).tobytes()


def test_an_error_of_the_last_sync_is_raised_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    writer = RecordWriter(tmp_path / RECORDS)
    writer.add("streams", b"abc")
    with contextlib.suppress(OSError):  # it may be there already
        writer.parts()
    with pytest.raises(OSError, match="Input/output"):
        writer.close()


@pytest.mark.parametrize("place", [0, 13, -1])
def test_a_flipped_bit_is_found(place: int, tmp_path: Path) -> None:
    parts = written(tmp_path, {"equity": np.arange(4.0), "positions": positions(3)})
    content = bytearray((tmp_path / RECORDS).read_bytes())
    part = parts["positions"]
    content[part.offset + place % part.size] ^= 16
    (tmp_path / RECORDS).write_bytes(content)

    found = RecordFile(tmp_path, parts)
    assert found.column("equity").tolist() == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match=r"the checksum of positions in records\.bin does not match"):
        found.records("positions", POSITION)


def test_a_torn_file_is_found(tmp_path: Path) -> None:
    parts = written(tmp_path, {"positions": positions(3)})
    content = (tmp_path / RECORDS).read_bytes()
    (tmp_path / RECORDS).write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"records\.bin ends within positions"):
        RecordFile(tmp_path, parts).records("positions", POSITION)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_arrays_written_ahead_are_those_that_are_added(data: st.DataObject, tmp_path: Path) -> None:
    """Whatever grew in which steps, with room or without, and whichever array was added first."""
    rows = data.draw(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 40), min_size=1))
    arrays = {name: np.arange(count, dtype=np.int64) * (1 + ord(name)) for name, count in rows.items()}
    room = {name: data.draw(st.sampled_from([0, rows[name] // 2, rows[name], rows[name] + 7])) for name in rows}
    steps = data.draw(st.lists(st.sampled_from(sorted(rows)), max_size=12))
    path = tmp_path / RECORDS
    path.unlink(missing_ok=True)
    writer, grown = RecordWriter(path), dict.fromkeys(rows, 0)
    for name in steps:
        grown[name] = data.draw(st.integers(grown[name], rows[name]))
        writer.ahead(name, arrays[name][: grown[name]], room[name])
    for name in data.draw(st.permutations(sorted(rows))):
        writer.add(name, arrays[name])
    parts = writer.parts()
    writer.close()

    found = RecordFile(tmp_path, parts)
    assert {name: found.column(name).tolist() for name in rows} == {name: arrays[name].tolist() for name in rows}
    places = sorted((part.offset, part.size) for part in parts.values() if part.size)
    assert all(offset + size <= later for (offset, size), (later, _) in itertools.pairwise(places))


class Slow(io.FileIO):
    """A file that takes nothing until it is told to."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.may_write = threading.Event()
        self.writes = 0

    def write(self, content: Any, /) -> int:
        self.may_write.wait()
        self.writes += 1
        return super().write(content)


def test_a_slow_disk_delays_no_call_that_writes_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RecordWriter(tmp_path / RECORDS)
    opened, array = writer._file, np.arange(1_000.0)
    slow = Slow(opened.fileno())
    monkeypatch.setattr(writer, "_file", slow)
    for stop in range(1_000):
        writer.ahead("equity", array[:stop], 1_000)
    slow.may_write.set()
    writer.add("equity", array)
    parts = writer.parts()
    writer.close()
    opened.close()
    assert RecordFile(tmp_path, parts).column("equity").tolist() == array.tolist()
    assert slow.writes < 50


def test_what_is_abandoned_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    writer = RecordWriter(tmp_path / RECORDS)
    writer.ahead("equity", np.arange(5.0), 10)
    writer.abandon()
    assert synced == []
    assert writer._file.closed
