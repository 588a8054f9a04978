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
from backtestr_protocol.import_messages import DateOrder, TimeUnit

from .timestamps import TimeFormat

Kind = Literal["bars", "quotes", "trades"]

EST = "Etc/GMT+5"
"""Five hours behind UTC all year: HistData's time, without daylight saving."""

FORMATS: Mapping[str, str] = {
    "arrow": "Arrow IPC file (Feather) or stream, with the columns of csv",
    "binance": "Binance klines: twelve columns, with or without a header line",
    "csv": "a header line that names time, open, high, low, close, volume (or bid, ask, last, volume, or price, size)",
    "dukascopy": "Dukascopy's CSV of bars or ticks: Gmt time, Open, High, Low, Close, Volume",
    "histdata": "HistData's ASCII bars or ticks, or its MetaTrader bars: EST without daylight saving",
    "mt4": "MetaTrader 4 export: date, time, open, high, low, close, volume, without a header line",
    "mt5": "MetaTrader 5 export of bars or ticks: <DATE>, <TIME>, <OPEN>, …",
    "nasdaq": "Nasdaq's historical data: Date, Close/Last, Volume, Open, High, Low, with the month first in dates",
    "parquet": "Parquet, with the columns of csv",
    "yahoo": "Yahoo Finance: Date, Open, High, Low, Close, Adj Close, Volume",
}
"""Every format by name, and how a file of it looks."""

EXPECTED_COLUMNS = (
    "columns named time (or date and time), open, high, low, close and perhaps volume; "
    "or, of ticks, time, bid and ask and perhaps last and volume, or time, price and perhaps size"
)

# The exports of these come with a plain header as well.
_HEADED = ("binance", "dukascopy", "mt5", "nasdaq", "yahoo")

_ARROW_STREAM = b"\xff\xff\xff\xff"
_NUMBER = r"\d+(?:\.\d+)?"

_TIME = (
    *("timestamp", "unix", "unixtimestamp", "unixtime", "epoch", "datetime", "opentime", "windowstart", "gmttime"),
    *(
        "localtime",
        "timeutc",
        "timeeet",
        "date",
        "dtyyyymmdd",
        "tradedate",
        "time",
        "t",
        "ts",
        "datetimeutc",
        "dateutc",
    ),
    *("starttime", "timeperiodstart", "begin", "day"),
    *("indexlevel0", ""),  # the index as pandas writes it to Parquet and to CSV when it has no name
)
_DATES = ("date", "dtyyyymmdd", "tradedate", "day")
"""Names of a column that a column of the time of day may go with."""
_VOLUME = ("volume", "tickvol", "tickvolume", "vol", "v", "tradedvolume", "totalvolume", "totaltradedquantity")
_VOLUME_OF = re.compile(r"volume(?!vwap|avg|mean|sma|ema)[a-z]{3,5}")
"""Names of a volume with what it is counted in: CryptoDataDownload's `Volume BTC`."""
_CLOSE_AS = ("closelast", "last", "lastprice", "price", "settle", "settlement", "settleprice", "settlementprice")
"""Names of a column that is taken as close where there is an open, a high and a low, and no close."""
# Names as `plain_name` leaves them, the likelier first.
_FIELDS: Mapping[Kind, Mapping[str, Sequence[str]]] = {
    "bars": {
        "open": ("open", "o", "openprice"),
        "high": ("high", "h", "highprice"),
        "low": ("low", "l", "lowprice"),
        "close": ("close", "c", "closeprice", *_CLOSE_AS),
        "volume": _VOLUME,
    },
    "quotes": {
        "bid": ("bid", "bidprice"),
        "ask": ("ask", "askprice", "offer"),
        "last": ("last", "lastprice"),
        "volume": _VOLUME,
    },
    "trades": {"price": ("price", "last", "lastprice", "tradeprice"), "size": ("size", "qty", "quantity", *_VOLUME)},
}
_SYMBOL = (
    *(
        "symbol",
        "ticker",
        "tickersymbol",
        "tic",
        "code",
        "stockcode",
        "instrument",
        "instrumentid",
        "asset",
        "security",
    ),
    *("securityid", "secid", "ric", "isin", "figi", "cusip", "permno", "pair", "contract", "contractcode", "name"),
    *("stock", "stockname", "company", "coin", "product", "market", "actsymbol", "currencypair", "underlying", "sym"),
)
_OPTIONAL = ("volume", "size", "last")
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
    names = [plain_name(name) for name in header]
    first = names[0] if names else ""
    if "closelast" in names:
        return "nasdaq"
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
        return "EET" if "timeeet" in map(plain_name, header) else "UTC"
    return None


