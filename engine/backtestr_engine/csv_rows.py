"""Reading the rows of a text file: fast where they are in order, line by line to say what is not.

Both ways give a frame of `timestamp` (datetime[us, UTC]) and the layout's fields (float64) by name.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from itertools import islice

import msgspec
import polars as pl

from .csv_layout import Layout
from .written_times import parse_times


class Malformed(msgspec.Struct, frozen=True):
    """A cell, or a whole line, that cannot be read. Lines count from 1, a header being the first."""

    line: int
    column: str
    text: str
    reason: str


class Rows(msgspec.Struct, frozen=True):
    """The rows that can be read, what cannot be, and the lines of the former where that took counting them."""

    frame: pl.DataFrame
    malformed: Sequence[Malformed] = ()
    lines: Sequence[int] | None = None


def read_rows(content: bytes, layout: Layout, time_zone: str | None) -> Rows:
    """All rows of the file; `time_zone` (UTC when None) is that of times without an offset."""
    frame = _read_fast(content, layout, time_zone)
    return _read_line_by_line(content, layout, time_zone) if frame is None else Rows(frame)


def line_numbers(content: bytes, layout: Layout) -> list[int]:
    """The line of every row, counted from 1 with the header, blank lines included."""
    return [line for line, _ in _lines(content, layout)]


def _read_fast(content: bytes, layout: Layout, time_zone: str | None) -> pl.DataFrame | None:
    """What polars makes of it; None as soon as anything is out of order."""
    names = [str(position) for position in range(len(layout.header))]
    numbers = set(layout.fields.values())
    schema = {name: pl.Float64() if position in numbers else pl.String() for position, name in enumerate(names)}
    skipped = layout.header_lines
    try:
        rows = pl.read_csv(content, separator=layout.delimiter, has_header=False, skip_rows=skipped, schema=schema)
    except pl.exceptions.PolarsError:
        return None
    rows = rows.select(names[position] for position in (*layout.time, *layout.fields.values()))
    rows = rows.filter(~pl.all_horizontal(pl.all().is_null()))
    if layout.blank_repeats:
        rows = rows.with_columns(pl.col(pl.Float64).forward_fill())
    if sum(rows.null_count().row(0)):
        return None
    time = [rows[names[position]] for position in layout.time]
    text = time[0] if len(time) == 1 else time[0] + " " + time[1]
    timestamp = parse_times(text, layout.written, time_zone)
    if timestamp.null_count():
        return None
    fields = [rows[names[position]].alias(name) for name, position in layout.fields.items()]
    return pl.DataFrame([timestamp.alias("timestamp"), *fields]).rechunk()


def _read_line_by_line(content: bytes, layout: Layout, time_zone: str | None) -> Rows:
    malformed: list[Malformed] = []
    lines: list[int] = []
    times: list[str] = []
    numbers: list[list[float]] = []
    before = [""] * len(layout.header)
    for line, cells in _lines(content, layout):
        if len(cells) != len(layout.header):
            malformed.append(_wrong_count(line, cells, layout))
            continue
        if layout.blank_repeats:
            cells = [cell if cell.strip() else last for cell, last in zip(cells, before, strict=True)]
            before = cells
        values = {position: _number(cells[position]) for position in layout.fields.values()}
        bad = [position for position, value in values.items() if value is None]
        malformed += [Malformed(line, layout.header[position], cells[position], "is not a number") for position in bad]
        lines.append(line)
        times.append(" ".join(cells[position].strip() for position in layout.time))
        numbers.append([math.nan if value is None else value for value in values.values()])
    text = pl.Series(times, dtype=pl.String)
    timestamp = parse_times(text, layout.written, time_zone)
    written = parse_times(text, layout.written, None) if time_zone else timestamp
    column = layout.column_of("timestamp")
    for row in timestamp.is_null().arg_true():
        reason = f"is no time like the others ({layout.written.pattern})"
        if written[row] is not None:
            reason = f"does not exist, or exists twice, in {time_zone}"
        malformed.append(Malformed(lines[row], column, times[row], reason))
    fields = {name: [row[index] for row in numbers] for index, name in enumerate(layout.fields)}
    schema = dict.fromkeys(layout.fields, pl.Float64())
    frame = pl.DataFrame([timestamp.alias("timestamp"), *pl.DataFrame(fields, schema=schema)])
    at_fault = {one.line for one in malformed}
    readable = pl.Series([line not in at_fault for line in lines], dtype=pl.Boolean)
    return Rows(
        frame.filter(readable),
        sorted(malformed, key=lambda one: one.line),
        [line for line in lines if line not in at_fault],
    )


def _wrong_count(line: int, cells: Sequence[str], layout: Layout) -> Malformed:
    header = layout.header
    expected = f"the header {len(header)}" if layout.has_header else f"{layout.format} has {len(header)}"
    counts = f"the line has {len(cells)} fields and {expected}"
    if len(cells) < len(header):
        return Malformed(line, header[len(cells)], "", f"is missing: {counts}")
    return Malformed(line, header[-1], cells[-1], f"is one too many: {counts}")


def _lines(content: bytes, layout: Layout) -> list[tuple[int, list[str]]]:
    """Line numbers and cells of every line after the header that is not blank."""
    reader = csv.reader(io.StringIO(content.decode(), newline=""), delimiter=layout.delimiter)
    rows = islice(reader, layout.header_lines, None)
    return [(reader.line_num, cells) for cells in rows if cells and any(cell.strip() for cell in cells)]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
