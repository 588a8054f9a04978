"""Parts are found, and read as a stream; damage is stated at the byte where it begins, after all records before it."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_broker.core.events import Event, RequestReceived, Tick
from backtestr_broker.core.records import Restored
from backtestr_broker.core.settings import Start
from backtestr_broker.recording.format import SUFFIX, Unreadable, decode_entry, decode_header, header, write_record
from backtestr_broker.recording.parts import parts_of, read_header, read_part, records
from backtestr_broker.recording.playback import Playback
from support.broker.link import HOST, LIMITS, WALL_MS

INSTANCE = "0a1b2c3d-instance"
OTHER_INSTANCE = "ffffffff-instance"

Write = Callable[..., Path]


def request(size: int) -> Event:
    return RequestReceived(b"peer", [bytes(32), bytes(size)], WALL_MS)


def encoded(*contents: object) -> bytes:
    """Return the bytes of a part with these records."""
    written, buffer = bytearray(), bytearray()
    for one in contents:
        write_record(one, buffer)
        written += buffer
    return bytes(written)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "20260921T141320.000Z-0a1b2c3d"
    made.mkdir()
    return made


@pytest.fixture
def write(folder: Path) -> Write:
    """Return a function that writes a part into the folder of the recording."""

    def make(number: int, *events: Event, instance_id: str = INSTANCE, name: str = "") -> Path:
        path = folder / (name or f"{number:06}{SUFFIX}")
        entries = [(position + 0.5, event) for position, event in enumerate(events)]
        path.write_bytes(encoded(header(instance_id, number, None), *entries))
        return path

    return make


def test_records_come_with_their_positions_and_decode_to_what_was_written(write: Write) -> None:
    path = write(1, request(10), Tick(HOST, WALL_MS), request(100_000))
    (first, head), *entries = read_part(path)
    assert (first, decode_header(head)) == (0, read_header(path))
    assert [decode_entry(one) for one in entries] == [
        (0.5, request(10)),
        (1.5, Tick(HOST, WALL_MS)),
        (2.5, request(100_000)),
    ]
    data = path.read_bytes()
    assert all(data[offset] == 0xC6 and data[offset + 5 :].startswith(body) for offset, body in entries)


@given(st.lists(st.binary(max_size=200), max_size=20), st.integers(0, 400))
def test_the_records_before_any_cut_are_read(bodies: list[bytes], cut: int) -> None:
    data = b"".join(b"\xc6" + len(body).to_bytes(4, "big") + body for body in bodies)
    ends = [0]
    for body in bodies:
        ends.append(ends[-1] + 5 + len(body))
    left = max(0, len(data) - cut)
    whole = sum(end <= left for end in ends) - 1
    found = records(io.BytesIO(data[:left]))
    assert [next(found)[1] for _ in range(whole)] == bodies[:whole]
    if left == ends[whole]:
        assert list(found) == []
    else:
        with pytest.raises(Unreadable, match=rf"at byte {ends[whole]:,}, is torn: {left - ends[whole]:,} bytes"):
            next(found)


@given(st.binary(max_size=100))
def test_any_other_bytes_are_records_or_unreadable(data: bytes) -> None:
    try:
        bodies = [body for _, body in records(io.BytesIO(data))]
    except Unreadable:
        return
    assert data == b"".join(b"\xc6" + len(body).to_bytes(4, "big") + body for body in bodies)


@pytest.mark.parametrize(
    "other",
    [
        b"\x07",
        b"\x80",
        b"\x90",
        b"\x91\x01",
        b"\xa1x",
        b"\xc1",
        b"\xc4",
        b"\xc4\x01x",
        b"\xc5\x00\x01x",
        b"\xc7\x01\x05x",
        b"\xdb\x00\x00\x00\x01x",
        b"\xdb\x7f\xff\xff\xff",
        b"\xdd\x7f\xff\xff\xff",
        b"\xdf\x7f\xff\xff\xff",
    ],
)
def test_a_value_that_is_no_bin_32_begins_no_record(other: bytes) -> None:
    found = records(io.BytesIO(encoded(1.5) + other))
    assert next(found)[0] == 0
    with pytest.raises(Unreadable, match="no record begins at byte 14"):
        next(found)


@pytest.mark.parametrize("left", [1, 3, 5, 6, 40])
def test_a_torn_record_is_stated_after_those_before_it(write: Write, left: int) -> None:
    whole = write(1, request(10)).stat().st_size
    path = write(1, request(10), request(10))
    path.write_bytes(path.read_bytes()[: whole + left])
    found = read_part(path)
    assert next(found)[0] < next(found)[0] < whole
    with pytest.raises(Unreadable, match=rf"the last record, at byte {whole:,}, is torn: {left} bytes"):
        next(found)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "it is empty"),
        (b"never a recording", "no record begins at byte 0"),
        (b"\xc6\x00\x00\x00\x01\x01", "it does not begin with the header of a recording"),
        (b"\xc6\x7f\xff\xff\xff\x01", "torn"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_with_the_reason(tmp_path: Path, data: bytes, problem: str) -> None:
    path = tmp_path / "000001.msgpack"
    path.write_bytes(data)
    with pytest.raises(Unreadable, match=problem):
        parts_of(path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    later = msgspec.structs.replace(header(INSTANCE, 1, None), format=2)
    path = tmp_path / "000001.msgpack"
    path.write_bytes(encoded(later))
    with pytest.raises(Unreadable, match="it has format 2, and this version reads 1"):
        parts_of(path)


def test_a_recording_is_found_by_its_folder_or_any_file_of_it(write: Write, folder: Path, tmp_path: Path) -> None:
    parts = [write(number, request(10)) for number in (1, 4, 5)]
    write(2, instance_id=OTHER_INSTANCE, name="another.msgpack")
    (folder / "notes.msgpack").write_text("no part")
    assert parts_of(parts[0]) == parts_of(parts[-1]) == parts
    (folder / "another.msgpack").unlink()
    assert parts_of(folder) == parts
    with pytest.raises(Unreadable, match=f"name one of the recordings in it, the latest is {folder.name}"):
        parts_of(tmp_path)
    with pytest.raises(Unreadable, match="there is no"):
        parts_of(tmp_path / "absent")


def test_a_part_is_found_under_any_name(write: Write) -> None:
    assert parts_of(write(1, request(10), name="crash of monday")) == [write(1, request(10), name="crash of monday")]


# --- memory ---


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


PART_BYTES = 32 << 20
# One record of 64 kB, decoded and encoded, and what was read of the next; a whole part is 16 times as much.
MOST_BYTES = 2 << 20


def long_part(path: Path) -> Path:
    start = Start(
        key=bytes(32),
        id_seed=bytes(32),
        limits=LIMITS,
        workers={"compute": 1},
        now=0.0,
        restored=Restored(wall_ms=WALL_MS),
    )
    buffer = bytearray()
    with path.open("wb") as file:
        write_record(header(INSTANCE, 1, start), buffer)
        file.write(buffer)
        write_record((1.0, request(65_000)), buffer)
        for _ in range(PART_BYTES // len(buffer)):
            file.write(buffer)
    return path


@pytest.mark.usefixtures("traced")
def test_a_long_part_is_read_in_constant_memory(tmp_path: Path) -> None:
    path = long_part(tmp_path / "000001.msgpack")
    tracemalloc.reset_peak()
    assert parts_of(path) == [path]
    count = sum(len(body) > 65_000 for _, body in read_part(path))
    assert count * 65_000 > PART_BYTES // 2
    assert tracemalloc.get_traced_memory()[1] < MOST_BYTES


@pytest.mark.usefixtures("traced")
def test_a_long_part_is_played_back_in_constant_memory(tmp_path: Path) -> None:
    path = long_part(tmp_path / "000001.msgpack")
    tracemalloc.reset_peak()
    playback = Playback([(path.name, read_part(path))])
    assert sum(step.effects is not None for step in playback) == playback.events == playback.handled > 400
    assert playback.problems == []
    assert tracemalloc.get_traced_memory()[1] < MOST_BYTES


def test_the_old_way_to_read_would_not_pass(tmp_path: Path, traced: None) -> None:
    """A part that is read whole is seen by the measurement above."""
    path = long_part(tmp_path / "000001.msgpack")
    tracemalloc.reset_peak()
    assert len(path.read_bytes()) > PART_BYTES // 2
    assert tracemalloc.get_traced_memory()[1] > MOST_BYTES


def test_the_reader_is_the_independent_library() -> None:
    """`msgpack` reads what `msgspec` writes: so any MessagePack library can."""
    unpacker = msgpack.Unpacker(io.BytesIO(encoded([1.0, None])))
    assert [msgpack.unpackb(body) for body in unpacker] == [[1.0, None]]
