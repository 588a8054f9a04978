"""The recorder's files hold every event, are bounded and private, and a failure ends the recorder only."""

from __future__ import annotations

import errno
import math
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.config import RecorderOptions
from backtestr_broker.core.events import Committed, Event, RequestReceived, Tick, WorkerExited, WorkerSent
from backtestr_broker.core.records import Restored
from backtestr_broker.core.settings import Start
from backtestr_broker.recording.format import Skipped, decode_entry
from backtestr_broker.recording.parts import parts_of, read_header, read_part
from backtestr_broker.recording.recorder import KEPT_RECORDINGS, Recorder
from backtestr_protocol.codec import REQUEST, TO_BROKER, Signer
from support.broker.link import HOST, LIMITS, WALL_MS

INSTANCE = "0a1b2c3d-instance"
OPTIONS = RecorderOptions(enabled=True, max_bytes=4 << 20, files=3)
KEY, RECORDED_KEY = b"\x01" * 32, b"\x02" * 32
START = Start(
    key=RECORDED_KEY,
    id_seed=b"\x03" * 32,
    limits=LIMITS,
    workers={"compute": 1},
    now=1.5,
    restored=Restored(wall_ms=WALL_MS),
)

Make = Callable[..., Recorder]


@pytest.fixture
def reasons() -> list[str]:
    """Collect the reasons for which recorders ended."""
    return []


@pytest.fixture
def resumed() -> list[int]:
    """Collect the numbers of missing events of recorders that went on."""
    return []


@pytest.fixture
def make(tmp_path: Path, reasons: list[str], resumed: list[int]) -> Iterator[Make]:
    made: list[Recorder] = []

    def begin(wall_ms: int = WALL_MS, start: Start = START, **changes: Any) -> Recorder:
        options = msgspec.structs.replace(OPTIONS, **changes)
        restored = msgspec.structs.replace(start.restored, wall_ms=wall_ms)
        start = msgspec.structs.replace(start, restored=restored)
        made.append(
            Recorder(tmp_path / "recordings", options, INSTANCE, start, reasons.append, Signer(KEY), resumed.append)
        )
        return made[-1]

    yield begin
    for recorder in made:
        recorder.close()


def folder(tmp_path: Path) -> Path:
    (only,) = (tmp_path / "recordings").iterdir()
    return only


def frames(size: int) -> Event:
    return RequestReceived(b"peer", [bytes(32), bytes(size)], WALL_MS)


def part_entries(part: Path) -> Iterator[Any]:
    """Yield the entries of one part, after its header."""
    found = read_part(part)
    next(found)
    yield from map(decode_entry, found)


def entries(tmp_path: Path) -> list[Any]:
    return [entry for part in parts_of(folder(tmp_path)) for entry in part_entries(part)]


def test_written_events_are_read_back_unchanged(make: Make, tmp_path: Path) -> None:
    events: list[Event] = [frames(10), Tick(HOST, 7), WorkerExited("compute-1", "ended – somehow", 8), Committed(3, 9)]
    recorder = make()
    for number, event in enumerate(events):
        recorder.write(number + 0.1, event)
    assert entries(tmp_path) == [(number + 0.1, event) for number, event in enumerate(events)]
    (part,) = parts_of(folder(tmp_path))
    assert read_header(part).start == START


