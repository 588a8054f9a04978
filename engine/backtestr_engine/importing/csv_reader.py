"""Reading the rows of a text file: the third stage of an import.

polars reads a file in which every cell can be read. Any other file is read again by Python's `csv`, which takes several
times as long and shows which cells cannot be read, and on which lines they stand.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, islice

import polars as pl

from backtestr_protocol.import_messages import DecimalMark

from .formats import may_be_blank
from .layout import Layout
from .number_styles import decimal_mark, is_styled, read_styled
from .rows import MALFORMED, Rows, make_rows, malformed_cells
from .sources import TextFile, uneven_quotes
from .timestamps import TimeFormat, read_times, time_reasons

_BATCH_ROWS = 256
"""Rows that `csv` reads together: few enough that their cells stay in the processor's cache."""

_NUL = "\0"

_ONLY_PYTHON_READS = "[_\x1c-\x1f]|[^\x00-\x7f]"
"""Characters of numbers that `float` reads and polars does not: 1_000, digits of other scripts, rare spaces."""


def read_text(file: TextFile, layout: Layout) -> Rows:
    """Return all rows of a text file.

    Raises `UnusableFile` for a quote that is opened and not closed for long, `AmbiguousTimes` and `AmbiguousNumbers`.
    """
    assert layout.written is not None
    found = _read_fast(file, layout, layout.written)
    return _read_row_by_row(file, layout, layout.written) if found is None else found


def _read_fast(file: TextFile, layout: Layout, written: TimeFormat) -> Rows | None:
    """Return the rows as polars reads them, or None as soon as a cell cannot be read."""
    rows = _cells_by_polars(file, layout, styled=_is_styled(file, layout))
    if rows is None:
        return None
    columns = {name: rows[str(position)] for name, position in layout.fields.items()}
    texts = {name: column for name, column in columns.items() if column.dtype == pl.String}
    if texts:
        decimal = layout.decimal or decimal_mark(texts.values()) or "."
        columns |= {name: _numbers(text, decimal, amount=_is_amount(name)) for name, text in texts.items()}
        if any(column.null_count() for column in columns.values()):
            return None
    times = read_times(_joined([rows[str(position)] for position in layout.time]), written, layout.times)
    if times.instants.null_count():
        return None
    made = make_rows(file.name, layout, times, columns, [], "line", partial(_line_numbers, file))
    if layout.symbols is None:
        return made
    return replace(made, symbols=rows[str(layout.symbols)].str.strip_chars())


def _cells_by_polars(file: TextFile, layout: Layout, *, styled: bool) -> pl.DataFrame | None:
    """Return the columns that are read, by their numbers as names; numbers as float64, or as text where `styled`."""
    last_line = file.content[file.content.rfind(b"\n", 0, -1) + 1 :]
    if last_line.count(b'"') % 2 or last_line.endswith((f'{file.delimiter}"'.encode(), b'\n"')):
        return None  # A quote alone in the last cell makes polars panic, and it loses a cell that is not closed.
    names = [str(position) for position in range(len(file.header))]
    numbers = () if styled else set(layout.fields.values())
    schema = {name: pl.Float64() if position in numbers else pl.String() for position, name in enumerate(names)}
    # Quotes above the rows would join lines.
    quoted = b'"' in file.content[: file.rows_at]
    content, skipped = (file.content[file.rows_at :], 0) if quoted else (file.content, file.header_lines)
    try:
        rows = pl.read_csv(content, separator=file.delimiter, has_header=False, skip_rows=skipped, schema=schema)
    except pl.exceptions.PolarsError:
        return None
    used = {*layout.time, *layout.fields.values(), *(() if layout.symbols is None else (layout.symbols,))}
    rows = rows.select(names[position] for position in sorted(used))
    rows = rows.filter(~pl.all_horizontal(pl.all().is_null()))
    absent = [names[position] for name, position in layout.fields.items() if may_be_blank(layout.kind, name)]
    if layout.blank_repeats:
        filled = [names[position] for position in layout.fields.values() if names[position] not in absent]
        rows = rows.with_columns(pl.col(filled).forward_fill())
    if not styled:
        rows = rows.with_columns(pl.col(absent).fill_null(math.nan))
    read = [names[position] for position in (*layout.time, *layout.fields.values())]
    return None if sum(rows.select(read).null_count().row(0)) else rows


