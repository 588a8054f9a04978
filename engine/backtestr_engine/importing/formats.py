"""The formats of files that can be imported, how each is recognised, and what each implies.

Files with a header line are recognised by its names, files without one by the shape of their first lines, Parquet and
Arrow by their first bytes. A format implies the time zone of its times and, where a file has no header line, the names
of its columns. The names that columns may have are the same for text and for Parquet and Arrow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from backtestr_protocol.errors import UnusableFile, ValidationError, did_you_mean

from .timestamps import TimeFormat

Kind = Literal["bars", "quotes", "trades"]

EST = "Etc/GMT+5"
"""Five hours behind UTC all year: HistData's time, without daylight saving."""

FORMATS: Mapping[str, str] = {
    "arrow": "Arrow IPC file (Feather) or stream, with the columns of csv",
    "binance": "Binance klines: twelve columns, with or without a header line",
    "csv": "a header line that names time, open, high, low, close, volume (or bid and ask, or price and size)",
    "dukascopy": "Dukascopy's CSV of bars or ticks: Gmt time, Open, High, Low, Close, Volume",
    "histdata": "HistData's ASCII bars or ticks, or its MetaTrader bars: EST without daylight saving",
    "mt4": "MetaTrader 4 export: date, time, open, high, low, close, volume, without a header line",
    "mt5": "MetaTrader 5 export of bars or ticks: <DATE>, <TIME>, <OPEN>, …",
    "parquet": "Parquet, with the columns of csv",
    "yahoo": "Yahoo Finance: Date, Open, High, Low, Close, Adj Close, Volume",
}
"""Every format by name, and how a file of it looks."""

EXPECTED_COLUMNS = (
    "columns named time (or date and time), open, high, low, close and perhaps volume; "
    "or, of ticks, time, bid and ask, or time, price and perhaps size"
)

# The exports of these come with a plain header as well.
_HEADED = ("binance", "dukascopy", "mt5", "yahoo")

_ARROW_STREAM = b"\xff\xff\xff\xff"
_NUMBER = r"\d+(?:\.\d+)?"

_TIME = (
    *("timestamp", "datetime", "opentime", "gmttime", "localtime", "timeutc", "timeeet", "date", "time"),
    *("indexlevel0", ""),  # the index as pandas writes it to Parquet and to CSV when it has no name
)
_VOLUME = ("volume", "tickvol", "tickvolume", "vol", "v")
# Names as `_plain` leaves them, the likelier first.
_FIELDS: Mapping[Kind, Mapping[str, Sequence[str]]] = {
    "bars": {
        "open": ("open", "o"),
        "high": ("high", "h"),
        "low": ("low", "l"),
        "close": ("close", "c"),
        "volume": _VOLUME,
    },
    "quotes": {"bid": ("bid", "bidprice"), "ask": ("ask", "askprice", "offer")},
    "trades": {"price": ("price", "last", "lastprice", "tradeprice"), "size": ("size", "qty", "quantity", *_VOLUME)},
}
_OPTIONAL = ("volume", "size")
_ADJUSTED = ("adjclose", "adjustedclose")


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A format without a header line: the form of its lines, and the names that its columns would have."""

    format: str
    line: re.Pattern[str]
    delimiter: str
    header: tuple[str, ...]
    time: TimeFormat | None
    """The format of its times; None where the first rows show it."""


_BAR = ("open", "high", "low", "close", "volume")
SHAPES = (
    Shape(
        format="histdata",
        line=re.compile(rf"\d{{8}} \d{{6}}(?:;{_NUMBER}){{5}}"),
        delimiter=";",
        header=("time", *_BAR),
        time=TimeFormat("%Y%m%d %H%M%S"),
    ),
    Shape(
        format="histdata",
        line=re.compile(rf"\d{{8}} \d{{9}}(?:,{_NUMBER}){{3}}"),
        delimiter=",",
        header=("time", "bid", "ask", "volume"),
        time=TimeFormat("%Y%m%d %H%M%S%3f"),
    ),
    Shape(
        format="mt4",
        line=re.compile(rf"\d{{4}}\.\d\d\.\d\d,\d\d:\d\d(?:,{_NUMBER}){{5}}"),
        delimiter=",",
        header=("date", "time", *_BAR),
        time=TimeFormat("%Y.%m.%d %H:%M"),
    ),
    Shape(
        format="binance",
        line=re.compile(rf"(?:\d{{13}}|\d{{16}})(?:,{_NUMBER}){{11}}"),
        delimiter=",",
        header=(
            *("open_time", *_BAR, "close_time", "quote_volume", "count"),
            *("taker_buy_volume", "taker_buy_quote_volume", "ignore"),
        ),
        time=None,
    ),
)


def check_format(name: str) -> str:
    """Return `name` if it is a format, else raise a `ValidationError` that lists them."""
    if name in FORMATS:
        return name
    raise ValidationError(
        f"unknown format {name!r}{did_you_mean(name, FORMATS)} ({', '.join(FORMATS)})",
        path="$.format",
        expected=list(FORMATS),
        got=name,
    )


def binary_format(first_bytes: bytes) -> str | None:
    """Return `parquet` or `arrow`, or None for a file that must be text."""
    if first_bytes.startswith(b"PAR1"):
        return "parquet"
    return "arrow" if first_bytes.startswith((b"ARROW1", _ARROW_STREAM)) else None


def shape_of(lines: Sequence[str]) -> Shape | None:
    """Return the format without a header line that the first of `lines` in a known form belongs to.

    A file whose first line does not begin with a digit has a header line, unless that line itself has such a form.
    """
    candidates = lines if lines[0].strip()[:1].isdigit() else lines[:1]
    found = (shape for line in candidates for shape in SHAPES if shape.line.fullmatch(line.strip()))
    return next(found, None)


def headed_format(header: Sequence[str]) -> str:
    """Return the format of a file with a header line."""
    names = [_plain(name) for name in header]
    first = names[0] if names else ""
    if header and header[0].strip().upper() == "<DATE>":
        return "mt5"
    if first in ("gmttime", "localtime", "timeutc", "timeeet"):
        return "dukascopy"
    if first == "opentime" and "closetime" in names:
        return "binance"
    return "yahoo" if any(name in _ADJUSTED for name in names) else "csv"


def serves(found: str, asked: str) -> bool:
    """Return whether a file that looks like `found` may be read as `asked`."""
    if asked == "csv":
        return found in ("csv", *_HEADED)
    # HistData's files for MetaTrader look like MetaTrader's own, but their times are EST.
    return found == asked or (found == "csv" and asked in _HEADED) or (found == "mt4" and asked == "histdata")


def zone_of(format: str, header: Sequence[str]) -> str | None:
    """Return the IANA name of the zone in which the format has times without an offset, where it implies one."""
    if format == "histdata":
        return EST
    if format == "dukascopy":
        return "EET" if "timeeet" in map(_plain, header) else "UTC"
    return None


def blank_repeats(format: str, kind: Kind) -> bool:
    """Return whether an empty cell means the value above it: MetaTrader 5 writes only what changed of a quote."""
    return format == "mt5" and kind == "quotes"


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a file that are read, by number from 0.

    `time` has one number, or two: date and time. `fields` has the numbers of `open high low close volume` of bars, `bid
    ask` of quotes or `price size` of trades; `volume` and `size` may be missing.
    """

    kind: Kind
    time: tuple[int, ...]
    fields: Mapping[str, int]