def test_events_that_come_together_are_one_write_and_the_same_records(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [frames(10), Committed(3, 9), WorkerSent(b"peer", Signer(KEY).seal(TO_BROKER, [b"envelope"]), WALL_MS)]
    recorder = make()
    recorder.write(1.0, *events)
    together = entries(tmp_path)
    for event in events:
        recorder.write(1.0, event)
    assert entries(tmp_path) == together * 2
    writes: list[int] = []

    def write(_descriptor: int, data: bytes) -> int:
        writes.append(len(data))
        return len(data)

    monkeypatch.setattr(os, "write", write)
    recorder.write(2.0, *events)
    assert len(writes) == 1


def test_events_that_come_together_fill_several_parts_in_order(make: Make, tmp_path: Path) -> None:
    recorder = make(files=9)
    recorder.write(1.0, *[frames((1 << 20) + number) for number in range(10)], frames(OPTIONS.max_bytes), frames(1))
    found = [event for _, event in entries(tmp_path)]
    assert found[:10] == [frames((1 << 20) + number) for number in range(10)]
    assert isinstance(found[10], Skipped)
    assert found[11:] == [frames(1)]
    assert len(parts_of(folder(tmp_path))) == 4
    assert all(part.stat().st_size <= OPTIONS.max_bytes for part in folder(tmp_path).iterdir())


def test_an_event_is_on_disk_before_the_core_handles_it(make: Make, tmp_path: Path) -> None:
    """Nothing waits in a buffer: the recorder is neither closed nor flushed."""
    recorder = make()
    for number in range(1, 4):
        recorder.write(float(number), frames(10))
        assert len(entries(tmp_path)) == number


def test_another_messagepack_library_reads_it(make: Make, tmp_path: Path) -> None:
    recorder = make()
    recorder.write(2.5, frames(3))
    (part,) = parts_of(folder(tmp_path))
    with part.open("rb") as file:
        head, entry = [msgpack.unpackb(record) for record in msgpack.Unpacker(file)]
    assert (head["format"], head["instance_id"], head["part"]) == (1, INSTANCE, 1)
    assert head["start"]["key"] == RECORDED_KEY
    assert entry == [
        2.5,
        {"type": "RequestReceived", "peer": b"peer", "frames": [bytes(32), bytes(3)], "wall_ms": WALL_MS},
    ]


@pytest.mark.parametrize(("event", "label"), [(RequestReceived, REQUEST), (WorkerSent, TO_BROKER)])
def test_frames_with_a_right_signature_are_recorded_with_one_that_a_playback_verifies(
    make: Make, tmp_path: Path, event: type[RequestReceived] | type[WorkerSent], label: bytes
) -> None:
    other_label = TO_BROKER if label == REQUEST else REQUEST
    right = Signer(KEY).seal(label, [b"envelope", b"attachment"])
    wrong = [[bytes(32), *right[1:]], Signer(KEY).seal(other_label, right[1:]), right[1:], [], [b""], right[:1]]
    recorder = make()
    for frames_ in [right, *wrong]:
        recorder.write(1.0, event(b"peer", frames_, WALL_MS))
    first, *others = [entry[1].frames for entry in entries(tmp_path)]
    Signer(RECORDED_KEY).verify(label, first[0], first[1:])
    assert first[1:] == right[1:]
    assert others == wrong, "what the broker refuses is recorded as it came"


def test_no_recording_holds_the_signing_key(make: Make, tmp_path: Path) -> None:
    recorder = make()
    recorder.write(1.0, RequestReceived(b"peer", Signer(KEY).seal(REQUEST, [b"envelope"]), WALL_MS))
    for part in parts_of(folder(tmp_path)):
        assert KEY not in part.read_bytes()
        assert KEY.hex().encode() not in part.read_bytes()


def test_other_users_cannot_read_it(make: Make, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        make()
    finally:
        os.umask(old)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "recordings", folder(tmp_path))}
    assert set(modes.values()) == {0o700}
    (part,) = parts_of(folder(tmp_path))
    assert stat.S_IMODE(part.stat().st_mode) == 0o600


def test_the_first_part_and_the_latest_are_kept_and_no_part_is_too_long(make: Make, tmp_path: Path) -> None:
    recorder = make()
    for _ in range(60):
        recorder.write(1.0, frames(1 << 20))
        kept = list(folder(tmp_path).iterdir())
        assert len(kept) <= OPTIONS.files
        assert all(part.stat().st_size <= OPTIONS.max_bytes for part in kept)
    parts = [read_header(part).part for part in parts_of(folder(tmp_path))]
    assert parts == [1, 19, 20]
    assert [read_header(part).start is not None for part in parts_of(folder(tmp_path))] == [
        True,
        False,
        False,
    ]


def test_an_event_larger_than_a_part_is_recorded_as_skipped(make: Make, tmp_path: Path) -> None:
    recorder = make()
    recorder.write(1.0, frames(OPTIONS.max_bytes))
    recorder.write(2.0, frames(10))
    (_, skipped), (_, following) = entries(tmp_path)
    assert isinstance(skipped, Skipped)
    assert (skipped.event, skipped.size > OPTIONS.max_bytes) == ("RequestReceived", True)
    assert following == frames(10)


