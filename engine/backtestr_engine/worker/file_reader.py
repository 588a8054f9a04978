"""A child process that reads a file of market data, `python -m backtestr_engine.worker.file_reader`.

It sends the bars as arrays of numbers: the parent knows how long they are, and reads no file that may be damaged.
"""

from __future__ import annotations

import os
from pathlib import Path

# Set before polars is imported, as for a worker.
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import msgspec

from backtestr_engine.data.bars import COLUMNS, Bars
from backtestr_engine.data.printable import printable
from backtestr_engine.data.ticks import Ticks
from backtestr_engine.importing.importer import read_file
from backtestr_protocol.errors import BacktestrError, UnusableFile
from backtestr_protocol.import_messages import DroppedRows, ImportMarketData
from backtestr_protocol.messages import SeriesTimeframe

from .child_process import Frames
from .child_serving import answered, serve_child


class SeriesHead(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one series; a frame for each of its `columns` follows."""

    rows: int
    symbol: str
    timeframe: SeriesTimeframe
    columns: list[str]
    zone: str


class ReadHead(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of the series that were read; the columns of the first one follow, then those of the next."""

    series: list[SeriesHead]
    format: str
    warnings: list[str]
    dropped: list[DroppedRows]


def _head(series: Bars | Ticks) -> SeriesHead:
    columns = COLUMNS if isinstance(series, Bars) else ("timestamp", *series.columns)
    return SeriesHead(
        rows=len(series), symbol=series.symbol, timeframe=series.timeframe, zone=series.zone, columns=list(columns)
    )


def read(frames: Frames, request: bytes) -> None:
    """Read the file that the request names, and send the facts and columns of its series."""
    asked = msgspec.msgpack.decode(request, type=ImportMarketData)
    columns: list[memoryview] = []

    def read_head() -> ReadHead:
        try:
            found = read_file(asked)
        except BacktestrError:
            raise
        except BaseException as error:  # polars panics with an error that is no Exception
            text = printable(f"{type(error).__name__}: {error}")[:1000]
            name = Path(asked.path).name
            raise UnusableFile(f"{name} cannot be read: it is damaged ({text})", path=asked.path) from error
        heads = [_head(one) for one in found.series]
        for series, head in zip(found.series, heads, strict=True):
            columns.extend(memoryview(getattr(series, name)) for name in head.columns)
        return ReadHead(
            series=heads,
            format=found.format,
            warnings=found.warnings,
            dropped=found.dropped,
        )

    frames.send(answered(read_head))
    for column in columns:
        frames.send(column)


if __name__ == "__main__":
    serve_child(read)
