"""This module has the contracts of imports: the file and how it is read, and the series that are stored."""

from __future__ import annotations

from typing import Literal

from .messages import Contract, FilePath, Repair, SeriesInfo, SeriesTimeframe, ShortText, TickPrice
from .ranges import Name, Symbol

TimeUnit = Literal["s", "ms", "us", "ns"]
DateOrder = Literal["dmy", "mdy"]
DecimalMark = Literal[".", ","]


class ImportMarketData(Contract, frozen=True, kw_only=True):
    """The file to import, and the options that decide how it is read.

    `time_unit` is the unit of times that are counts since 1970, `date_order` the order of day and month in dates such
    as 03/04/2024, and `decimal` the decimal mark of numbers; each is told from the file when absent. `symbol_column`
    names the column of the symbols in a file of several; each becomes a series, or the one that `symbol` names.
    """

    path: FilePath
    symbol: Symbol | None = None
    timeframe: ShortText | None = None
    format: ShortText | None = None
    time_zone: ShortText | None = None
    price: TickPrice | None = None
    repair: Repair | None = None
    time_unit: TimeUnit | None = None
    date_order: DateOrder | None = None
    decimal: DecimalMark | None = None
    symbol_column: Name | None = None


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
    `series` has every series where the file held several symbols; the fields before it are those of the first.
    """

    symbol: str
    timeframe: SeriesTimeframe
    bars: int
    start_time: int
    end_time: int
    warnings: list[str]
    format: str | None = None
    dropped: list[DroppedRows] = []
    series: list[SeriesInfo] = []
