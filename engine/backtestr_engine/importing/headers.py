"""The header of a text file: which line it is, which separator it has, and what stands above it."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

import msgspec

from backtestr_protocol.errors import UnusableFile

from .formats import is_time_name, names_columns

DELIMITERS = ",;\t|"

_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_LINES_LOOKED_AT = 10
_SHOWN_CHARACTERS = 60


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The header of a text: its names, and the number of lines down to it, its own ones included.

    Lines are those that are not blank.
    """

    delimiter: str
    names: tuple[str, ...]
    lines: int
    notes: Sequence[str] = ()


def find_head(lines: Sequence[str], file: str) -> Head:
    """Return the header that the first lines of a text have; `file` is its name, for messages.

    A line above the header may be an address or a title: it has fewer cells than the header. Where no line names the
    columns of bars or ticks, the first one is the header. Raises `UnusableFile` for the columns of several symbols side
    by side.
    """
    named = _SEPARATOR_LINE.fullmatch(lines[0].strip())
    begin = 1 if named and len(lines) > 1 else 0
    forced = named[1] if named and begin else None
    found = _three_lines(lines, begin, forced, file)
    if found is not None:
        return found
    for at in range(begin, min(len(lines), begin + _LINES_LOOKED_AT)):
        delimiter = forced or delimiter_of(lines[at])
        names = tuple(cells_of(lines[at], delimiter))
        above = lines[begin:at]
        if names_columns(names) and all(len(cells_of(line, delimiter)) < len(names) for line in above):
            return Head(delimiter=delimiter, names=names, lines=at + 1, notes=[_skipped(line) for line in above])
    delimiter = forced or delimiter_of(lines[begin])
    return Head(delimiter=delimiter, names=tuple(cells_of(lines[begin], delimiter)), lines=begin + 1)


def _three_lines(lines: Sequence[str], begin: int, forced: str | None, file: str) -> Head | None:
    """Return the header of three lines that pandas writes: fields and symbols, and the name of the times alone."""
    if len(lines) < begin + 3:
        return None
    delimiter = forced or delimiter_of(lines[begin])
    first, second, third = (cells_of(line, delimiter) for line in lines[begin : begin + 3])
    if len(third) < 2 or not third[0] or not is_time_name(third[0]) or any(third[1:]):
        return None
    if not len(first) == len(second) == len(third):
        return None
    for fields, symbols in ((first, second), (second, first)):
        distinct = list(dict.fromkeys(symbols[1:]))
        of_one = [name for name, symbol in zip(fields[1:], symbols[1:], strict=True) if symbol == distinct[0]]
        if not names_columns((third[0], *of_one)):
            continue
        if len(distinct) > 1:
            raise UnusableFile(
                f"{file} holds several symbols side by side, in the columns of {', '.join(distinct[:20])}; write a "
                "file for each, or one with a column for the symbol (in pandas: frame.stack(level=1))",
                line=begin + 2,
                values=distinct[:20],
            )
        names = (third[0], *fields[1:])
        note = f"the header has three lines; the columns are those of {distinct[0]}"
        return Head(delimiter=delimiter, names=names, lines=begin + 3, notes=[note])
    return None


def _skipped(line: str) -> str:
    text = line.strip()
    shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
    return f"a line above the header is not used: {shown}"


def delimiter_of(line: str) -> str:
    """Return the separator that stands most often in `line`."""
    return max(DELIMITERS, key=line.strip().count)


def cells_of(line: str, delimiter: str) -> list[str]:
    """Return the cells of a line, without spaces around them. Raises `csv.Error` where `csv` cannot cut it."""
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