def test_only_the_latest_recordings_are_kept(make: Make, tmp_path: Path) -> None:
    (tmp_path / "recordings" / "other files").mkdir(parents=True)
    for number in range(KEPT_RECORDINGS + 3):
        make(wall_ms=WALL_MS + number * 1000).close()
    found = sorted(one.name for one in (tmp_path / "recordings").iterdir())
    kept = [f"20260921T{time}.000Z-0a1b2c3d" for time in ("141323", "141324", "141325")]
    assert found == [*kept, "other files"]


# --- failures ---


class Disk:
    """A disk with room for some more bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: float = math.inf
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(descriptor, bytes(data[: int(min(self.room, len(data)))]))
        self.room -= written
        return written


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize("room", [0, 1, 50, 100])
def test_a_recorder_that_a_full_disk_has_stopped_goes_on_when_there_is_room(
    make: Make, tmp_path: Path, reasons: list[str], resumed: list[int], disk: Disk, room: int
) -> None:
    recorder = make()
    recorder.write(1.0, frames(10))
    disk.room = room
    for now in (2.0, 2.5, 3.0, 3.9):
        recorder.write(now, frames(200))
    assert recorder.has_failed
    assert len(reasons) == 1
    assert "No space left on device" in reasons[0]
    assert entries(tmp_path) == [(1.0, frames(10))], "no record is left in half"
    disk.room = math.inf
    recorder.write(3.95, frames(10))
    assert recorder.has_failed, "it tries again once a second"
    for now in (5.0, 6.0):
        recorder.write(now, frames(10))
    assert resumed == [6]
    assert entries(tmp_path) == [(1.0, frames(10)), (5.0, Skipped("6 events", 0, WALL_MS)), (6.0, frames(10))]
    assert [read_header(part).part for part in parts_of(folder(tmp_path))] == [1]


@settings(max_examples=100)
@given(rooms=st.lists(st.integers(0, 400), max_size=12), together=st.integers(1, 5))
def test_every_event_is_recorded_or_counted_as_missing(rooms: list[int], together: int) -> None:
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        counted: list[int] = []
        recorder = Recorder(
            Path(home) / "recordings", OPTIONS, INSTANCE, START, lambda _: None, Signer(KEY), counted.append
        )
        for number, room in enumerate(rooms):
            disk.room = room
            recorder.write(2.0 * number, *[Committed(number, WALL_MS) for _ in range(together)])
        disk.room = math.inf
        recorder.write(1000.0, Committed(1000, WALL_MS))
        recorder.write(1001.0, Committed(1001, WALL_MS))
        recorder.close()
        found = [event for _, event in entries(Path(home))]
    kept = [event.ticket for event in found if isinstance(event, Committed)]
    missing = [int(event.event.split()[0]) for event in found if isinstance(event, Skipped)]
    assert kept == sorted(kept)
    assert missing == counted
    assert len(kept) + sum(missing) == len(rooms) * together + 2
    assert kept[-1] == 1001


def test_a_folder_that_cannot_be_made_ends_the_recorder_and_nothing_else(
    make: Make, tmp_path: Path, reasons: list[str]
) -> None:
    (tmp_path / "recordings").write_text("a file")
    recorder = make()
    recorder.write(1.0, frames(10))
    assert recorder.has_failed
    assert len(reasons) == 1


def test_an_event_that_cannot_be_encoded_ends_the_recorder_and_nothing_else(make: Make, reasons: list[str]) -> None:
    recorder = make()
    recorder.write(1.0, WorkerExited("compute-1", "\udcff", WALL_MS))
    assert recorder.has_failed
    assert len(reasons) == 1


def test_events_before_one_that_cannot_be_encoded_are_recorded(make: Make, tmp_path: Path, reasons: list[str]) -> None:
    recorder = make()
    recorder.write(1.0, frames(10), Committed(1, WALL_MS), WorkerExited("compute-1", "\udcff", WALL_MS), frames(11))
    assert entries(tmp_path) == [(1.0, frames(10)), (1.0, Committed(1, WALL_MS))]
    assert recorder.has_failed
    assert len(reasons) == 1


def test_a_start_larger_than_a_part_names_the_option_that_is_too_small(make: Make, reasons: list[str]) -> None:
    big = msgspec.structs.replace(START, restored=Restored(moved_aside="x" * OPTIONS.max_bytes))
    assert make(start=big).has_failed
    assert "recorder.max_bytes is 4,194,304" in reasons[0]
