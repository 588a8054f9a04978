"""Importing a file of bars or ticks, in five stages: open it, find its layout, read its rows, validate them, make bars.

Nothing is repaired unasked: a file is imported as it stands, or refused with the line and the reason; rows are dropped
only on request, and the answer counts every one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from zoneinfo import available_timezones

import msgspec

from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog, check_symbol, describe_series
from backtestr_engine.data.ticks import Ticks
from backtestr_engine.data.timeframes import parse_timeframe
from backtestr_protocol.errors import (
    AmbiguousFile,
    DataError,
    DiskUnwritable,
    InvalidConfiguration,
    ValidationError,
    did_you_mean,
)
from backtestr_protocol.import_messages import DroppedRows, Imported, ImportMarketData
from backtestr_protocol.messages import TICK, SeriesInfo, SeriesTimeframe

from .corrections import turn_round, widen
from .csv_reader import read_text
from .epochs import AmbiguousTimes
from .formats import check_format
from .imported_bars import make_series
from .layout import Layout, find_layout
from .notes import joined_notes, merge_dropped, shortened
from .number_styles import AmbiguousNumbers
from .parquet_arrow import read_table
from .rows import Rows
from .sources import TableFile, TextFile, open_source
from .symbol_column import check_one_symbol, part_by_symbol
from .validation import describe_dropped, usable_rows


class ReadSeries(msgspec.Struct, frozen=True, kw_only=True):
    """The series of a file, the assumptions made in reading it, and the rows dropped from it."""

    series: list[Bars | Ticks]
    format: str
    warnings: list[str]
    dropped: list[DroppedRows]


ReadsFile = Callable[[ImportMarketData], ReadSeries]
"""Reads the series of a file as `read_file` does."""


def import_market_data(catalog: Catalog, request: ImportMarketData, read: ReadsFile | None = None) -> Imported:
    """Import a file into the catalogue, in place of what its symbols and timeframes had (a warning then says so).

    `read` reads it, where that may end the process. Raises what `read_file` raises. The catalogue is written only after
    everything has been checked, one series after the other.
    """
    found = (read or read_file)(request)
    stored = {(info.symbol, info.timeframe): info for info in catalog.series()}
    replaced = [
        f"replaced {describe_series(stored[key])}" if len(found.series) == 1 else f"{key[0]}: replaced"
        for key in ((bars.symbol, bars.timeframe) for bars in found.series)
        if key in stored
    ]
    infos = _write(catalog, found.series)
    first = infos[0]
    return Imported(
        symbol=first.symbol,
        timeframe=first.timeframe,
        bars=first.bars,
        start_time=first.start_time,
        end_time=first.end_time,
        warnings=[*found.warnings, *shortened(replaced)],
        format=found.format,
        dropped=found.dropped,
        series=infos if len(infos) > 1 else [],
    )


def _write(catalog: Catalog, series: Sequence[Bars | Ticks]) -> list[SeriesInfo]:
    """Write each series. Raises an error that says which are stored where one of several cannot be written."""
    infos: list[SeriesInfo] = []
    for one in series:
        try:
            infos.append(catalog.write_ticks(one) if isinstance(one, Ticks) else catalog.write(one))
        except (DataError, DiskUnwritable) as error:
            if not infos:
                raise
            names = ", ".join(info.symbol for info in infos[:20]) + (", …" if len(infos) > 20 else "")
            raise type(error)(
                f"{error.message}; stored before it, of {len(series):,} series, are {len(infos):,}: {names}",
                **(error.details or {}),
            ) from error
    return infos


def read_file(request: ImportMarketData) -> ReadSeries:
    """Read the bars or ticks of the file that `request` names, or the bars that its ticks make.

    `timeframe` is the most frequent step of bars when not given, and `tick` for ticks; another makes bars of ticks.
    `format` is one of `FORMATS`, recognised by the content when not given. `time_zone`, an IANA name, is the zone of
    times without an offset; without it the format's zone holds, else UTC. `price` is that of ticks that bars are made
    of, `mid` or else `last` when not given. `repair` "drop" leaves out the rows that cannot be used. `path` should be
    absolute: a relative one is relative to this process. `time_unit`, `date_order` and `decimal` decide where a file
    can be read in two ways. `symbol_column` names the column of the symbols; every symbol is read, or the one that
    `symbol` names.

    Raises `ValidationError` for a symbol, timeframe, format, time zone or column that there cannot be,
    `InvalidConfiguration` for a price that there is not or that chooses nothing, and `DataError` for a file that is not
    there, holds no market data, can be read in two ways, or holds a row that cannot be used (`details`: line counted
    from 1, column, text, reason).
    """
    given = _check(request)
    file = open_source(Path(request.path), request.format)
    layout = find_layout(file, request)
    rows = _read_rows(file, layout)
    if request.price is not None and rows.kind == "bars":
        raise InvalidConfiguration(
            f"price {request.price!r} chooses the price of ticks, and {rows.file} holds bars", paths=["$.price"]
        )
    parts = _parts(file, layout, rows, request)
    repaired = [(symbol, *_sound(part, request)) for symbol, part in parts]
    made = make_series([(symbol, sound) for symbol, sound, _, _ in repaired], given, request.price)
    dropped = merge_dropped([one for _, _, one, _ in repaired])
    notes = [
        *(describe_dropped(one, rows.place) for one in dropped),
        *file.notes,
        *layout.notes,
        *rows.notes,
        *_zone_notes(request.time_zone, layout.zone, file.format, zoned=rows.zoned),
    ]
    by_symbol = {symbol: [*corrected, *made[symbol][1]] for symbol, _, _, corrected in repaired}
    return ReadSeries(
        series=[bars for bars, _ in made.values()],
        format=file.format,
        warnings=notes + joined_notes(by_symbol),
        dropped=dropped,
    )


def _check(request: ImportMarketData) -> SeriesTimeframe | None:
    """Return the timeframe asked for. Raises `ValidationError` for options that there cannot be."""
    if request.symbol is not None:
        check_symbol(request.symbol)
    elif request.symbol_column is None:
        raise ValidationError(
            "$.symbol is missing: name the series, or the column that names each (symbolColumn)",
            path="$.symbol",
            expected="a symbol, or symbolColumn",
        )
    if request.format is not None:
        check_format(request.format)
    if request.time_zone is not None:
        _check_time_zone(request.time_zone)
    if request.timeframe is None:
        return None
    return TICK if request.timeframe == TICK else parse_timeframe(request.timeframe)


def _read_rows(file: TextFile | TableFile, layout: Layout) -> Rows:
    """Return the rows of the file. Raises `AmbiguousFile` where they can be read in two ways."""
    try:
        return read_text(file, layout) if isinstance(file, TextFile) else read_table(file, layout)
    except AmbiguousTimes as error:
        column = layout.names["timestamp"]
        raise AmbiguousFile(f"{file.name}, column {column!r}: {error}", column=column) from error
    except AmbiguousNumbers as error:
        raise AmbiguousFile(f"{file.name}: {error}", path="$.decimal") from error


def _parts(file: TextFile | TableFile, layout: Layout, rows: Rows, request: ImportMarketData) -> list[tuple[str, Rows]]:
    """Return the rows of each series. What cannot be read stays with the first of them."""
    column = "" if layout.symbols is None else file.header[layout.symbols]
    if request.symbol_column is None:
        check_one_symbol(rows, column)
        assert request.symbol is not None  # `_check`
        return [(request.symbol, rows)]
    if rows.malformed.height and (request.repair is None or not len(rows)):
        usable_rows(rows, request.repair)  # raises
    (symbol, first), *others = part_by_symbol(rows, column, request.symbol)
    readable = rows.malformed.clear()
    return [(symbol, first), *((name, replace(part, malformed=readable)) for name, part in others)]


def _sound(rows: Rows, request: ImportMarketData) -> tuple[Rows, list[DroppedRows], list[str]]:
    """Return rows that can be used, what was dropped, and notes about what was corrected."""
    turned, notes = turn_round(rows)
    widened, more = widen(turned)
    sound, dropped = usable_rows(widened, request.repair)
    return sound, dropped, notes + more


def _zone_notes(given: str | None, implied: str | None, format: str, *, zoned: bool) -> list[str]:
    if zoned:
        days = f"the file's times say which instant they are; {given} is the zone of days"
        return [] if given is None else [days]
    if given is not None or implied == "UTC":
        return []
    if implied is None:
        return ["times have no time zone: taken as UTC"]
    return [f"times are taken as {implied}, as {format} has them"]


def _check_time_zone(name: str) -> None:
    zones = available_timezones()
    if name not in zones:
        expected = "an IANA name such as Europe/London"
        raise ValidationError(
            f"unknown timeZone {name!r}{did_you_mean(name, sorted(zones))} ({expected})",
            path="$.timeZone",
            expected=expected,
            got=name,
        )
