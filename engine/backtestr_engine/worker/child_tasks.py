"""A worker has child processes do what may kill, and turns their answers, or their ends, into results and errors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import psutil

from backtestr_engine.data.arrays import AnyArray
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.printable import printable
from backtestr_engine.data.ticks import Ticks
from backtestr_engine.importing.formats import binary_format
from backtestr_engine.importing.importer import ReadSeries, read_file
from backtestr_engine.library.source_files import Source
from backtestr_engine.library.stored_samples import SeriesPart
from backtestr_protocol.errors import AlgorithmError, ErrorData, SystemFault, UnusableFile, from_data
from backtestr_protocol.import_messages import ImportMarketData
from backtestr_protocol.messages import TICK, AlgorithmInfo

from .child_process import MAX_FRAME_BYTES, START_SECONDS, Child, ChildLost
from .file_reader import ReadHead, SeriesHead
from .source_inspector import PATIENCE_SECONDS, ExamineSource, Inspected, InspectSources

INSPECTION_SECONDS = 60.0
"""The most that the inspection of all new files of a folder may take: a worker's start waits for it."""

READ_SECONDS, READ_BYTES_PER_SECOND = 60.0, 4 << 20
"""The time for reading a file of market data: ten times what a file takes that compresses to a tenth."""

_GRACE_SECONDS = 2.0
_MIN_MEMORY_BYTES = 256 << 20

_inspected = msgspec.msgpack.Decoder(Inspected)
_examined = msgspec.msgpack.Decoder(tuple[AlgorithmInfo | None, ErrorData | None])
_read_head = msgspec.msgpack.Decoder(tuple[ReadHead | None, ErrorData | None])


class ChildTasks:
    """The tasks that this worker gives to child processes.

    `load_seconds` is the limit for loading one source, `memory_bytes` that of a worker's memory (0 for none).
    """

    def __init__(self, load_seconds: float, memory_bytes: int) -> None:
        self._load_seconds = load_seconds
        self._memory_bytes = memory_bytes

    def inspect(self, sources: Sequence[Source]) -> list[str | None]:
        """Load each source in a process that may die, and return the reason why it must not be loaded, or None.

        A source that ends its process, or is late, is named, and the others are loaded in another process.
        """
        verdicts: list[str | None] = []
        deadline = time.monotonic() + INSPECTION_SECONDS
        while len(verdicts) < len(sources) and time.monotonic() < deadline:
            rest = sources[len(verdicts) :]
            request = msgspec.msgpack.encode(InspectSources(sources=rest, seconds=self._load_seconds))
            try:
                with Child("source_inspector", request, self._memory()) as child:
                    child.frame(START_SECONDS)
                    for source in rest:
                        inspected = self._inspected(child, source)
                        verdicts.append(inspected.problem)
                        if inspected.is_last:
                            break
            except ChildLost as lost:
                verdicts += [f"{printable(source.file)}: could not be checked: {lost}" for source in rest]
        late = f"was not checked: the files before it took {INSPECTION_SECONDS:g} s; restart the broker to continue"
        return [*verdicts, *(f"{printable(source.file)}: {late}" for source in sources[len(verdicts) :])]

    def _inspected(self, child: Child, source: Source) -> Inspected:
        try:
            return _inspected.decode(child.frame(self._load_seconds + PATIENCE_SECONDS + _GRACE_SECONDS))
        except (ChildLost, msgspec.MsgspecError) as lost:
            return Inspected(problem=f"{printable(source.file)}: {_loading(lost)}", is_last=True)

    def examine(self, name: str, source: Source, parts: Sequence[SeriesPart] = (), /) -> AlgorithmInfo:
        """Examine a source that is to be registered, in a process that may die. Raises as `inspection.examine` does."""
        request = msgspec.msgpack.encode(
            ExamineSource(name=name, source=source, parts=parts, seconds=self._load_seconds)
        )
        try:
            with Child("source_inspector", request, self._memory()) as child:
                _started(child)
                info, error = _examined.decode(child.frame(2 * self._load_seconds + 2 * _GRACE_SECONDS))
        except (ChildLost, msgspec.MsgspecError) as lost:
            raise AlgorithmError(f"{source.file}: {_loading(lost)}", file=source.file) from lost
        if error is not None:
            raise from_data(error)
        if info is None or info.name != name:
            raise AlgorithmError(f"{source.file}: its process did not answer", file=source.file)
        return info

    def read_file(self, request: ImportMarketData) -> ReadSeries:
        """Read a file as `importer.read_file` does; a Parquet or Arrow file in a process that may die."""
        path = Path(request.path)
        size = _size_of_table(path)
        if size is None:
            return read_file(request)
        seconds = READ_SECONDS + size / READ_BYTES_PER_SECOND
        try:
            with Child("file_reader", msgspec.msgpack.encode(request), self._memory()) as child:
                _started(child)
                head, error = _read_head.decode(child.frame(seconds, 64 * MAX_FRAME_BYTES))
                if error is not None:
                    raise from_data(error)
                if head is None:
                    raise ChildLost("its process did not answer")
                series = [_received(child, one, seconds) for one in head.series]
        except (ChildLost, msgspec.MsgspecError) as lost:
            raise UnusableFile(
                f"{path.name} cannot be read: the process that read it was lost: {lost}; the file is damaged, or needs "
                "more memory or time than there is; write it again, or export it as CSV",
                path=str(path),
            ) from lost
        return ReadSeries(series=series, format=head.format, warnings=head.warnings, dropped=head.dropped)

    def _memory(self) -> int:
        """Return the memory that a child may take: no more than a worker may, and half of what the machine has left."""
        spare = max(_MIN_MEMORY_BYTES, psutil.virtual_memory().available // 2)
        return min(spare, self._memory_bytes) if self._memory_bytes else int(spare)


def _started(child: Child) -> None:
    """Wait until a child has started. Raises `SystemFault` for one that does not."""
    try:
        child.frame(START_SECONDS)
    except ChildLost as lost:
        raise SystemFault(f"a process for this could not be started: {lost}") from lost


def _loading(lost: Exception) -> str:
    """Return what is wrong with a source whose process was lost."""
    reason = str(lost) if isinstance(lost, ChildLost) else "it wrote into the answer of its process"
    return f"it cannot be loaded: {reason}; correct it, or raise load_time_limit_ms under [algorithms] in engine.toml"


def _size_of_table(path: Path) -> int | None:
    """Return the size of a file that begins as Parquet or Arrow; None for all else, which needs no other process."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return path.stat().st_size if binary_format(file.read(8)) is not None else None
    except (OSError, ValueError):
        return None


def _received(child: Child, head: SeriesHead, seconds: float) -> Bars | Ticks:
    """Return the series whose columns are the next frames."""
    columns = {name: _column(child.frame(seconds, 8 * head.rows), head.rows, name) for name in head.columns}
    try:
        if head.timeframe == TICK:
            return Ticks(head.symbol, **columns, zone=head.zone)
        return Bars(head.symbol, head.timeframe, **columns, zone=head.zone)
    except (TypeError, ValueError) as error:  # other columns than a series has
        raise ChildLost(f"it sent no series: {error}") from error


def _column(frame: bytes, rows: int, name: str) -> AnyArray:
    if len(frame) != 8 * rows:
        raise ChildLost(f"{len(frame)} bytes came for {rows} rows of {name}")
    return np.frombuffer(frame, dtype=np.int64 if name == "timestamp" else np.float64)
