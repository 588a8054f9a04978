"""The flight recorder: what is in its files, how they are bounded and protected, and that it never harms the broker."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from backtestr_broker import hooks
from backtestr_broker.config import RecorderOptions
from backtestr_broker.core.events import Committed, Event, RequestReceived, Tick, WorkerExited
from backtestr_broker.core.records import Restored
from backtestr_broker.recording.format import Skipped, Start, Unreadable, read_entries, read_header
from backtestr_broker.recording.recorder import KEPT_RECORDINGS, Recorder, parts_of
from support.broker.link import HOST, LIMITS, WALL_MS

INSTANCE = "0a1b2c3d-instance"
OPTIONS = RecorderOptions(enabled=True, max_bytes=4 << 20, files=3)
START = Start(key=bytes(32), limits=LIMITS, workers={"compute": 1}, now=1.5, restored=Restored(wall_ms=WALL_MS))

Make = Callable[..., Recorder]


@pytest.fixture
def reasons() -> Iterator[list[str]]:
    """Why recorders stopped."""
    found: list[str] = []

    def note(_sender: object, reason: str) -> None:
        found.append(reason)

    with hooks.recorder_stopped.connected_to(note):
        yield found


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Recorder] = []

    def begin(wall_ms: int = WALL_MS, instance_id: str = INSTANCE, start: Start = START, **changes: Any) -> Recorder:
        options = msgspec.structs.replace(OPTIONS, **changes)
        made.append(Recorder(tmp_path / "recordings", options, instance_id, start, wall_ms))
        return made[-1]

    yield begin
    for recorder in made:
        recorder.close()


def folder(tmp_path: Path) -> Path:
    (only,) = (tmp_path / "recordings").iterdir()
    return only


def frames(size: int) -> Event:
    return RequestReceived(b"peer", [bytes(32), bytes(size)], WALL_MS)


def entries(tmp_path: Path) -> list[Any]:
    return [entry for part in parts_of(folder(tmp_path)) for entry in read_entries(part.read_bytes())]


def test_what_is_noted_is_read_back_as_it_was(make: Make, tmp_path: Path) -> None:
    events: list[Event] = [frames(10), Tick(HOST, 7), WorkerExited("compute-1", "ended – somehow", 8), Committed(3, 9)]
    recorder = make()
    for number, event in enumerate(events):
        recorder.note(number + 0.1, event)
    assert entries(tmp_path) == [(number + 0.1, event) for number, event in enumerate(events)]
    (part,) = parts_of(folder(tmp_path))
    assert read_header(part.read_bytes()).start == START


def test_it_is_on_disk_before_the_core_is_given_it(make: Make, tmp_path: Path) -> None:
    """Nothing waits in a buffer: the recorder is neither closed nor flushed."""
    recorder = make()
    for number in range(1, 4):
        recorder.note(float(number), frames(10))
        assert len(entries(tmp_path)) == number


def test_another_messagepack_reads_it(make: Make, tmp_path: Path) -> None:
    recorder = make()
    recorder.note(2.5, frames(3))
    (part,) = parts_of(folder(tmp_path))
    with part.open("rb") as file:
        head, entry = [msgpack.unpackb(record) for record in msgpack.Unpacker(file)]
    assert (head["format"], head["instance_id"], head["part"]) == (1, INSTANCE, 1)
    assert head["start"]["key"] == bytes(32)
    assert entry == [
        2.5,
        {"type": "RequestReceived", "peer": b"peer", "frames": [bytes(32), bytes(3)], "wall_ms": WALL_MS},
    ]


def test_nobody_else_can_read_it(make: Make, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        make()
    finally:
        os.umask(old)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "recordings", folder(tmp_path))}
    assert set(modes.values()) == {0o700}
    (part,) = parts_of(folder(tmp_path))
    assert stat.S_IMODE(part.stat().st_mode) == 0o600


def test_the_first_part_and_the_latest_are_kept_and_none_is_too_long(make: Make, tmp_path: Path) -> None:
    recorder = make()
    for _ in range(60):
        recorder.note(1.0, frames(1 << 20))
        kept = list(folder(tmp_path).iterdir())
        assert len(kept) <= OPTIONS.files
        assert all(part.stat().st_size <= OPTIONS.max_bytes for part in kept)
    parts = [read_header(part.read_bytes()).part for part in parts_of(folder(tmp_path))]
    assert parts == [1, 19, 20]
    assert [read_header(part.read_bytes()).start is not None for part in parts_of(folder(tmp_path))] == [
        True,
        False,
        False,
    ]


def test_an_event_larger_than_a_part_leaves_a_note(make: Make, tmp_path: Path) -> None:
    recorder = make()
    recorder.note(1.0, frames(OPTIONS.max_bytes))
    recorder.note(2.0, frames(10))
    (_, skipped), (_, following) = entries(tmp_path)
    assert isinstance(skipped, Skipped)
    assert (skipped.event, skipped.size > OPTIONS.max_bytes) == ("RequestReceived", True)
    assert following == frames(10)


def test_only_the_latest_recordings_are_kept(make: Make, tmp_path: Path) -> None:
    (tmp_path / "recordings" / "of mine").mkdir(parents=True)
    for number in range(KEPT_RECORDINGS + 3):
        make(wall_ms=WALL_MS + number * 1000).close()
    found = sorted(one.name for one in (tmp_path / "recordings").iterdir())
    kept = [f"20260921T{time}.000Z-0a1b2c3d" for time in ("141323", "141324", "141325")]
    assert found == [*kept, "of mine"]


# --- what goes wrong ---


def test_a_full_disk_ends_the_recorder_and_nothing_else(
    make: Make, tmp_path: Path, reasons: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = make()
    recorder.note(1.0, frames(10))
    real_write = os.write

    def write(descriptor: int, data: bytes) -> int:
        """What a disk does that has room for 50 bytes."""
        if len(data) <= 50:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(descriptor, bytes(data[:50]))

    monkeypatch.setattr(os, "write", write)
    recorder.note(2.0, frames(10))
    recorder.note(3.0, frames(10))
    assert recorder.has_failed
    assert len(reasons) == 1
    assert "No space left on device" in reasons[0]
    (part,) = parts_of(folder(tmp_path))
    found = read_entries(part.read_bytes())
    assert next(found) == (1.0, frames(10))
    with pytest.raises(Unreadable, match="torn"):
        next(found)


def test_a_folder_that_cannot_be_made_ends_the_recorder_and_nothing_else(
    make: Make, tmp_path: Path, reasons: list[str]
) -> None:
    (tmp_path / "recordings").write_text("a file")
    recorder = make()
    recorder.note(1.0, frames(10))
    assert recorder.has_failed
    assert len(reasons) == 1


def test_a_record_that_cannot_be_written_ends_the_recorder_and_nothing_else(make: Make, reasons: list[str]) -> None:
    recorder = make()
    recorder.note(1.0, WorkerExited("compute-1", "\udcff", WALL_MS))
    assert recorder.has_failed
    assert len(reasons) == 1


def test_a_start_that_no_part_holds_says_which_option_is_too_small(make: Make, reasons: list[str]) -> None:
    big = msgspec.structs.replace(START, restored=Restored(moved_aside="x" * OPTIONS.max_bytes))
    assert make(start=big).has_failed
    assert "recorder.max_bytes is 4,194,304" in reasons[0]


@pytest.mark.parametrize("left", [1, 3, 5, 6, 40])
def test_a_torn_record_is_stated_after_those_before_it(make: Make, tmp_path: Path, left: int) -> None:
    recorder = make()
    recorder.note(1.0, frames(10))
    (part,) = parts_of(folder(tmp_path))
    whole = part.stat().st_size
    recorder.note(2.0, frames(10))
    found = read_entries(part.read_bytes()[: whole + left])
    assert next(found)[0] == 1.0
    with pytest.raises(Unreadable, match=rf"the last record, at byte {whole:,}, is torn: {left} bytes"):
        next(found)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "it is empty"),
        (b"never a recording", "no record begins at byte 0"),
        (b"\xc6\x00\x00\x00\x01\x01", "it does not begin as the flight recorder's files do"),
        (b"\xc6\x7f\xff\xff\xff\x01", "torn"),
    ],
)
def test_what_is_no_recording_is_said_to_be_none(tmp_path: Path, data: bytes, complaint: str) -> None:
    path = tmp_path / "000001.msgpack"
    path.write_bytes(data)
    with pytest.raises(Unreadable, match=complaint):
        parts_of(path)


def test_a_recording_is_found_by_its_folder_or_any_file_of_it(make: Make, tmp_path: Path) -> None:
    recorder = make()
    for _ in range(8):
        recorder.note(1.0, frames(1 << 20))
    parts = sorted(folder(tmp_path).iterdir())
    assert parts_of(folder(tmp_path)) == parts_of(parts[0]) == parts_of(parts[-1]) == parts
    with pytest.raises(Unreadable, match=f"name one of the recordings in it, the latest is {folder(tmp_path).name}"):
        parts_of(tmp_path / "recordings")
    with pytest.raises(Unreadable, match="there is no"):
        parts_of(tmp_path / "absent")
