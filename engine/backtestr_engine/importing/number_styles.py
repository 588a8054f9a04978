"""Numbers as people and spreadsheets write them: 1.234,50 and 1,234.50, $99.75, 1 234,5, 56.79K.

The decimal mark is that of the whole file: 1,234 alone is a thousand or little more than one, and 1.234,50 beside it
decides. Numbers that Python's `float` reads are none of this module's concern, unless the decimal mark is a comma.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from backtestr_protocol.import_messages import DecimalMark

_SPACES = "[ \u00a0\u202f\u2009\u2019]"
_CURRENCY = "[$€£¥₹]"
_POWERS = {"K": "e3", "M": "e6", "B": "e9", "T": "e12"}
_OTHER: Mapping[DecimalMark, str] = {".": ",", ",": "."}


class AmbiguousNumbers(Exception):
    """The numbers of a file can be read with two decimal marks. The text names both, and the option that decides."""


def _grammar(decimal: DecimalMark, *, amount: bool) -> str:
    """Return the pattern of a number: digits, perhaps in groups of three (in India of two above the first thousand)."""
    mark, other = f"\\{decimal}", f"\\{_OTHER[decimal]}"
    groups = "|".join(f"\\d{{1,3}}(?:{one}\\d{{3}})+|\\d{{1,2}}(?:{one}\\d{{2}})+{one}\\d{{3}}" for one in (other, "'"))
    power = "(?: ?'?[KMBTkmbt])?" if amount else ""
    return f"^[+-]?(?:\\d+|{groups})(?:{mark}\\d*)?{power}$|^[+-]?{mark}\\d+$"


_GRAMMAR = {(decimal, amount): _grammar(decimal, amount=amount) for decimal in _OTHER for amount in (False, True)}


def _bare(cells: pl.Series) -> pl.Series:
    """Return the cells without currency signs, and with every sort of space within a number as an apostrophe."""
    bare = cells.str.strip_chars().str.replace(f"^([+-]?){_CURRENCY} ?([+-]?)", "${1}${2}")
    return bare.str.replace(f" ?{_CURRENCY}$", "").str.replace_all(_SPACES, "'")


def decimal_mark(columns: Iterable[pl.Series]) -> DecimalMark | None:
    """Return the decimal mark that the cells of all number columns together show; None where none is styled.

    Cells that are no numbers in either style decide nothing. Raises `AmbiguousNumbers` where nothing decides.
    """
    columns = list(columns)
    if not any(map(is_styled, columns)):
        return None
    dots = commas = 0
    doubtful = None
    for cells in map(_bare, columns):
        by_dot = cells.str.contains(_GRAMMAR[".", True])
        by_comma = cells.str.contains(_GRAMMAR[",", True])
        dots += int((by_dot & ~by_comma).sum())
        commas += int((by_comma & ~by_dot).sum())
        both = cells.filter(by_dot & by_comma & cells.str.contains("[.,]"))
        doubtful = both[0] if doubtful is None and len(both) else doubtful
    if dots or commas or doubtful is None:
        return "." if dots >= commas else ","
    readings = [_value(doubtful, decimal) for decimal in (".", ",")]
    raise AmbiguousNumbers(
        f"{doubtful!r} may be {readings[0]:.10g} (decimal point) or {readings[1]:.10g} (decimal comma), and no number "
        "of the file tells; say which: --decimal . or --decimal , (decimal)"
    )


def is_styled(cells: pl.Series) -> bool:
    """Return whether a cell is a number, and not as `float` reads it: with a currency sign, groups or a comma."""
    plain = cells.str.strip_chars().cast(pl.Float64, strict=False)
    odd = _bare(cells.filter(plain.is_null()))
    return bool(odd.str.contains(f"{_GRAMMAR['.', True]}|{_GRAMMAR[',', True]}").any())


def _value(bare: str, decimal: DecimalMark) -> float:
    return float(bare.replace(_OTHER[decimal], "").replace("'", "").replace(decimal, ".").rstrip("KMBTkmbt"))


def read_styled(cells: pl.Series, decimal: DecimalMark, *, amount: bool) -> pl.Series:
    """Return text as float64, null where it is no number with this decimal mark.

    An `amount`, a volume or size, may end with K, M, B or T: thousands, millions, billions, trillions.
    """
    bare = _bare(cells)
    bare = bare.set(~bare.str.contains(_GRAMMAR[decimal, amount]), None)
    bare = bare.str.replace_all(f"[{_OTHER[decimal]}' ]", "")
    if decimal == ",":
        bare = bare.str.replace(",", ".", literal=True)
    if amount:
        for letter, power in _POWERS.items():
            bare = bare.str.replace(f"(?i){letter}$", power)
    return bare.cast(pl.Float64, strict=False)
