"""Importing a file of bars or ticks, in five stages: open it, find its layout, read its rows, validate them, make bars.

Nothing is repaired unasked: a file is imported as it stands, or refused with the line and the reason; rows are dropped
only on request, and the answer counts every one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from zoneinfo import available_timezones

import msgspec

from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog, check_symbol, describe_series
from backtestr_engine.data.ticks import Ticks
from backtestr_engine.data.timeframes import parse_timeframe
from backtestr_protocol.errors import InvalidConfiguration, ValidationError, did_you_mean
from backtestr_protocol.import_messages import DroppedRows, Imported, ImportMarketData
from backtestr_protocol.messages import TICK, SeriesTimeframe

from .csv_reader import read_text
from .formats import check_format
from .imported_bars import make_series
from .layout import find_layout
from .parquet_arrow import read_table
from .sources import TextFile, open_source
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
    """Import a file into the catalogue, in place of what that symbol and timeframe had (a warning then says so).

    `read` reads it, where that may end the process. Raises what `read_file` raises. The catalogue is written only after
    everything has been checked.
    """
    found = (read or read_file)(request)
    warnings = list(found.warnings)
    [series] = found.series
    for info in catalog.series():
        if (info.symbol, info.timeframe) == (series.symbol, series.timeframe):
            warnings.append(f"replaced {describe_series(info)}")
    info = catalog.write_ticks(series) if isinstance(series, Ticks) else catalog.write(series)
    return Imported(
        symbol=info.symbol,
        timeframe=info.timeframe,
        bars=info.bars,
        start_time=info.start_time,
        end_time=info.end_time,
        warnings=warnings,
        format=found.format,
        dropped=found.dropped,
    )


def read_file(request: ImportMarketData) -> ReadSeries:
    """Read the bars or ticks of the file that `request` names, or the bars that its ticks make.

    `timeframe` is the most frequent step of bars when not given, and `tick` for ticks; another makes bars of ticks.
    `format` is one of `FORMATS`, recognised by the content when not given. `time_zone`, an IANA name, is the zone of
    times without an offset; without it the format's zone holds, else UTC. `price` is that of ticks that bars are made
    of, `mid` or else `last` when not given. `repair` "drop" leaves out the rows that cannot be used. `path` should be
    absolute: a relative one is relative to this process.

    Raises `ValidationError` for a symbol, timeframe, format or time zone that there cannot be, `InvalidConfiguration`
    for a price that there is not or that chooses nothing, and `DataError` for a file that is not there, holds no market
    data, or holds a row that cannot be used (`details`: line counted from 1, column, text, reason).
    """
    check_symbol(request.symbol)
    given = _parse_timeframe(request.timeframe)
    if request.format is not None:
        check_format(request.format)
    if request.time_zone is not None:
        _check_time_zone(request.time_zone)
    file = open_source(Path(request.path), request.format)
    layout = find_layout(file)
    zone = request.time_zone or layout.zone
    rows = read_text(file, layout, zone) if isinstance(file, TextFile) else read_table(file, layout, zone)
    if request.price is not None and rows.kind == "bars":
        raise InvalidConfiguration(
            f"price {request.price!r} chooses the price of ticks, and {rows.file} holds bars", paths=["$.price"]
        )
    rows, dropped = usable_rows(rows, request.repair)
    series, warnings = make_series(rows, request.symbol, given, request.price)
    notes = [
        *(describe_dropped(one, rows.place) for one in dropped),
        *layout.notes,
        *_zone_notes(request.time_zone, layout.zone, file.format, zoned=rows.zoned),
    ]
    return ReadSeries(series=[series], format=file.format, warnings=notes + warnings, dropped=dropped)


def _parse_timeframe(given: str | None) -> SeriesTimeframe | None:
    if given is None:
        return None
    return TICK if given == TICK else parse_timeframe(given)


def _zone_notes(given: str | None, implied: str | None, format: str, *, zoned: bool) -> list[str]:
    if zoned:
        unused = f"time zone {given} is not used: the file's times say which instant they are"
        return [] if given is None else [unused]
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
