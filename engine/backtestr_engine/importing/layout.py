"""The layout of a file, found in the second stage of an import: which column is what, and how times are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from backtestr_protocol.errors import UnusableFile
from backtestr_protocol.import_messages import DecimalMark, ImportMarketData

from .formats import Kind, blank_repeats, column_notes, find_columns, find_symbol_column, usual_order, zone_of
from .sources import TableFile, TextFile
from .timestamps import KNOWN_FORMS, TimeFormat, TimeOptions, time_format


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a file, by number from 0, and what their cells mean."""

    kind: Kind
    time: tuple[int, ...]
    """One column, or two: date and time."""
    fields: Mapping[str, int]
    """The columns that hold numbers, by what they mean (`formats.Columns`)."""
    names: Mapping[str, str]
    """The file's names for `timestamp` and the fields."""
    written: TimeFormat | None
    """The format of times in a text; None for a table."""
    zone: str | None
    """The zone that the format has its times in, where it says so."""
    blank_repeats: bool
    """An empty cell means the value above it."""
    notes: Sequence[str]
    """Notes about columns, for the answer."""
    times: TimeOptions = TimeOptions()
    decimal: DecimalMark | None = None
    """The decimal mark that was asked for."""
    symbols: int | None = None
    """The column that names the symbol of each row, where there is one."""


def find_layout(file: TextFile | TableFile, request: ImportMarketData) -> Layout:
    """Return the layout that the names of columns, the first rows and the request show.

    Raises `UnusableFile` for a file that lacks a column, has no row, or has times of no known form, and
    `ValidationError` for a column of symbols that it does not have.
    """
    has_header = isinstance(file, TableFile) or file.has_header
    is_text = isinstance(file, TextFile)
    columns = find_columns(file.header, file.name, file.header_line if isinstance(file, TextFile) else 1)
    symbols = None
    if has_header or request.symbol_column is not None:
        symbols = find_symbol_column(file.header, (*columns.time, *columns.fields.values()), request.symbol_column)
    read_symbols = symbols if request.symbol_column is not None else None
    zone = zone_of(file.format, file.header) if is_text else None
    return Layout(
        kind=columns.kind,
        time=columns.time,
        fields=columns.fields,
        names={
            "timestamp": file.header[columns.time[0]],
            **{name: file.header[position] for name, position in columns.fields.items()},
        },
        written=_time_format(file, columns.time) if isinstance(file, TextFile) else None,
        zone=zone,
        blank_repeats=is_text and blank_repeats(file.format, columns.kind),
        notes=column_notes(file.header, columns, read_symbols) if has_header else (),
        times=TimeOptions(
            zone=request.time_zone or zone,
            unit=request.time_unit,
            named=columns.unit,
            order=request.date_order,
            usual=usual_order(file.format),
        ),
        decimal=request.decimal,
        symbols=symbols,
    )


def _time_format(file: TextFile, time: Sequence[int]) -> TimeFormat:
    if not file.first_rows:
        raise UnusableFile(f"{file.name} has a header line and no bars", line=file.header_line)
    if file.time is not None:
        return file.time
    texts = [" ".join(row[position] for position in time if position < len(row)) for row in file.first_rows]
    written = time_format(texts)
    if written is None:
        line, column = file.header_lines + 1, file.header[time[0]]
        raise UnusableFile(
            f"{file.name}, line {line}, column {column!r}: {texts[0]!r} is no time of a known form; "
            f"expected is {KNOWN_FORMS}",
            line=line,
            column=column,
            text=texts[0],
        )
    return written
