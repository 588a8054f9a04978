"""The layout of a text file, told from its first lines: which column is what, and how times are written."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence

import msgspec

from backtestr_protocol.errors import UnusableFile

from .columns import EXPECTED, Kind, find_columns
from .formats import FORMATS, blank_repeats, headed_format, serves, shape_of, zone_of
from .timestamps import KNOWN_FORMS, TimeFormat, time_format

_DELIMITERS = ",;\t|"


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where things stand. Column numbers count from 0; `time` has one of them, or two: date and time."""

    format: str
    kind: Kind
    header: tuple[str, ...]
    """The names of the columns, those that the format gives them where the file has none."""
    header_lines: int
    """How many lines come before the first row."""
    has_header: bool
    delimiter: str
    time: tuple[int, ...]
    fields: Mapping[str, int]
    """The columns that hold numbers, by what they mean."""
    written: TimeFormat
    zone: str | None
    """The zone that the format has its times in, where it says."""
    blank_repeats: bool
    notes: tuple[str, ...]

    def column_of(self, name: str) -> str:
        """What the file calls `timestamp`, `open`, `bid` and so on."""
        if name == "timestamp":
            return self.header[self.time[0]]
        return self.header[self.fields[name]] if name in self.fields else name


def detect_layout(lines: Sequence[str], blank: int, asked: str | None, file: str) -> Layout:
    """The layout told from the first lines, or an `UnusableFile` that says what is missing and what is expected.

    `lines` are not blank; so many as `blank` stand before them that are. `asked` is the format that the file is said to
    have, `file` its name, for messages.
    """
    first = lines[0].strip()
    shape = next(filter(None, map(shape_of, lines if first[:1].isdigit() else lines[:1])), None)
    if shape is None:
        delimiter = max(_DELIMITERS, key=first.count)
        header = tuple(_cells(lines[0], delimiter))
        _refuse_headless(header, asked, file)
        found, rows = headed_format(header), lines[1:]
    else:
        delimiter, header, found, rows = shape.delimiter, shape.header, shape.format, lines
    if asked is not None and not serves(found, asked):
        raise UnusableFile(
            f"{file} is no {asked} file, it looks like {found}; expected is {FORMATS[asked]}",
            path="$.format",
            got=asked,
            found=found,
        )
    columns = find_columns(header, file) if shape is None else shape.columns
    if not rows:
        raise UnusableFile(f"{file} has a header line and no bars", line=1)
    format = asked or found
    texts = [_time_text(row, delimiter, columns.time) for row in rows]
    written = shape.time if shape is not None else None
    written = written or next(filter(None, map(time_format, texts)), None)
    if written is None:
        line, column = blank + len(lines) - len(rows) + 1, header[columns.time[0]]
        raise UnusableFile(
            f"{file}, line {line}, column {column!r}: {texts[0]!r} is no time of a known form; "
            f"expected is {KNOWN_FORMS}",
            line=line,
            column=column,
            text=texts[0],
        )
    return Layout(
        format=format,
        kind=columns.kind,
        header=header,
        header_lines=blank + len(lines) - len(rows),
        has_header=shape is None,
        delimiter=delimiter,
        time=columns.time,
        fields=columns.fields,
        written=written,
        zone=zone_of(format, header),
        blank_repeats=blank_repeats(format, columns.kind),
        notes=columns.notes,
    )


def _time_text(line: str, delimiter: str, time: Sequence[int]) -> str:
    cells = _cells(line, delimiter)
    return " ".join(cells[position] for position in time if position < len(cells))


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]


def _refuse_headless(header: tuple[str, ...], asked: str | None, file: str) -> None:
    if sum(cell[:1].isdigit() for cell in header) * 2 > len(header):
        expected = EXPECTED if asked is None else f"{asked}: {FORMATS[asked]}"
        raise UnusableFile(
            f"{file} has no header line, and is of no format that has none: the first is {', '.join(header)}; "
            f"expected are {expected}",
            line=1,
            columns=list(header),
        )
