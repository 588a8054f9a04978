"""Read the bars or ticks of a file that holds one series, as an import does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from backtestr_engine.data.bars import Bars
from backtestr_engine.data.ticks import Ticks
from backtestr_engine.importing.importer import ReadsFile, read_file
from backtestr_protocol.import_messages import DroppedRows, ImportMarketData


class ReadBars(msgspec.Struct, frozen=True):
    """The only series of a file, with what `ReadSeries` has beside it."""

    bars: Bars
    format: str
    warnings: list[str]
    dropped: list[DroppedRows]


def read_bars(
    path: Path, symbol: str, timeframe: str | None = None, read: ReadsFile = read_file, **options: Any
) -> ReadBars:
    """Read a file of one series; `options` are fields of `ImportMarketData`."""
    found = read(ImportMarketData(path=str(path), symbol=symbol, timeframe=timeframe, **options))
    [bars] = found.series
    assert isinstance(bars, Bars)
    return ReadBars(bars, found.format, found.warnings, found.dropped)


def read_ticks(path: Path, symbol: str, read: ReadsFile = read_file, **options: Any) -> Ticks:
    """Read a file of ticks as ticks; `options` are fields of `ImportMarketData`."""
    [ticks] = read(ImportMarketData(path=str(path), symbol=symbol, **options)).series
    assert isinstance(ticks, Ticks)
    return ticks
