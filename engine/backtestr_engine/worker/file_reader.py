"""A child process that reads a file of market data, `python -m backtestr_engine.worker.file_reader`.

It sends the bars as arrays of numbers: the parent knows how long they are, and reads no file that may be damaged.
"""

from __future__ import annotations

import os
from pathlib import Path

# Set before polars is imported, as for a worker.
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import msgspec

from backtestr_engine.data.bars import COLUMNS
from backtestr_engine.data.printable import printable
from backtestr_engine.importing.importer import read_bars
from backtestr_protocol.errors import BacktestrError, UnusableFile
from backtestr_protocol.messages import DroppedRows, QuotePrice, Repair, Timeframe

from .child_process import Frames
from .child_serving import answered, serve_child


class ReadFile(msgspec.Struct, frozen=True, kw_only=True):
    """A request to read a file of market data, with the arguments of `read_bars`."""

    path: str
    symbol: str
    timeframe: str | None
    format: str | None
    time_zone: str | None
    price: QuotePrice | None
    repair: Repair | None


class ReadHead(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of the bars that were read; a frame for each of their columns follows."""

    rows: int
    symbol: str
    timeframe: Timeframe
    format: str
    warnings: list[str]
    dropped: list[DroppedRows]


def read(frames: Frames, request: bytes) -> None:
    """Read the file that the request names, and send the facts and columns of its bars."""
    asked = msgspec.msgpack.decode(request, type=ReadFile)
    path = Path(asked.path)
    columns: list[memoryview] = []

    def read_head() -> ReadHead:
        try:
            found = read_bars(
                path,
                asked.symbol,
                asked.timeframe,
                asked.format,
                asked.time_zone,
                price=asked.price,
                repair=asked.repair,
            )
        except BacktestrError:
            raise
        except BaseException as error:  # polars panics with an error that is no Exception
            text = printable(f"{type(error).__name__}: {error}")[:1000]
            raise UnusableFile(f"{path.name} cannot be read: it is damaged ({text})", path=asked.path) from error
        columns.extend(memoryview(getattr(found.bars, name)) for name in COLUMNS)
        return ReadHead(
            rows=len(found.bars),
            symbol=found.bars.symbol,
            timeframe=found.bars.timeframe,
            format=found.format,
            warnings=found.warnings,
            dropped=found.dropped,
        )

    frames.send(answered(read_head))
    for column in columns:
        frames.send(column)


if __name__ == "__main__":
    serve_child(read)
