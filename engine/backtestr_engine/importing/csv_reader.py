"""Reading the rows of a text file: at once where they are in order, from its cells to say what is not.

Both ways give a frame of `timestamp` (datetime[us, UTC]) and the layout's fields (float64) by name, and both work on
whole columns: a large file is refused about as fast as it would be read.
"""

from __future__ import annotations

import polars as pl

from .csv_cells import Cells, read_cells
from .csv_layout import Layout
from .rows import Rows, in_order, malformed_cells
from .timestamps import parse_times

_ONLY_PYTHON_READS = "[_\x1c-\x1f]|[^\x00-\x7f]"
"""What a number must have in it for `float` to read it where polars does not: 1_000, digits of other scripts, spaces
that no one types."""


def read_rows(content: bytes, layout: Layout, time_zone: str | None) -> Rows:
    """All rows of the file; `time_zone` (UTC when None) is that of times without an offset."""
    frame = _read_fast(content, layout, time_zone)
    return _read_all(read_cells(content, layout), layout, time_zone) if frame is None else Rows(frame, in_order([]))


def line_numbers(content: bytes, layout: Layout) -> list[int]:
    """The line of every row, counted from 1 with the header, blank lines included."""
    return read_cells(content, layout).lines.to_list()


def _read_fast(content: bytes, layout: Layout, time_zone: str | None) -> pl.DataFrame | None:
    """What polars makes of it; None as soon as anything is out of order."""
    if content.endswith((f'{layout.delimiter}"'.encode(), b'\n"')):
        return None  # A quote alone in the last cell makes polars panic.
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


def _read_all(cells: Cells, layout: Layout, time_zone: str | None) -> Rows:
    """What can be read of the cells, and everything that cannot be."""
    line = cells.lines.filter(cells.even)
    columns = [_repeated(column) for column in cells.columns] if layout.blank_repeats else cells.columns
    fields = {name: read_numbers(columns[position]) for name, position in layout.fields.items()}
    malformed = [_uneven(cells.uneven, layout)]
    for name, values in fields.items():
        bad = values.is_null()
        text = columns[layout.fields[name]].filter(bad)
        malformed.append(malformed_cells(line.filter(bad), layout.column_of(name), text, "is not a number"))
    first, *others = (columns[position].str.strip_chars() for position in layout.time)
    text = first + " " + others[0] if others else first
    timestamp = parse_times(text, layout.written, time_zone)
    bad = timestamp.is_null()
    at_clock = parse_times(text.filter(bad), layout.written, None).is_not_null()
    malformed.append(
        malformed_cells(
            line.filter(bad), layout.column_of("timestamp"), text.filter(bad), _time_reason(at_clock, layout, time_zone)
        )
    )
    frame = pl.DataFrame([timestamp.alias("timestamp"), *(values.alias(name) for name, values in fields.items())])
    readable = ~pl.any_horizontal(pl.all().is_null())
    lines = line.filter(frame.select(readable).to_series())
    return Rows(frame.filter(readable), in_order(malformed), lines.to_list())


def read_numbers(cells: pl.Series) -> pl.Series:
    """Text as float64, null where Python's `float` would refuse it."""
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
    """Blank cells hold what the one above them does."""
    blank = column.str.strip_chars() == ""
    return column.set(blank, None).forward_fill().fill_null("")


def _time_reason(at_clock: pl.Series, layout: Layout, time_zone: str | None) -> pl.Series:
    """Why each time is none: those `at_clock` are no instant in the zone, or two."""
    reasons = pl.DataFrame({"at_clock": at_clock}).select(
        pl.when(pl.col("at_clock"))
        .then(pl.lit(f"does not exist, or exists twice, in {time_zone}"))
        .otherwise(pl.lit(f"is no time like the others ({layout.written.pattern})"))
    )
    return reasons.to_series()


def _uneven(uneven: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    """The lines that have more or fewer cells than the header."""
    header, width = layout.header, len(layout.header)
    expected = f"the header {width}" if layout.has_header else f"{layout.format} has {width}"
    found = []
    for count in uneven["count"].unique().sort():
        lines = uneven.filter(pl.col("count") == count)
        counts = f"the line has {count} fields and {expected}"
        if count < width:
            blank = pl.repeat("", lines.height, dtype=pl.String(), eager=True)
            found.append(malformed_cells(lines["line"], header[count], blank, f"is missing: {counts}"))
        else:
            found.append(malformed_cells(lines["line"], header[-1], lines["last"], f"is one too many: {counts}"))
    return in_order(found)
