"""The layout of a CSV file of bars: which column is what and how its times are written, from its first two lines."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence

import msgspec
import polars as pl

from backtestr_protocol.errors import DataError

EXPECTED = "a header line naming time (or date and time), open, high, low, close, perhaps volume, then one bar a line"

_DELIMITERS = ",;\t|"
_PRICES = ("open", "high", "low", "close")

# Names as `_plain` leaves them: lower case, without spaces, underscores, dots and angle brackets.
# The last of the times is the index that pandas writes without a name.
_ALIASES: Mapping[str, Sequence[str]] = {
    "timestamp": ("timestamp", "datetime", "opentime", "gmttime", "localtime", "timeutc", "date", "time", ""),
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l"),
    "close": ("close", "c"),
    "volume": ("volume", "vol", "v", "tickvol", "tickvolume"),
}
_ADJUSTED = ("adjclose", "adjustedclose")

_ISO = re.compile(
    r"\d{4}(?P<dash>[-/.]?)\d\d(?P=dash)\d\d"
    r"(?:(?P<gap>[T ])\d\d(?P<colon>:?)\d\d(?P<seconds>(?P=colon)\d\d(?:\.\d+)?)?(?P<zone>Z|[+-]\d\d:?\d\d)?)?"
)
_EPOCH_UNITS: Mapping[int, str] = {10: "s", 13: "ms", 16: "us", 19: "ns"}
"""Digits of an integer time since the epoch, from 2001 to 2286, and its unit."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where things stand. Column numbers count from 0; `time` has one of them, or two: date and time."""

    header: tuple[str, ...]
    delimiter: str
    time: tuple[int, ...]
    prices: tuple[int, int, int, int]
    volume: int | None
    time_format: str
    """strptime's, or `epoch:ms` and the like."""
    zoned: bool
    """Whether times say which instant they are, by an offset or by counting from the epoch."""
    notes: tuple[str, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """Columns that hold numbers, in the order open, high, low, close, volume."""
        return self.prices if self.volume is None else (*self.prices, self.volume)

    def column_of(self, name: str) -> str:
        """What the file calls `timestamp`, `open`, `high`, `low`, `close` or `volume`."""
        if name == "timestamp":
            return self.header[self.time[0]]
        position = self.volume if name == "volume" else self.prices[_PRICES.index(name)]
        return name if position is None else self.header[position]


def detect_layout(header_line: str, first_line: str, file: str) -> Layout:
    """The layout, or a `DataError` that says what is missing and what is expected. `file` is its name, for messages."""
    delimiter = max(_DELIMITERS, key=header_line.count)
    header = tuple(cell.strip() for cell in next(csv.reader([header_line], delimiter=delimiter), []))
    plain = [_plain(name) for name in header]
    _refuse_other_data(header, plain, file)
    found = {wanted: _find(plain, aliases) for wanted, aliases in _ALIASES.items()}
    missing = [wanted for wanted in ("timestamp", *_PRICES) if found[wanted] is None]
    if missing:
        raise DataError(
            f"{file} has no column for {', '.join(missing)} among {', '.join(header)}; expected is {EXPECTED}",
            line=1,
            missing=missing,
            columns=list(header),
        )
    positions = {wanted: position for wanted, position in found.items() if position is not None}
    time: tuple[int, ...] = (positions["timestamp"],)
    if plain[time[0]] == "date" and "time" in plain:
        time = (time[0], plain.index("time"))
    cells = next(csv.reader([first_line], delimiter=delimiter), [])
    text = " ".join(cells[position].strip() for position in time if position < len(cells))
    time_format, zoned = _time_format(text, header[time[0]], file)
    return Layout(
        header=header,
        delimiter=delimiter,
        time=time,
        prices=(positions["open"], positions["high"], positions["low"], positions["close"]),
        volume=positions.get("volume"),
        time_format=time_format,
        zoned=zoned,
        notes=tuple(_notes(header, plain, {*time, *positions.values()}, "volume" in positions)),
    )


def parse_times(text: pl.Series, layout: Layout, time_zone: str | None) -> pl.Series:
    """Times as datetime[us, UTC], null where the text is none in the layout's format or, read in `time_zone` (UTC when
    None), names no instant or two."""
    if layout.time_format.startswith("epoch:"):
        unit = layout.time_format.removeprefix("epoch:")
        numbers = text.cast(pl.Int64, strict=False)
        per_us = {"s": 1_000_000, "ms": 1_000}.get(unit, 1)
        us = numbers // 1_000 if unit == "ns" else numbers * per_us
        return us.cast(pl.Datetime("us", "UTC"))
    if layout.zoned:
        zoned = text.str.to_datetime(layout.time_format, time_unit="us", time_zone="UTC", strict=False)
        return zoned
    naive = text.str.to_datetime(layout.time_format, time_unit="us", strict=False)
    local = naive.dt.replace_time_zone(time_zone or "UTC", ambiguous="null", non_existent="null")
    return local.dt.convert_time_zone("UTC")


def _plain(name: str) -> str:
    return re.sub(r"[\s_.<>()]", "", name).casefold()


def _find(plain: Sequence[str], aliases: Sequence[str]) -> int | None:
    return next((plain.index(alias) for alias in aliases if alias in plain), None)


def _refuse_other_data(header: Sequence[str], plain: Sequence[str], file: str) -> None:
    if sum(cell[:1].isdigit() for cell in header) * 2 > len(header):
        raise DataError(
            f"{file} has no header line: the first is {', '.join(header)}; expected is {EXPECTED}",
            line=1,
            columns=list(header),
        )
    if "bid" in plain and "ask" in plain and not set(_PRICES) <= set(plain):
        raise DataError(
            f"{file} holds quotes ({', '.join(header)}), not bars; expected is {EXPECTED}",
            line=1,
            columns=list(header),
        )
    doubled = [name for name, one in zip(header, plain, strict=True) if plain.count(one) > 1 and one]
    if doubled:
        raise DataError(f"{file} has two columns of one name: {', '.join(doubled)}", line=1, columns=list(header))


def _time_format(text: str, column: str, file: str) -> tuple[str, bool]:
    if text.isdigit() and len(text) in _EPOCH_UNITS:
        return f"epoch:{_EPOCH_UNITS[len(text)]}", True
    match = _ISO.fullmatch(text)
    if match is None:
        raise DataError(
            f"{file}, line 2, column {column!r}: {text!r} is no time of a known form; expected is year, month, day and "
            "perhaps hour, minute, second, offset, as in 2022-01-03 09:30:00+00:00, or a count since 1970",
            line=2,
            column=column,
            text=text,
        )
    dash, colon = match["dash"], match["colon"]
    date = f"%Y{dash}%m{dash}%d"
    if match["gap"] is None:
        return date, False
    clock = f"%H{colon}%M" + (f"{colon}%S%.f" if match["seconds"] else "")
    zone = "" if match["zone"] is None else ("Z" if match["zone"] == "Z" else "%z")
    return f"{date}{match['gap']}{clock}{zone}", bool(zone)


def _notes(header: Sequence[str], plain: Sequence[str], used: set[int], has_volume: bool) -> list[str]:
    notes = []
    if not has_volume:
        notes.append("no volume column: volume is 0")
    adjusted = [header[position] for position, name in enumerate(plain) if name in _ADJUSTED]
    if adjusted:
        notes.append(f"column {adjusted[0]!r} is not used: prices are kept as they were traded, not adjusted")
    ignored = [name for position, name in enumerate(header) if position not in used and name not in adjusted]
    if ignored:
        notes.append(f"columns not used: {', '.join(ignored)}")
    return notes
