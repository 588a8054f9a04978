"""Importing files of bars or ticks: what is refused, what timeframe they are, and what was assumed.

Nothing is repaired silently: a file is imported as it stands, or refused with the line that stands against it; rows are
dropped only where that is asked for, and every one is counted in the answer.
"""

from __future__ import annotations

from pathlib import Path
from zoneinfo import available_timezones

import msgspec
import numpy as np
import polars as pl

from backtestr_engine.data.arrays import Integers
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog, check_symbol, describe_series
from backtestr_engine.data.timeframes import LENGTH_US, MINUTE_US, open_times, parse_timeframe
from backtestr_protocol.errors import InvalidConfiguration, UnknownTimeframe, ValidationError, did_you_mean
from backtestr_protocol.messages import DroppedRows, Imported, ImportMarketData, QuotePrice, Repair, Timeframe

from .formats import check_format
from .sources import Source, open_source
from .ticks import Quotes, bars_of
from .validation import describe_dropped, drop_unsound_rows, sound_rows, times


class ReadBars(msgspec.Struct, frozen=True):
    """The bars of a file, what was assumed in reading it, and what was dropped."""

    bars: Bars
    format: str
    warnings: list[str]
    dropped: list[DroppedRows]


def import_market_data(catalog: Catalog, request: ImportMarketData) -> Imported:
    """Import a file into the catalogue, in place of what that symbol and timeframe had (a warning then says so).

    Raises what `read_bars` raises. The catalogue is written only after everything has been checked.
    """
    read = read_bars(
        Path(request.path),
        request.symbol,
        request.timeframe,
        request.format,
        request.time_zone,
        price=request.price,
        repair=request.repair,
    )
    warnings = list(read.warnings)
    for info in catalog.series():
        if (info.symbol, info.timeframe) == (read.bars.symbol, read.bars.timeframe):
            warnings.append(f"replaced {describe_series(info)}")
    info = catalog.write(read.bars)
    return Imported(
        symbol=info.symbol,
        timeframe=info.timeframe,
        bars=info.bars,
        start_time=info.start_time,
        end_time=info.end_time,
        warnings=warnings,
        format=read.format,
        dropped=read.dropped,
    )


def read_bars(
    path: Path,
    symbol: str,
    timeframe: str | None = None,
    format: str | None = None,
    time_zone: str | None = None,
    *,
    price: QuotePrice | None = None,
    repair: Repair | None = None,
) -> ReadBars:
    """The bars of a file, or those that its ticks make.

    `timeframe` is the most frequent step of bars when not given; ticks need one. `format` is one of `FORMATS`, told
    from the content when not given. `time_zone`, an IANA name, says what times without an offset mean; without it they
    are what the format says, else UTC. `price` is the side of quotes that bars are made of, `mid` when not given.
    `repair` "drop" leaves out the rows that cannot be used. `path` should be absolute: a relative one is relative to
    this process.

    Raises `ValidationError` for a symbol, timeframe, format or time zone that there cannot be, `InvalidConfiguration`
    for a price where there are no quotes, and `DataError` for a file that is not there, holds no market data, or holds
    a row that cannot be used (`details`: line counted from 1, column, text, reason).
    """
    check_symbol(symbol)
    given = None if timeframe is None else parse_timeframe(timeframe)
    if format is not None:
        check_format(format)
    if time_zone is not None:
        _check_time_zone(time_zone)
    source = open_source(path, format, time_zone)
    if price is not None and source.kind != "quotes":
        raise InvalidConfiguration(
            f"price {price!r} chooses a side of quotes, and {source.file} holds {source.kind}", paths=["$.price"]
        )
    rows, dropped = (sound_rows(source), list[DroppedRows]()) if repair is None else drop_unsound_rows(source)
    warnings = [describe_dropped(one, source.place) for one in dropped] + _notes(source, time_zone)
    if source.kind == "bars":
        bars = _bars(symbol, given, rows, source.file)
        warnings += _bar_warnings(bars)
    else:
        bars = _tick_bars(symbol, given, rows, source, price or "mid")
        warnings.append(_tick_note(source, bars.timeframe, rows, price or "mid"))
    return ReadBars(bars, source.format, warnings, dropped)


