"""The lines of a text and their cells, whatever is in them.

Where a line of the file is a row and every quote encloses a cell that needs none, which is to say nearly always, text
is cut column by column. Where a quoted cell holds a delimiter, a line end or a quote, `csv` reads it row by row: the
same cells, in a few times the time.
"""

from __future__ import annotations

import csv
import io
import re
from itertools import islice

import msgspec
import polars as pl

from .csv_layout import Layout

_NO_DELIMITER = "\0"
"""A byte that no text has (one with it is refused before): so a whole line is one cell."""

_PLAINLY_QUOTED = '^"[^"]*"$'


class Cells(msgspec.Struct, frozen=True):
    """The lines after the header that are not blank, numbered from 1 with the header and blank ones."""

    lines: pl.Series
    """Of all of them."""
    even: pl.Series
    """Whether each has as many cells as the header."""
    columns: list[pl.Series]
    """The cells of even lines, as they stand but for quotes."""
    uneven: pl.DataFrame
    """Of the other lines, how many cells they have and the last of them: `line count last`."""


def read_cells(content: bytes, layout: Layout) -> Cells:
    """All cells of a text that is UTF-8, has no NUL, and ends its lines with a line feed alone.

    Raises `csv.Error` for a cell that no line of numbers can have: a quote that is opened and not closed for long.
    """
    cells = _cut(content, layout)
    return _read_row_by_row(content, layout) if cells is None else cells


def _cut(content: bytes, layout: Layout) -> Cells | None:
    """None where a quote is more than an ornament."""
    schema = {"text": pl.String()}
    whole = pl.read_csv(content, separator=_NO_DELIMITER, quote_char=None, has_header=False, schema=schema)
    rows = whole.with_row_index("line", offset=1).slice(layout.header_lines).drop_nulls()
    quoted = rows["text"].filter(rows["text"].str.contains('"', literal=True)).str.split(layout.delimiter).explode()
    quoted = quoted.filter(quoted.str.contains('"', literal=True))
    if len(quoted):
        if not quoted.str.contains(_PLAINLY_QUOTED).all():
            return None
        rows = rows.with_columns(pl.col("text").str.replace_all('"', "", literal=True))
    rows = rows.filter(~pl.col("text").str.contains(rf"^[\s{re.escape(layout.delimiter)}]*$"))
    cells = rows["text"].str.split(layout.delimiter)
    count = cells.list.len()
    even = count == len(layout.header)
    in_columns = cells if even.all() else cells.filter(even)
    columns = [in_columns.list.get(position) for position in range(len(layout.header))]
    uneven = pl.DataFrame(
        {"line": rows["line"].filter(~even), "count": count.filter(~even), "last": cells.filter(~even).list.last()}
    )
    return Cells(rows["line"], even, columns, uneven)


def _read_row_by_row(content: bytes, layout: Layout) -> Cells:
    """What Python's `csv` makes of it."""
    width = len(layout.header)
    lines: list[int] = []
    even: list[bool] = []
    flat: list[str] = []
    uneven: list[tuple[int, int, str]] = []
    reader = csv.reader(io.StringIO(content.decode(), newline=""), delimiter=layout.delimiter)
    for cells in islice(reader, layout.header_lines, None):
        if not cells or (not cells[0].strip() and not any(cell.strip() for cell in cells)):
            continue
        lines.append(reader.line_num)
        even.append(len(cells) == width)
        if even[-1]:
            flat += cells
        else:
            uneven.append((reader.line_num, len(cells), cells[-1]))
    return Cells(
        pl.Series(lines, dtype=pl.Int64),
        pl.Series(even, dtype=pl.Boolean),
        [pl.Series(flat[position::width], dtype=pl.String) for position in range(width)],
        pl.DataFrame(uneven, schema={"line": pl.Int64(), "count": pl.Int64(), "last": pl.String()}, orient="row"),
    )
