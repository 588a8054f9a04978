"""The recorder writes every event to disk before the core handles it.

    recorder = Recorder(data_dir / RECORDINGS, options, instance_id, start, on_failure, signer)
    recorder.write(now, *events)    # one write, of a few microseconds; a failure stops the recorder and nothing else

A recording does not hold the signing key, which is of use while its broker runs. Frames whose signature is right are
recorded with one under a key of the recording's own, so that a playback accepts them; all others are recorded as they
came, and a playback refuses them as the broker did.

A recording is a folder of parts, `000001.msgpack` and so on, each at most `max_bytes` long. The first part is kept,
since only from it can a core be rebuilt, and so are the latest; the parts between them are deleted, and a playback
states that. Files are not synced: they survive the broker's end, `kill -9` included, and not the machine's.

When the disk is full, or fails, the recorder stops. It tries again once a second, and once it can, goes on with the
number of events that are missing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from backtestr_broker.config import RecorderOptions
from backtestr_broker.core.events import Event, RequestReceived, WorkerSent
from backtestr_broker.core.settings import Start
from backtestr_protocol.codec import REQUEST, TO_BROKER, Signer
from backtestr_protocol.errors import AuthenticationError
from backtestr_protocol.private_files import make_private
from backtestr_protocol.system.open_flags import BINARY

from .format import SUFFIX, Skipped, header, write_record
from .parts import RECORDING

# This recording and those of the starts before it: what a crash left is still there after a supervisor's second try.
KEPT_RECORDINGS = 3

# MessagePack cannot express a record, or the first part cannot be written: the recorder ends, and the broker continues.
_FAILURES = (OSError, ValueError, OverflowError, msgspec.MsgspecError)
# Seconds after which a recorder that the disk has stopped tries to go on.
RETRY_SECONDS = 1.0
# The bytes of an event beside its frames: names of fields, a peer's identity, times.
_OVERHEAD = 1024


class Recorder:
    """Writes one recording. Nothing in it raises.

    `has_failed` is true while nothing is recorded. `on_failure` gets the reason when that begins, and `on_resumed` the
    number of missing events when it ends.
    """

    def __init__(
        self,
        folder: Path,
        options: RecorderOptions,
        instance_id: str,
        start: Start,
        on_failure: Callable[[str], None],
        signer: Signer,
        on_resumed: Callable[[int], None] = lambda _missing: None,
    ) -> None:
        """Begin a recording in `folder`, the `RECORDINGS` of a data directory; `signer` has the broker's key."""
        self.has_failed = False
        self._signer = signer
        self._recorded_signer = Signer(start.key)
        self._on_failure = on_failure
        self._on_resumed = on_resumed
        self._max_bytes = options.max_bytes
        self._files = options.files
        self._instance_id = instance_id
        self._path = folder / f"{_stamp(start.restored.wall_ms)}-{instance_id[:8]}"
        self._part = 0
        self._written = 0
        self._descriptor: int | None = None
        self._buffer = bytearray()
        self._missing = 0  # events since it was stopped
        self._recorded = 0  # events that were written
        self._retry_at: float | None = None
        try:
            make_private(folder)
            folder.chmod(0o700)
            _delete_oldest(folder)
            self._path.mkdir(mode=0o700)
            self._begin_part(start)
        except _FAILURES as error:
            self._fail(error)

    @property
    def name(self) -> str:
        """The name of the recording's folder."""
        return self._path.name

    def write(self, now: float, *events: Event) -> None:
        """Write the events that the core is about to handle at `now`, in their order."""
        before = self._recorded
        try:
            if self._retry_at is not None:
                self._missing += len(events)
                if now >= self._retry_at:
                    self._resume(now, events[-1].wall_ms)
            elif self._descriptor is not None:
                self._write_events(now, events)
        except OSError as error:
            self._stop(error, now, len(events) - (self._recorded - before))
        except _FAILURES as error:
            self._fail(error)

    def close(self) -> None:
        """Close the part; nothing is buffered."""
        self._retry_at = None
        self._close_part()

    def _close_part(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    # --- within ---

    def _write_events(self, now: float, events: Sequence[Event]) -> None:
        """Write the records of events; where one cannot be expressed, write those before it, and raise."""
        records: list[bytearray] = []
        try:
            for event in events:
                write_record(self._record(now, event), self._buffer)
                records.append(self._buffer if len(events) == 1 else self._buffer.copy())
        finally:
            self._append(records)

    def _record(self, now: float, event: Event) -> tuple[float, Event | Skipped]:
        if (size := _size(event)) > self._max_bytes:
            return now, Skipped(type(event).__name__, size, event.wall_ms)
        if isinstance(event, RequestReceived | WorkerSent):
            return now, self._signed_again(event)
        return now, event

    def _append(self, records: Sequence[bytearray]) -> None:
        """Write records in one write to this part, and what it has no room for to the next."""
        together = bytearray()
        count = 0
        for record in records:
            if self._descriptor is None or self._written + len(together) + len(record) > self._max_bytes:
                self._write(together, count)
                record = record.copy()  # it may be the buffer, in which the part's header is made
                self._begin_part(None)
                together, count = record, 1
            elif count:
                together += record
                count += 1
            else:
                together, count = record, 1
        self._write(together, count)

    def _signed_again(self, event: RequestReceived | WorkerSent) -> RequestReceived | WorkerSent:
        """Return the event with frames that the recording's key verifies if the broker's key verifies them now."""
        label = REQUEST if isinstance(event, RequestReceived) else TO_BROKER
        signature, *signed = event.frames or [b""]
        try:
            self._signer.verify(label, signature, signed)
        except AuthenticationError:
            return event
        return msgspec.structs.replace(event, frames=self._recorded_signer.seal(label, signed))

    def _begin_part(self, start: Start | None) -> None:
        self._close_part()
        self._part += 1
        self._written = 0
        self._delete_part()
        path = self._path / f"{self._part:06}{SUFFIX}"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | BINARY, 0o600)
        write_record(header(self._instance_id, self._part, start), self._buffer)
        if len(self._buffer) > self._max_bytes:
            raise ValueError(
                f"what the broker starts from takes {len(self._buffer):,} bytes, and recorder.max_bytes is "
                f"{self._max_bytes:,}"
            )
        self._write(self._buffer, 0)

    def _delete_part(self) -> None:
        """Make room for one more part: delete the oldest part but the first."""
        oldest = self._part - self._files + 1
        if oldest > 1:
            (self._path / f"{oldest:06}{SUFFIX}").unlink(missing_ok=True)

    def _write(self, content: bytearray, events: int) -> None:
        """Write records, of which so many are of events."""
        if not content:
            return
        assert self._descriptor is not None
        done = os.write(self._descriptor, content)
        while done < len(content):  # a disk that is filling up may take a part of it
            done += os.write(self._descriptor, content[done:])
        self._written += done
        self._recorded += events

    def _resume(self, now: float, wall_ms: int) -> None:
        write_record((now, Skipped(f"{self._missing} events", 0, wall_ms)), self._buffer)
        self._append([self._buffer])
        missing, self._missing, self._retry_at, self.has_failed = self._missing, 0, None, False
        self._on_resumed(missing)

    def _stop(self, error: OSError, now: float, missing: int) -> None:
        """Wait until the disk can be written to again. No record is left in half; `missing` events are not written."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # then a playback says that the part is torn
                os.ftruncate(self._descriptor, self._written)
        if not self._written:  # not even its header is there: the next try makes it again
            self._close_part()
            with contextlib.suppress(OSError):
                (self._path / f"{self._part:06}{SUFFIX}").unlink(missing_ok=True)
            self._part -= 1
        self._retry_at = now + RETRY_SECONDS
        if not self.has_failed:
            self.has_failed, self._missing = True, missing
            self._on_failure(str(error))

    def _fail(self, error: Exception) -> None:
        self.has_failed = True
        self.close()
        self._on_failure(str(error))


def _delete_oldest(folder: Path) -> None:
    """Delete the oldest recordings, so that `KEPT_RECORDINGS` are left with the one that begins."""
    recordings = sorted(one for one in folder.iterdir() if RECORDING.fullmatch(one.name) and one.is_dir())
    for recording in recordings[: max(0, len(recordings) - KEPT_RECORDINGS + 1)]:
        for part in recording.glob(f"*{SUFFIX}"):
            part.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds files that the recorder did not write
            recording.rmdir()


def _size(event: Event) -> int:
    """Return an upper bound for the bytes of its record; 0 for an event that is always short."""
    return _OVERHEAD + sum(map(len, event.frames)) if isinstance(event, RequestReceived | WorkerSent) else 0


def _stamp(wall_ms: int) -> str:
    at = datetime.fromtimestamp(wall_ms / 1000, UTC)
    return f"{at:%Y%m%dT%H%M%S}.{wall_ms % 1000:03d}Z"