def usual_order(format: str) -> DateOrder | None:
    """Return the order of day and month that the format has in dates with slashes, where it implies one."""
    return "mdy" if format == "nasdaq" else None


def blank_repeats(format: str, kind: Kind) -> bool:
    """Return whether an empty cell means the value above it: MetaTrader 5 writes only what changed of a quote."""
    return format == "mt5" and kind == "quotes"


def may_be_blank(kind: Kind, field: str) -> bool:
    """Return whether an empty cell means that there is none: a quote that is no trade has no last price."""
    return kind == "quotes" and field in ("last", "volume")


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a file that are read, by number from 0.

    `time` has one number, or two: date and time. `fields` has the numbers of `open high low close volume` of bars, `bid
    ask last volume` of quotes or `price size` of trades; `volume`, `size` and `last` may be missing. `unit` is the unit
    that the name of the time column has, as `ts_ms` does.
    """

    kind: Kind
    time: tuple[int, ...]
    fields: Mapping[str, int]
    unit: TimeUnit | None = None


def names_columns(header: Sequence[str]) -> bool:
    """Return whether `header` names the columns of bars or ticks."""
    try:
        find_columns(header, "")
    except UnusableFile:
        return False
    return True


def is_time_name(name: str) -> bool:
    """Return whether a column of that name has times."""
    return _time_name(name)[0] in _TIME


def find_columns(header: Sequence[str], file: str, line: int = 1) -> Columns:
    """Return the columns that `header` names, or raise an `UnusableFile` that names the missing ones.

    `file` is the name of the file and `line` the line of the header, for messages.
    """
    names = [plain_name(name) for name in header]
    doubled = [name for name, one in zip(header, names, strict=True) if names.count(one) > 1 and one]
    if doubled:
        raise UnusableFile(f"{file} has two columns of one name: {', '.join(doubled)}", line=line, columns=list(header))
    kind = _kind(names)
    time = _find_time(header)
    found = {wanted: _find(names, aliases) for wanted, aliases in _FIELDS[kind].items()}
    if kind == "bars" and found["volume"] is None:
        found["volume"] = next((at for at, name in enumerate(names) if _VOLUME_OF.fullmatch(name)), None)
    missing = [wanted for wanted, position in found.items() if position is None and wanted not in _OPTIONAL]
    if time is None or missing:
        lacking = [*(["timestamp"] if time is None else []), *missing]
        raise UnusableFile(
            f"{file} has no column for {', '.join(lacking)} among {', '.join(header)}; expected are {EXPECTED_COLUMNS}",
            line=line,
            missing=lacking,
            columns=list(header),
        )
    fields = {wanted: position for wanted, position in found.items() if position is not None}
    if kind == "quotes" and "last" not in fields:
        fields.pop("volume", None)  # the volume of a tick is that of a trade
    times = (time, names.index("time")) if names[time] in _DATES and "time" in names else (time,)
    return Columns(kind=kind, time=times, fields=fields, unit=_time_name(header[time])[1])


def find_symbol_column(header: Sequence[str], used: Sequence[int], asked: str | None) -> int | None:
    """Return the column that names the symbol of each row, None where there is none; `asked` is the one named for it.

    Columns in `used` have another meaning. Raises `ValidationError` for a name that is no column's.
    """
    names = [plain_name(name) for name in header]
    if asked is None:
        found = (at for name in _SYMBOL for at, one in enumerate(names) if one == name and at not in used)
        return next(found, None)
    exact = [at for at, name in enumerate(header) if name == asked]
    near = [at for at, name in enumerate(names) if name == plain_name(asked)]
    if exact or near:
        return (exact or near)[0]
    raise ValidationError(
        f"there is no column {asked!r}{did_you_mean(asked, header)} ({', '.join(header)})",
        path="$.symbolColumn",
        expected=list(header),
        got=asked,
    )


def column_notes(header: Sequence[str], columns: Columns, symbols: int | None) -> list[str]:
    """Return the notes for a user about columns that are missing, are not read, or are taken for another.

    `symbols` is the column of the symbols, where that is read.
    """
    notes = []
    fields = columns.fields
    if columns.kind == "bars" and "volume" not in fields:
        notes.append("no volume column: volume is 0")
    for wanted, plain in (("close", _CLOSE_AS[1:]), ("volume", None)):
        name = header[fields[wanted]] if columns.kind == "bars" and wanted in fields else wanted
        taken = plain_name(name) in plain if plain is not None else plain_name(name) not in _VOLUME
        if taken:
            notes.append(f"column {name!r} is taken as {wanted}")
    adjusted = [name for name in header if plain_name(name) in _ADJUSTED]
    if adjusted:
        notes.append(f"column {adjusted[0]!r} is not used: prices are kept as they were traded, not adjusted")
    used = {*columns.time, *fields.values(), symbols}
    ignored = [name for position, name in enumerate(header) if position not in used and name not in adjusted]
    if ignored:
        notes.append(f"columns not used: {', '.join(ignored)}")
    return notes


def plain_name(name: str) -> str:
    """Return a name in lower case, without spaces, punctuation, and a number before it (Alpha Vantage's `1. open`)."""
    return re.sub(r"[\s_.<>()\[\]*/-]", "", re.sub(r"^\s*\d+[a-z]?\.\s+", "", name)).casefold()


# A unit at the end of a column's name, behind a separator or as a part of a name in camel case.
_UNIT_NAMES: Mapping[str, TimeUnit] = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "milli", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "\u00b5s", "usec", "micro", "micros", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("ns", "nsec", "nano", "nanos", "nanosecond", "nanoseconds"), "ns"),
}
_WITH_UNIT = re.compile(r"(?:(.*[^\W_])[\s_.(\[-]+(\w+)[)\]]?|(.*[a-z])([MUN]s|Sec|Millis|Micros|Nanos))")