def find_columns(header: Sequence[str], file: str) -> Columns:
    """Return the columns that `header` names, or raise an `UnusableFile` that names the missing ones.

    `file` is the name of the file, for messages.
    """
    names = [_plain(name) for name in header]
    doubled = [name for name, one in zip(header, names, strict=True) if names.count(one) > 1 and one]
    if doubled:
        raise UnusableFile(f"{file} has two columns of one name: {', '.join(doubled)}", line=1, columns=list(header))
    kind = _kind(names)
    time = _find(names, _TIME)
    found = {wanted: _find(names, aliases) for wanted, aliases in _FIELDS[kind].items()}
    missing = [wanted for wanted, position in found.items() if position is None and wanted not in _OPTIONAL]
    if time is None or missing:
        lacking = [*(["timestamp"] if time is None else []), *missing]
        raise UnusableFile(
            f"{file} has no column for {', '.join(lacking)} among {', '.join(header)}; expected are {EXPECTED_COLUMNS}",
            line=1,
            missing=lacking,
            columns=list(header),
        )
    fields = {wanted: position for wanted, position in found.items() if position is not None}
    times = (time, names.index("time")) if names[time] == "date" and "time" in names else (time,)
    return Columns(kind=kind, time=times, fields=fields)


def column_notes(header: Sequence[str], columns: Columns) -> list[str]:
    """Return the notes for a user about columns that are missing or are not read."""
    notes = []
    if columns.kind == "bars" and "volume" not in columns.fields:
        notes.append("no volume column: volume is 0")
    adjusted = [name for name in header if _plain(name) in _ADJUSTED]
    if adjusted:
        notes.append(f"column {adjusted[0]!r} is not used: prices are kept as they were traded, not adjusted")
    used = {*columns.time, *columns.fields.values()}
    ignored = [name for position, name in enumerate(header) if position not in used and name not in adjusted]
    if ignored:
        notes.append(f"columns not used: {', '.join(ignored)}")
    return notes


def _plain(name: str) -> str:
    """Return a name in lower case, without spaces, underscores, dots and brackets."""
    return re.sub(r"[\s_.<>()]", "", name).casefold()


def _kind(names: Sequence[str]) -> Kind:
    """Return bars, unless the names are those of ticks and not of open, high, low and close."""
    kinds: tuple[Kind, ...] = ("bars", "quotes", "trades")
    for kind in kinds:
        if all(_find(names, aliases) is not None for name, aliases in _FIELDS[kind].items() if name not in _OPTIONAL):
            return kind
    return "bars"


def _find(names: Sequence[str], aliases: Sequence[str]) -> int | None:
    return next((names.index(alias) for alias in aliases if alias in names), None)
