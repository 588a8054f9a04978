"""Reading the rows of a CSV file of bars: fast where they are in order, line by line to say what is not.

Both ways give a frame of `timestamp` (datetime[us, UTC]), `open high low close` and, where there is one, `volume`.
"""

from __future__ import annotations

import csv
import io
import math

import msgspec
import polars as pl

from backtestr_protocol.errors import DataError

from .bars import FIRST_ROWS
from .csv_layout import Layout, parse_times

NUMBERS = ("open", "high", "low", "close", "volume")


class Malformed(msgspec.Struct, frozen=True):
    """A cell, or a whole line, that cannot be read. Lines count from 1, the header being the first."""

    line: int
    column: str
    text: str
    reason: str


def read_rows(content: bytes, layout: Layout, time_zone: str | None, file: str) -> pl.DataFrame:
    """All rows, or a `DataError` that names line, column, text and reason of the first that is malformed."""
    frame = _read_fast(content, layout, time_zone)
    return _read_line_by_line(content, layout, time_zone, file) if frame is None else frame


def line_numbers(content: bytes, layout: Layout) -> list[int]:
    """The line of every row, counted from 1 with the header, blank lines included."""
    return [line for line, _ in _lines(content, layout)]


def _read_fast(content: bytes, layout: Layout, time_zone: str | None) -> pl.DataFrame | None:
    """What polars makes of it; None as soon as anything is out of order."""
    names = [str(position) for position in range(len(layout.header))]
    schema = {name: pl.Float64() if position in layout.numbers else pl.String() for position, name in enumerate(names)}
    try:
        rows = pl.read_csv(content, separator=layout.delimiter, has_header=False, skip_rows=1, schema=schema)
    except pl.exceptions.PolarsError:
        return None
    rows = rows.select(names[position] for position in (*layout.time, *layout.numbers))
    rows = rows.filter(~pl.all_horizontal(pl.all().is_null()))
    if sum(rows.null_count().row(0)):
        return None
    time = [rows[names[position]] for position in layout.time]
    text = time[0] if len(time) == 1 else time[0] + " " + time[1]
    timestamp = parse_times(text, layout, time_zone)
    if timestamp.null_count():
        return None
    numbers = [rows[names[position]].alias(name) for position, name in zip(layout.numbers, NUMBERS, strict=False)]
    return pl.DataFrame([timestamp.alias("timestamp"), *numbers]).rechunk()


def _read_line_by_line(content: bytes, layout: Layout, time_zone: str | None, file: str) -> pl.DataFrame:
    malformed: list[Malformed] = []
    lines: list[int] = []
    times: list[str] = []
    numbers: list[list[float]] = []
    for line, cells in _lines(content, layout):
        if len(cells) != len(layout.header):
            counts = f"the line has {len(cells)} fields and the header {len(layout.header)}"
            if len(cells) < len(layout.header):
                malformed.append(Malformed(line, layout.header[len(cells)], "", f"is missing: {counts}"))
            else:
                malformed.append(Malformed(line, layout.header[-1], cells[-1], f"is one too many: {counts}"))
            continue
        values = [_number(cells[position]) for position in layout.numbers]
        malformed += [
            Malformed(line, layout.header[position], cells[position], "is not a number")
            for position, value in zip(layout.numbers, values, strict=True)
            if value is None
        ]
        lines.append(line)
        times.append(" ".join(cells[position].strip() for position in layout.time))
        numbers.append([math.nan if value is None else value for value in values])
    text = pl.Series(times, dtype=pl.String)
    timestamp = parse_times(text, layout, time_zone)
    written = parse_times(text, layout, None) if time_zone else timestamp
    column = layout.header[layout.time[0]]
    for row in timestamp.is_null().arg_true():
        reason = f"is no time like those before it ({layout.time_format})"
        if written[row] is not None:
            reason = f"does not exist, or exists twice, in {time_zone}"
        malformed.append(Malformed(lines[row], column, times[row], reason))
    if malformed:
        raise _refusal(sorted(malformed, key=lambda one: one.line), file)
    columns = {name: [row[index] for row in numbers] for index, name in enumerate(NUMBERS[: len(layout.numbers)])}
    return pl.DataFrame({"timestamp": timestamp, **columns})


def _refusal(malformed: list[Malformed], file: str) -> DataError:
    first = malformed[0]
    more = f" ({len(malformed)} such places)" if len(malformed) > 1 else ""
    return DataError(
        f"{file}, line {first.line}, column {first.column!r}: {first.text!r} {first.reason}{more}",
        line=first.line,
        column=first.column,
        text=first.text,
        reason=first.reason,
        count=len(malformed),
        first=[msgspec.to_builtins(one) for one in malformed[:FIRST_ROWS]],
    )


def _lines(content: bytes, layout: Layout) -> list[tuple[int, list[str]]]:
    """Line numbers and cells of every line after the header that is not blank."""
    reader = csv.reader(io.StringIO(content.decode(), newline=""), delimiter=layout.delimiter)
    next(reader)
    return [(reader.line_num, cells) for cells in reader if cells and any(cell.strip() for cell in cells)]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
