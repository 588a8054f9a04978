"""Importing CSV files with one bar per row: what is refused, what timeframe they are, and what was assumed.

Nothing is repaired silently: a file is imported as it stands, or refused with the line that stands against it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from zoneinfo import available_timezones

import numpy as np

from backtestr_protocol.errors import DataError, ValidationError, did_you_mean
from backtestr_protocol.messages import Imported, ImportMarketData, Timeframe

from .arrays import Integers
from .bars import Bars, Fault, faults
from .catalog import Catalog, check_symbol, describe_series
from .csv_layout import EXPECTED, Layout, detect_layout
from .csv_rows import line_numbers, read_rows
from .timeframes import LENGTH_US, MINUTE_US, open_times, parse_timeframe

FORMATS = ("csv",)
"""`csv`: a header line, then one bar a line."""

LARGEST_FILE_BYTES = 2 << 30
"""Text and table are in memory together while a file is read."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def import_market_data(catalog: Catalog, request: ImportMarketData) -> Imported:
    """Import a file into the catalogue, in place of what that symbol and timeframe had (a warning then says so).

    Raises what `import_csv` raises. The catalogue is written only after everything has been checked.
    """
    bars, warnings = import_csv(
        Path(request.path), request.symbol, request.timeframe, request.format, request.time_zone
    )
    for info in catalog.series():
        if (info.symbol, info.timeframe) == (bars.symbol, bars.timeframe):
            warnings.append(f"replaced {describe_series(info)}")
    info = catalog.write(bars)
    return Imported(
        symbol=info.symbol,
        timeframe=info.timeframe,
        bars=info.bars,
        start_time=info.start_time,
        end_time=info.end_time,
        warnings=warnings,
    )


def import_csv(
    path: Path, symbol: str, timeframe: str | None = None, format: str | None = None, time_zone: str | None = None
) -> tuple[Bars, list[str]]:
    """The bars of a CSV file, and what was assumed in reading it.

    `timeframe` is the most frequent step when not given. `time_zone`, an IANA name, says what times without an offset
    mean; without it they are taken as UTC. `path` should be absolute: a relative one is relative to this process.

    Raises `ValidationError` for a symbol, timeframe, format or time zone that there cannot be, and `DataError` for a
    file that is not there, is no CSV of bars, or holds a row that is no bar (`details`: line counted from 1, column,
    text, reason).
    """
    check_symbol(symbol)
    given = None if timeframe is None else parse_timeframe(timeframe)
    if format is not None:
        _check_choice("format", format, FORMATS)
    if time_zone is not None:
        _check_choice("timeZone", time_zone, available_timezones())
    content = _read_text(path)
    lines = io.BytesIO(content)
    header = lines.readline()
    first = next((line for line in lines if line.strip()), b"")
    if not first:
        raise DataError(f"{path.name} has a header line and no bars", path=str(path))
    layout = detect_layout(header.decode(), first.decode(), path.name)
    frame = read_rows(content, layout, time_zone, path.name)
    timestamp = frame["timestamp"].to_physical().to_numpy()
    volume = frame["volume"].to_numpy() if layout.volume is not None else np.zeros(len(timestamp))
    open, high, low, close = (frame[name].to_numpy() for name in ("open", "high", "low", "close"))
    bars = Bars(symbol, _timeframe_of(timestamp, given, path.name), timestamp, open, high, low, close, volume)
    found = faults(bars)
    if found:
        raise _no_bars(found, content, layout, path.name)
    return bars, _warnings(bars, layout, time_zone)


def _read_text(path: Path) -> bytes:
    """The content, UTF-8, without a byte order mark."""
    try:
        if not path.exists():
            raise DataError(f"there is no file {path}", path=str(path))
        if not path.is_file():
            what = "a folder" if path.is_dir() else "a device"
            raise DataError(f"{path} is {what}, not a CSV file", path=str(path))
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise DataError(f"{path} is larger than {LARGEST_FILE_BYTES >> 30} GiB; split it", path=str(path))
        content = path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    if content.isspace() or not content:
        raise DataError(f"{path.name} is empty; expected is {EXPECTED}", path=str(path))
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path.name} is not UTF-8 text (line {line}); expected is CSV: {EXPECTED}", path=str(path), line=line
        ) from None
    if b"\0" in content:
        raise DataError(f"{path.name} is a binary file; expected is CSV: {EXPECTED}", path=str(path))
    return content


def _timeframe_of(timestamp: Integers, given: Timeframe | None, file: str) -> Timeframe:
    """The timeframe given, unless most bars lie closer than that; else the most frequent step."""
    usual = _usual_step(timestamp)
    if given is not None:
        if usual is not None and usual < LENGTH_US[given]:
            raise DataError(
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
    raise DataError(
        f"the timeframe of {file} cannot be detected: {step}; name it ({', '.join(LENGTH_US)})",
        path="$.timeframe",
        expected=list(LENGTH_US),
    )


def _usual_step(timestamp: Integers) -> int | None:
    """The most frequent positive step in microseconds, the shortest of equally frequent ones; None without any."""
    steps = np.diff(timestamp)
    lengths, counts = np.unique(steps[steps > 0], return_counts=True)
    return int(lengths[counts.argmax()]) if len(lengths) else None


def _step_name(step_us: int) -> str:
    names = {length: name for name, length in LENGTH_US.items()}
    return names.get(step_us, f"{step_us / MINUTE_US:g} minutes")


def _warnings(bars: Bars, layout: Layout, time_zone: str | None) -> list[str]:
    warnings = list(layout.notes)
    if layout.zoned and time_zone is not None:
        warnings.append(f"time zone {time_zone} is not used: the file's times say which instant they are")
    if not layout.zoned and time_zone is None:
        warnings.append("times have no time zone: taken as UTC")
    usual = _usual_step(bars.timestamp)
    if usual is not None and usual != LENGTH_US[bars.timeframe]:
        warnings.append(f"the most frequent step is {_step_name(usual)}, not {bars.timeframe}")
    off_edge = int(np.count_nonzero(open_times(bars.timestamp, bars.timeframe) != bars.timestamp))
    if off_edge:
        warnings.append(f"{off_edge:,} of {len(bars):,} bars do not open on a {bars.timeframe} edge in UTC")
    return warnings


def _no_bars(found: list[Fault], content: bytes, layout: Layout, file: str) -> DataError:
    lines = line_numbers(content, layout)
    named = [(fault, [lines[row] for row in fault.first]) for fault in found]
    described = "; ".join(
        f"{fault.reason} on {fault.count} lines (first: {', '.join(map(str, first))})" for fault, first in named
    )
    worst, first_lines = min(named, key=lambda one: one[1][0])
    column = layout.column_of(worst.column)
    return DataError(
        f"{file}, line {first_lines[0]}, column {column!r}: {worst.reason}. In all: {described}",
        line=first_lines[0],
        column=column,
        reason=worst.reason,
        faults=[{"reason": fault.reason, "count": fault.count, "lines": first} for fault, first in named],
    )


def _check_choice(name: str, value: str, known: Iterable[str]) -> None:
    choices = sorted(known)
    if value not in choices:
        listing = ", ".join(choices) if len(choices) <= 20 else "an IANA name such as Europe/London"
        raise ValidationError(
            f"unknown {name} {value!r}{did_you_mean(value, choices)} ({listing})",
            path=f"$.{name}",
            expected=listing,
            got=value,
        )
