"""The formats of files that can be imported, and what tells them from each other.

Files with a header line are told by the names in it, files without one by the shape of their first line, Parquet and
Arrow by their first bytes. What a format implies (the zone of its times, the names of columns that have none) is here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from backtestr_protocol.errors import ValidationError, did_you_mean

from .columns import Columns, Kind, is_adjusted, plain
from .timestamps import TimeFormat

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

# A plain header serves for these too: their own exports come in such a form as well.
_HEADED = ("binance", "dukascopy", "mt5", "yahoo")

_ARROW_STREAM = b"\xff\xff\xff\xff"
_NUMBER = r"\d+(?:\.\d+)?"


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A format without a header line: what its lines look like, and what the columns would be called."""

    format: str
    line: re.Pattern[str]
    delimiter: str
    header: tuple[str, ...]
    columns: Columns
    time: TimeFormat | None
    """None: told from the first line."""


def _bars(time: int) -> Columns:
    fields = {name: time + index for index, name in enumerate(("open", "high", "low", "close", "volume"))}
    return Columns(kind="bars", time=tuple(range(time)), fields=fields, notes=())


_BAR = ("open", "high", "low", "close", "volume")
SHAPES = (
    Shape(
        format="histdata",
        line=re.compile(rf"\d{{8}} \d{{6}}(?:;{_NUMBER}){{5}}"),
        delimiter=";",
        header=("time", *_BAR),
        columns=_bars(1),
        time=TimeFormat("%Y%m%d %H%M%S"),
    ),
    Shape(
        format="histdata",
        line=re.compile(rf"\d{{8}} \d{{9}}(?:,{_NUMBER}){{3}}"),
        delimiter=",",
        header=("time", "bid", "ask", "volume"),
        columns=Columns(kind="quotes", time=(0,), fields={"bid": 1, "ask": 2}, notes=()),
        time=TimeFormat("%Y%m%d %H%M%S%3f"),
    ),
    Shape(
        format="mt4",
        line=re.compile(rf"\d{{4}}\.\d\d\.\d\d,\d\d:\d\d(?:,{_NUMBER}){{5}}"),
        delimiter=",",
        header=("date", "time", *_BAR),
        columns=_bars(2),
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
        columns=_bars(1),
        time=None,
    ),
)


def check_format(name: str) -> str:
    """`name` if it is a format, else a `ValidationError` that lists them."""
    if name in FORMATS:
        return name
    raise ValidationError(
        f"unknown format {name!r}{did_you_mean(name, FORMATS)} ({', '.join(FORMATS)})",
        path="$.format",
        expected=list(FORMATS),
        got=name,
    )


def binary_format(first_bytes: bytes) -> str | None:
    """`parquet` or `arrow`; None of a file that must be text."""
    if first_bytes.startswith(b"PAR1"):
        return "parquet"
    return "arrow" if first_bytes.startswith((b"ARROW1", _ARROW_STREAM)) else None


def shape_of(line: str) -> Shape | None:
    """The format without a header line that the line belongs to."""
    return next((shape for shape in SHAPES if shape.line.fullmatch(line.strip())), None)


def headed_format(header: Sequence[str]) -> str:
    """The format of a file with a header line."""
    first = plain(header[0]) if header else ""
    if header and header[0].strip().upper() == "<DATE>":
        return "mt5"
    if first in ("gmttime", "localtime", "timeutc", "timeeet"):
        return "dukascopy"
    if first == "opentime" and "closetime" in map(plain, header):
        return "binance"
    return "yahoo" if is_adjusted(header) else "csv"


def serves(found: str, asked: str) -> bool:
    """Whether a file that looks like `found` may be read as `asked`."""
    if asked == "csv":
        return found in ("csv", *_HEADED)
    # HistData's files for MetaTrader look like MetaTrader's own, and are EST all the same.
    return found == asked or (found == "csv" and asked in _HEADED) or (found == "mt4" and asked == "histdata")


def zone_of(format: str, header: Sequence[str]) -> str | None:
    """The zone of times without an offset, where the format says: an IANA name."""
    if format == "histdata":
        return EST
    if format == "dukascopy":
        return "EET" if "timeeet" in map(plain, header) else "UTC"
    return None


def blank_repeats(format: str, kind: Kind) -> bool:
    """Whether an empty cell means what the row before had: MetaTrader 5 writes only what changed of a quote."""
    return format == "mt5" and kind == "quotes"
