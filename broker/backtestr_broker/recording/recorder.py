"""The flight recorder: every event that the core is given, on disk before the core is given it.

    recorder = Recorder(data_dir / RECORDINGS, options, instance_id, start, wall_ms)
    recorder.note(now, event)      # one write, of a few microseconds; whatever goes wrong is the recorder's end only

A recording is a folder of parts, `000001.msgpack` and so on, each at most `max_bytes` long. The first is kept, for
without it nothing can be replayed, and so are the latest; what lies between goes, and replay says so. Files are not
synced: they survive the broker's end, however it comes, and not the machine's.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from backtestr_broker import hooks
from backtestr_broker.config import RecorderOptions
from backtestr_broker.core.events import Event, RequestReceived, WorkerSent

from .format import Skipped, Start, Unreadable, header, read_header, write_record

# The folder's name in the data directory.
RECORDINGS = "recordings"
# This one and those of the starts before it: what a crash left is still there after a supervisor's second try.
KEPT_RECORDINGS = 3

_RECORDING = re.compile(r"\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{8}")
_SUFFIX = ".msgpack"
# A disk, or a record that MessagePack cannot say: the recorder ends, and the broker goes on.
_WHAT_MAY_GO_WRONG = (OSError, ValueError, OverflowError, msgspec.MsgspecError)
# What an event takes beside its frames: names of fields, a peer's identity, times.
_OVERHEAD = 1024


class Recorder:
    def __init__(self, folder: Path, options: RecorderOptions, instance_id: str, start: Start, wall_ms: int) -> None:
        """Begin a recording in `folder`. Never raises: see `has_failed`."""
        self.has_failed = False
        self._max_bytes = options.max_bytes
        self._files = options.files
        self._instance_id = instance_id
        self._path = folder / f"{_stamp(wall_ms)}-{instance_id[:8]}"
        self._part = 0
        self._written = 0
        self._descriptor: int | None = None
        self._buffer = bytearray()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
            _sweep(folder)
            self._path.mkdir(mode=0o700)
            self._begin_part(start)
        except _WHAT_MAY_GO_WRONG as error:
            self._give_up(error)

    def note(self, now: float, event: Event) -> None:
        """Write an event that the core is about to be given at `now`."""
        if self._descriptor is None:
            return
        try:
            self._note(now, event)
        except _WHAT_MAY_GO_WRONG as error:
            self._give_up(error)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    # --- within ---

    def _note(self, now: float, event: Event) -> None:
        record: tuple[float, Event | Skipped] = (now, event)
        if (size := _size(event)) > self._max_bytes:
            record = (now, Skipped(type(event).__name__, size, event.wall_ms))
        write_record(record, self._buffer)
        if self._written + len(self._buffer) > self._max_bytes:
            self._begin_part(None)
            write_record(record, self._buffer)
        self._write()

    def _begin_part(self, start: Start | None) -> None:
        self.close()
        self._part += 1
        self._drop_parts()
        path = self._path / f"{self._part:06}{_SUFFIX}"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._written = 0
        write_record(header(self._instance_id, self._part, start), self._buffer)
        if len(self._buffer) > self._max_bytes:
            raise ValueError(
                f"what the broker starts from takes {len(self._buffer):,} bytes, and recorder.max_bytes is "
                f"{self._max_bytes:,}"
            )
        self._write()

    def _drop_parts(self) -> None:
        """Make room for one more part: what goes is the oldest but the first."""
        dropped = self._part - self._files + 1
        if dropped > 1:
            (self._path / f"{dropped:06}{_SUFFIX}").unlink(missing_ok=True)

    def _write(self) -> None:
        assert self._descriptor is not None
        done = os.write(self._descriptor, self._buffer)
        while done < len(self._buffer):  # of a disk that is filling up, a part of it may be taken
            done += os.write(self._descriptor, self._buffer[done:])
        self._written += done

    def _give_up(self, error: Exception) -> None:
        self.has_failed = True
        self.close()
        hooks.send("recorder_stopped", {"reason": str(error)})


def parts_of(path: Path) -> list[Path]:
    """The parts of a recording, in order: of the folder, or of the folder in which the part `path` lies.

    Raises `Unreadable` where there are none, or where `path` is something else.
    """
    if not path.exists():
        raise Unreadable(f"there is no {path}")
    folder = path if path.is_dir() else path.parent
    try:
        wanted = None if path.is_dir() else read_header(path.read_bytes()).instance_id
    except Unreadable as error:
        raise Unreadable(f"{path}: {error}") from error
    found: dict[int, Path] = {}
    for one in sorted(folder.glob(f"*{_SUFFIX}")) + ([path] if wanted else []):
        with contextlib.suppress(Unreadable):
            read = read_header(one.read_bytes())
            if wanted in (None, read.instance_id):
                found[read.part] = one
    if not found:
        recordings = sorted(one.name for one in folder.iterdir() if _RECORDING.fullmatch(one.name))
        hint = f"; name one of the recordings in it, the latest is {recordings[-1]}" if recordings else ""
        raise Unreadable(f"{path} has no part of a recording{hint}")
    return [found[part] for part in sorted(found)]


def _sweep(folder: Path) -> None:
    """Remove the oldest recordings, so that there is room for one more."""
    recordings = sorted(one for one in folder.iterdir() if _RECORDING.fullmatch(one.name) and one.is_dir())
    for recording in recordings[: max(0, len(recordings) - KEPT_RECORDINGS + 1)]:
        _remove(recording.glob(f"*{_SUFFIX}"))
        with contextlib.suppress(OSError):  # it holds something that is not the recorder's
            recording.rmdir()


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _size(event: Event) -> int:
    """How long its record is at most, but for what is always short."""
    return _OVERHEAD + sum(map(len, event.frames)) if isinstance(event, RequestReceived | WorkerSent) else 0


def _stamp(wall_ms: int) -> str:
    at = datetime.fromtimestamp(wall_ms / 1000, UTC)
    return f"{at:%Y%m%dT%H%M%S}.{wall_ms % 1000:03d}Z"
