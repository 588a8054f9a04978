"""Reading the rows of a text file: the third stage of an import.

polars reads a file in which every cell can be read. Any other file is read again by Python's `csv`, which takes several
times as long and shows which cells cannot be read, and on which lines they stand.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate, islice

import polars as pl

from .layout import Layout
from .rows import MALFORMED, Rows, make_rows, malformed_cells
from .sources import TextFile, uneven_quotes
from .timestamps import TimeFormat, parse_times

_BATCH_ROWS = 256
"""Rows that `csv` reads together: few enough that their cells stay in the processor's cache."""

_NUL = "\0"

_ONLY_PYTHON_READS = "[_\x1c-\x1f]|[^\x00-\x7f]"
"""Characters of numbers that `float` reads and polars does not: 1_000, digits of other scripts, rare spaces."""


def read_text(file: TextFile, layout: Layout, time_zone: str | None) -> Rows:
    """Return all rows of a text file; `time_zone` (UTC when None) is that of times without an offset.

    Raises `UnusableFile` for a quote that is opened and not closed for long.
    """
    assert layout.written is not None
    found = _read_fast(file, layout, layout.written, time_zone)
    return _read_row_by_row(file, layout, layout.written, time_zone) if found is None else found


def _read_fast(file: TextFile, layout: Layout, written: TimeFormat, time_zone: str | None) -> Rows | None:
    """Return the rows as polars reads them, or None as soon as a cell cannot be read."""
    if file.content.endswith((f'{file.delimiter}"'.encode(), b'\n"')):
        return None  # A quote alone in the last cell makes polars panic.
    names = [str(position) for position in range(len(file.header))]
    numbers = set(layout.fields.values())
    schema = {name: pl.Float64() if position in numbers else pl.String() for position, name in enumerate(names)}
    try:
        rows = pl.read_csv(
            file.content, separator=file.delimiter, has_header=False, skip_rows=file.header_lines, schema=schema
        )
    except pl.exceptions.PolarsError:
        return None
    rows = rows.select(names[position] for position in (*layout.time, *layout.fields.values()))
    rows = rows.filter(~pl.all_horizontal(pl.all().is_null()))
    if layout.blank_repeats:
        rows = rows.with_columns(pl.col(pl.Float64).forward_fill())
    if sum(rows.null_count().row(0)):
        return None
    timestamps = parse_times(_joined([rows[names[position]] for position in layout.time]), written, time_zone)
    if timestamps.null_count():
        return None
    fields = {name: rows[names[position]] for name, position in layout.fields.items()}
    places = partial(_line_numbers, file)
    return make_rows(file.path.name, layout, timestamps, fields, [], "line", places, zoned=written.zoned)


def _read_row_by_row(file: TextFile, layout: Layout, written: TimeFormat, time_zone: str | None) -> Rows:
    """Return the rows that can be read, and everything that cannot be, as Python's `csv` cuts the text into cells."""
    line, cells, malformed = _read_cells(file, [*layout.time, *layout.fields.values()])
    if layout.blank_repeats:
        cells = {position: _repeated(column) for position, column in cells.items()}
    fields = {name: read_numbers(cells[position]) for name, position in layout.fields.items()}
    for name, values in fields.items():
        bad = values.is_null()
        text = cells[layout.fields[name]].filter(bad)
        malformed.append(malformed_cells(line.filter(bad), layout.names[name], text, "is not a number"))
    text = _joined([cells[position].str.strip_chars() for position in layout.time])
    timestamps = parse_times(text, written, time_zone)
    bad = timestamps.is_null()
    reasons = _time_reasons(text.filter(bad), written, time_zone)
    malformed.append(malformed_cells(line.filter(bad), layout.names["timestamp"], text.filter(bad), reasons))
    readable = pl.DataFrame([timestamps, *(values.alias(name) for name, values in fields.items())]).select(
        ~pl.any_horizontal(pl.all().is_null())
    )
    kept = readable.to_series()
    lines = line.filter(kept).to_list()
    return make_rows(
        file.path.name,
        layout,
        timestamps.filter(kept),
        {name: values.filter(kept) for name, values in fields.items()},
        malformed,
        "line",
        lambda: lines,
        zoned=written.zoned,
    )


def _joined(time: Sequence[pl.Series]) -> pl.Series:
    """Return a time column, or a date and a time column as one."""
    return time[0] if len(time) == 1 else time[0] + " " + time[1]