def _time_name(name: str) -> tuple[str, TimeUnit | None]:
    """Return the plain name of a column of times without the unit at its end, and that unit."""
    match = _WITH_UNIT.fullmatch(name.strip())
    if match is not None:
        unit = _UNIT_NAMES.get((match[2] or match[4]).casefold())
        if unit is not None:
            return plain_name(match[1] or match[3]), unit
    plain = plain_name(name)
    return plain, "ns" if plain == "windowstart" else None


def _find_time(header: Sequence[str]) -> int | None:
    """Return the column of the times: the likeliest name, one without a unit before one with it."""
    names = [_time_name(name) for name in header]
    for wanted in _TIME:
        found = [at for at, (plain, _) in enumerate(names) if plain == wanted]
        if found:
            return min(found, key=lambda at: (plain_name(header[at]) != wanted, at))
    return None


def _kind(names: Sequence[str]) -> Kind:
    """Return bars, unless the names are those of ticks and not of open, high, low and close."""
    kinds: tuple[Kind, ...] = ("bars", "quotes", "trades")
    for kind in kinds:
        if all(_find(names, aliases) is not None for name, aliases in _FIELDS[kind].items() if name not in _OPTIONAL):
            return kind
    return "bars"


def _find(names: Sequence[str], aliases: Sequence[str]) -> int | None:
    return next((names.index(alias) for alias in aliases if alias in names), None)