def _bars(symbol: str, given: Timeframe | None, rows: pl.DataFrame, file: str) -> Bars:
    timestamp = times(rows)
    volume = rows["volume"].to_numpy() if "volume" in rows.columns else np.zeros(len(timestamp))
    open, high, low, close = (rows[name].to_numpy() for name in ("open", "high", "low", "close"))
    return Bars(symbol, _timeframe_of(timestamp, given, file), timestamp, open, high, low, close, volume)


def _tick_bars(symbol: str, given: Timeframe | None, rows: pl.DataFrame, source: Source, price: QuotePrice) -> Bars:
    if given is None:
        raise UnknownTimeframe(
            f"{source.file} holds {source.kind}, which have no timeframe: name the one of the bars to make of them "
            f"({', '.join(LENGTH_US)})",
            path="$.timeframe",
            expected=list(LENGTH_US),
        )
    timestamp = times(rows)
    if source.kind == "quotes":
        quotes = Quotes(timestamp, rows["bid"].to_numpy(), rows["ask"].to_numpy())
        return bars_of(symbol, given, timestamp, quotes.price(price), None)
    size = rows["size"].to_numpy() if "size" in rows.columns else None
    return bars_of(symbol, given, timestamp, rows["price"].to_numpy(), size)


def _tick_note(source: Source, timeframe: Timeframe, rows: pl.DataFrame, price: QuotePrice) -> str:
    side = {"mid": " at the middle of bid and ask", "bid": " at the bid", "ask": " at the ask"}[price]
    of = f"{source.kind}{side}" if source.kind == "quotes" else source.kind
    volume = "their summed size" if "size" in rows.columns else f"the number of {source.kind}"
    return f"{timeframe} bars made of {rows.height:,} {of}; volume is {volume}"


def _timeframe_of(timestamp: Integers, given: Timeframe | None, file: str) -> Timeframe:
    """The timeframe given, unless most bars lie closer than that; else the most frequent step."""
    usual = _usual_step(timestamp)
    if given is not None:
        if usual is not None and usual < LENGTH_US[given]:
            raise UnknownTimeframe(
                f"{file} holds finer bars than {given}: its most frequent step is {_step_name(usual)}",
                path="$.timeframe",
                got=given,
                mostFrequentStepMs=usual // 1000,
            )
        return given
    for timeframe, length in LENGTH_US.items():
        if length == usual:
            return timeframe
    step = "there is only one bar" if usual is None else f"its most frequent step is {_step_name(usual)}"
    raise UnknownTimeframe(
        f"the timeframe of {file} cannot be detected: {step}; name it ({', '.join(LENGTH_US)})",
        path="$.timeframe",
        expected=list(LENGTH_US),
    )


def _usual_step(timestamp: Integers) -> int | None:
    """The most frequent step in microseconds, the shortest of equally frequent ones; None without any."""
    lengths, counts = np.unique(np.diff(timestamp), return_counts=True)
    return int(lengths[counts.argmax()]) if len(lengths) else None


def _step_name(step_us: int) -> str:
    names = {length: name for name, length in LENGTH_US.items()}
    return names.get(step_us, f"{step_us / MINUTE_US:g} minutes")


def _notes(source: Source, time_zone: str | None) -> list[str]:
    notes = list(source.notes)
    if source.zoned and time_zone is not None:
        notes.append(f"time zone {time_zone} is not used: the file's times say which instant they are")
    if not source.zoned and time_zone is None:
        if source.zone is None:
            notes.append("times have no time zone: taken as UTC")
        elif source.zone != "UTC":
            notes.append(f"times are taken as {source.zone}, as {source.format} has them")
    return notes


def _bar_warnings(bars: Bars) -> list[str]:
    warnings = []
    usual = _usual_step(bars.timestamp)
    if usual is not None and usual != LENGTH_US[bars.timeframe]:
        warnings.append(f"the most frequent step is {_step_name(usual)}, not {bars.timeframe}")
    off_edge = int(np.count_nonzero(open_times(bars.timestamp, bars.timeframe) != bars.timestamp))
    if off_edge:
        warnings.append(f"{off_edge:,} of {len(bars):,} bars do not open on a {bars.timeframe} edge in UTC")
    return warnings


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
