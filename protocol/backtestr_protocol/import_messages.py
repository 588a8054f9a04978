"""This module has the contracts of imports: the file and how it is read, and the series that are stored."""

from __future__ import annotations

from .messages import Contract, FilePath, Repair, SeriesTimeframe, ShortText, TickPrice
from .ranges import Symbol


class ImportMarketData(Contract, frozen=True, kw_only=True):
    """The file to import, and the options that decide how it is read."""

    path: FilePath
    symbol: Symbol
    timeframe: ShortText | None = None
    format: ShortText | None = None
    time_zone: ShortText | None = None
    price: TickPrice | None = None
    repair: Repair | None = None


class DroppedRows(Contract, frozen=True, kw_only=True):
    """The rows that an import left out for one reason.

    `first` has the first of their lines in the file (rows of a Parquet or Arrow file), counted from 1.
    """

    reason: str
    column: str
    count: int
    first: list[int]


class Imported(Contract, frozen=True, kw_only=True):
    """The series that an import stored; if `timeframe` is `tick`, `bars` is the number of ticks.

    `format` is the source format of the file. `dropped` has the rows that `repair` left out, each under one reason.
    """

    symbol: str
    timeframe: SeriesTimeframe
    bars: int
    start_time: int
    end_time: int
    warnings: list[str]
    format: str | None = None
    dropped: list[DroppedRows] = []