def _is_amount(field: str) -> bool:
    return field in ("volume", "size")


def _is_styled(file: TextFile, layout: Layout) -> bool:
    """Return whether the numbers of the first rows have currency signs, groups of digits or a decimal comma."""
    if layout.decimal == ",":
        return True
    cells = [row[at] for row in file.first_rows for at in layout.fields.values() if at < len(row)]
    return is_styled(pl.Series(cells, dtype=pl.String))


def _read_row_by_row(file: TextFile, layout: Layout, written: TimeFormat) -> Rows:
    """Return the rows that can be read, and everything that cannot be, as Python's `csv` cuts the text into cells."""
    symbols = [] if layout.symbols is None else [layout.symbols]
    line, cells, malformed = _read_cells(file, [*layout.time, *layout.fields.values(), *symbols])
    absent = {name: position for name, position in layout.fields.items() if may_be_blank(layout.kind, name)}
    if layout.blank_repeats:
        cells = {at: column if at in absent.values() else _repeated(column) for at, column in cells.items()}
    fields = _fields(cells, layout)
    for name, position in absent.items():
        fields[name] = fields[name].set(cells[position].str.strip_chars() == "", math.nan)
    for name, values in fields.items():
        bad = values.is_null()
        text = cells[layout.fields[name]].filter(bad)
        malformed.append(malformed_cells(line.filter(bad), layout.names[name], text, "is not a number"))
    text = _joined([cells[position].str.strip_chars() for position in layout.time])
    times = read_times(text, written, layout.times)
    bad = times.instants.is_null()
    reasons = time_reasons(text.filter(bad), times.written, layout.times)
    malformed.append(malformed_cells(line.filter(bad), layout.names["timestamp"], text.filter(bad), reasons))
    readable = pl.DataFrame([times.instants, *(values.alias(name) for name, values in fields.items())]).select(
        ~pl.any_horizontal(pl.all().is_null())
    )
    kept = readable.to_series()
    lines = line.filter(kept).to_list()
    made = make_rows(
        file.name,
        layout,
        times.where(kept),
        {name: values.filter(kept) for name, values in fields.items()},
        malformed,
        "line",
        lambda: lines,
    )
    return made if not symbols else replace(made, symbols=cells[symbols[0]].filter(kept).str.strip_chars())


def _fields(cells: Mapping[int, pl.Series], layout: Layout) -> dict[str, pl.Series]:
    """Return the columns of numbers as float64, null where a cell is no number."""
    texts = {name: cells[position] for name, position in layout.fields.items()}
    decimal = layout.decimal
    read = {} if decimal == "," else {name: read_numbers(text) for name, text in texts.items()}
    if decimal is None and any(_has_styled(texts[name], values) for name, values in read.items()):
        decimal = decimal_mark(texts.values())
    if decimal is None:
        return read
    return {name: _numbers(text, decimal, amount=_is_amount(name)) for name, text in texts.items()}


def _has_styled(text: pl.Series, read: pl.Series) -> bool:
    return is_styled(text.filter(read.is_null()))


def _numbers(text: pl.Series, decimal: DecimalMark, *, amount: bool) -> pl.Series:
    """Return text as float64 with that decimal mark, null where it is no number."""
    styled = read_styled(text, decimal, amount=amount)
    plain = read_numbers(text.set(text.str.contains("[.,]"), None) if decimal == "," else text)
    return plain.fill_null(styled)


def _joined(time: Sequence[pl.Series]) -> pl.Series:
    """Return a time column, or a date and a time column as one."""
    return time[0] if len(time) == 1 else time[0] + " " + time[1]


def _batches(file: TextFile) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Yield the rows that are not blank, a few at a time: the numbers of their last lines, and their cells."""
    content = io.BytesIO(file.content)
    content.seek(file.rows_at)
    reader = csv.reader(io.TextIOWrapper(content, "utf-8", newline="\n"), delimiter=file.delimiter)
    above = before = file.header_lines
    try:
        while rows := list(islice(reader, _BATCH_ROWS)):
            last = above + reader.line_num
            lines = list(range(before + 1, last + 1))
            if len(lines) != len(rows):  # a quoted cell holds a line end
                counts = (1 + sum(cell.count("\n") for cell in cells) for cells in rows[:-1])
                lines = [*accumulate(counts, initial=before), last][1:]
            before = last
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
