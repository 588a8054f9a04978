"""Which column is what, by the names in a header: the same for text and for Parquet and Arrow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from backtestr_protocol.errors import UnusableFile

Kind = Literal["bars", "quotes", "trades"]

EXPECTED = (
    "columns named time (or date and time), open, high, low, close and perhaps volume; "
    "or, of ticks, time, bid and ask, or time, price and perhaps size"
)

_TIME = (
    *("timestamp", "datetime", "opentime", "gmttime", "localtime", "timeutc", "timeeet", "date", "time"),
    *("indexlevel0", ""),  # the index as pandas writes it to Parquet and to CSV when it has no name
)
_VOLUME = ("volume", "tickvol", "tickvolume", "vol", "v")
# Names as `plain` leaves them, the likelier first.
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


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """Column numbers count from 0. `time` has one of them, or two: date and time. `fields` are the numbers: `open high
    low close volume` of bars, `bid ask` of quotes, `price size` of trades; `volume` and `size` may be missing."""

    kind: Kind
    time: tuple[int, ...]
    fields: Mapping[str, int]
    notes: tuple[str, ...]


def plain(name: str) -> str:
    """Lower case, without spaces, underscores, dots and brackets."""
    return re.sub(r"[\s_.<>()]", "", name).casefold()


def is_adjusted(header: Sequence[str]) -> bool:
    """Whether there is an adjusted close beside the close, as in Yahoo's files."""
    return any(plain(name) in _ADJUSTED for name in header)


def find_columns(header: Sequence[str], file: str) -> Columns:
    """What the columns are, or an `UnusableFile` that says what is missing. `file` is its name, for messages."""
    names = [plain(name) for name in header]
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
            f"{file} has no column for {', '.join(lacking)} among {', '.join(header)}; expected are {EXPECTED}",
            line=1,
            missing=lacking,
            columns=list(header),
        )
    fields = {wanted: position for wanted, position in found.items() if position is not None}
    times = (time, names.index("time")) if names[time] == "date" and "time" in names else (time,)
    return Columns(kind=kind, time=times, fields=fields, notes=_notes(header, names, kind, times, fields))


def _kind(names: Sequence[str]) -> Kind:
    """Bars, unless there are ticks and no open, high, low and close."""
    kinds: tuple[Kind, ...] = ("bars", "quotes", "trades")
    for kind in kinds:
        if all(_find(names, aliases) is not None for name, aliases in _FIELDS[kind].items() if name not in _OPTIONAL):
            return kind
    return "bars"


def _find(names: Sequence[str], aliases: Sequence[str]) -> int | None:
    return next((names.index(alias) for alias in aliases if alias in names), None)


def _notes(
    header: Sequence[str], names: Sequence[str], kind: Kind, time: Sequence[int], fields: Mapping[str, int]
) -> tuple[str, ...]:
    notes = []
    if kind == "bars" and "volume" not in fields:
        notes.append("no volume column: volume is 0")
    adjusted = [header[position] for position, name in enumerate(names) if name in _ADJUSTED]
    if adjusted:
        notes.append(f"column {adjusted[0]!r} is not used: prices are kept as they were traded, not adjusted")
    used = {*time, *fields.values()}
    ignored = [name for position, name in enumerate(header) if position not in used and name not in adjusted]
    if ignored:
        notes.append(f"columns not used: {', '.join(ignored)}")
    return tuple(notes)