def _batches(file: TextFile) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Yield the rows that are not blank, a few at a time: the numbers of their last lines, and their cells."""
    text = io.TextIOWrapper(io.BytesIO(file.content), "utf-8", newline="\n")
    reader = csv.reader(text, delimiter=file.delimiter)
    try:
        for _ in islice(reader, file.header_lines):
            pass
        before = reader.line_num
        while rows := list(islice(reader, _BATCH_ROWS)):
            lines = list(range(before + 1, reader.line_num + 1))
            if len(lines) != len(rows):  # a quoted cell holds a line end
                counts = (1 + sum(cell.count("\n") for cell in cells) for cells in rows[:-1])
                lines = [*accumulate(counts, initial=before), reader.line_num][1:]
            before = reader.line_num
            blank = [row for row, cells in enumerate(rows) if not cells or not (cells[0].strip() or _any_text(cells))]
            for row in reversed(blank):
                del lines[row], rows[row]
            yield lines, rows
    except csv.Error as error:
        raise uneven_quotes(file.path, error) from error


def _any_text(cells: Sequence[str]) -> bool:
    return any(map(str.strip, cells))


def _line_numbers(file: TextFile) -> list[int]:
    return [number for lines, _ in _batches(file) for number in lines]


def _read_cells(file: TextFile, positions: Sequence[int]) -> tuple[pl.Series, dict[int, pl.Series], list[pl.DataFrame]]:
    """Return the line numbers and the columns at `positions` of rows as wide as the header, and the other rows.

    The other rows are malformed: they have more or fewer cells than the header.
    """
    width = len(file.header)
    numbers: list[int] = []
    columns: dict[int, list[str]] = {position: [] for position in positions}
    uneven: list[tuple[int, str, str, str]] = []
    for lines, rows in _batches(file):
        odd = [row for row, cells in enumerate(rows) if len(cells) != width]
        uneven += [_uneven(lines[row], rows[row], file) for row in odd]
        for row in reversed(odd):
            del lines[row], rows[row]
        numbers += lines
        in_columns = list(zip(*rows, strict=True))
        for position, texts in columns.items():
            # No cell has a NUL (`TextFile`): polars takes one text and splits it faster than it takes its parts.
            texts += [_NUL.join(in_columns[position])] if rows else []
    return (
        pl.Series(numbers, dtype=pl.Int64),
        {position: pl.Series(texts, dtype=pl.String).str.split(_NUL).explode() for position, texts in columns.items()},
        [pl.DataFrame(uneven, schema=MALFORMED, orient="row")],
    )


def _uneven(number: int, cells: Sequence[str], file: TextFile) -> tuple[int, str, str, str]:
    width, count = len(file.header), len(cells)
    counts = f"the line has {count} fields and " + (
        f"the header {width}" if file.has_header else f"{file.format} has {width}"
    )
    if count < width:
        return number, file.header[count], "", f"is missing: {counts}"
    return number, file.header[-1], cells[-1], f"is one too many: {counts}"


def read_numbers(cells: pl.Series) -> pl.Series:
    """Return text as float64, null where Python's `float` would refuse it."""
    read = cells.str.strip_chars().cast(pl.Float64, strict=False)
    odd = cells.filter(read.is_null()).unique()
    odd = odd.filter(odd.str.contains(_ONLY_PYTHON_READS))
    also = {text: number for text in odd if (number := _number(text)) is not None}
    if not also:
        return read
    return read.fill_null(cells.replace_strict(also, default=None, return_dtype=pl.Float64()))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _repeated(column: pl.Series) -> pl.Series:
    """Return the column with each blank cell holding the value above it."""
    blank = column.str.strip_chars() == ""
    return column.set(blank, None).forward_fill().fill_null("")


def _time_reasons(text: pl.Series, written: TimeFormat, time_zone: str | None) -> pl.Series:
    """Return why each text is no time: the zone skips or repeats it, or it is not written as the others are."""
    at_clock = parse_times(text, written, None).is_not_null()
    reasons = pl.DataFrame({"at_clock": at_clock}).select(
        pl.when(pl.col("at_clock"))
        .then(pl.lit(f"does not exist, or exists twice, in {time_zone}"))
        .otherwise(pl.lit(f"is no time like the others ({written.pattern})"))
    )
    return reasons.to_series()
