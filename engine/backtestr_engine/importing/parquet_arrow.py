"""Reading the rows of a Parquet or Arrow file, whose columns have types: the third stage of an import."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from backtestr_protocol.errors import UnusableFile

from .layout import Layout
from .rows import Rows, make_rows, malformed_cells
from .sources import TableFile, unreadable_table
from .timestamps import KNOWN_FORMS, from_epoch, in_zone, parse_times, time_format


def read_table(file: TableFile, layout: Layout, time_zone: str | None) -> Rows:
    """Return all rows of a table; `time_zone` (UTC when None) is that of times without a zone.

    Rows count from 1, as lines in what is malformed too. Raises `UnusableFile` for a table that cannot be read, and for
    a time column of a type that holds no times.
    """
    header = file.header
    used = [header[position] for position in (*layout.time, *layout.fields.values())]
    try:
        table = file.table.select(used).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise unreadable_table(file.path, file.format, error) from error
    time = [table[header[position]] for position in layout.time]
    timestamps, zoned = _instants(time, time_zone, file.path.name)
    fields = {name: table[header[at]].cast(pl.Float64, strict=False) for name, at in layout.fields.items()}
    row = pl.int_range(1, table.height + 1, eager=True)
    malformed = [_malformed(row, time[0], timestamps, "is no time")]
    malformed += [
        _malformed(row, table[header[layout.fields[name]]], values, "is not a number")
        for name, values in fields.items()
    ]
    places: Sequence[int] = range(1, table.height + 1)
    if any(one.height for one in malformed):
        readable = pl.DataFrame([timestamps, *(values.alias(name) for name, values in fields.items())]).select(
            ~pl.any_horizontal(pl.all().is_null())
        )
        kept = readable.to_series()
        timestamps, fields = timestamps.filter(kept), {name: values.filter(kept) for name, values in fields.items()}
        places = row.filter(kept).to_list()
    return make_rows(file.path.name, layout, timestamps, fields, malformed, "row", lambda: places, zoned=zoned)


def _malformed(row: pl.Series, column: pl.Series, read: pl.Series, reason: str) -> pl.DataFrame:
    """Return the cells of `column` that were `read` as null."""
    bad = read.is_null()
    text = pl.Series([str(value) for value in column.filter(bad)], dtype=pl.String)
    return malformed_cells(row.filter(bad), column.name, text, reason)


def _instants(time: list[pl.Series], time_zone: str | None, file: str) -> tuple[pl.Series, bool]:
    """Return the times as datetime[us, UTC], and whether they had a zone. `time` is one column, or date and time."""
    column = time[0] if len(time) == 1 else time[0].cast(pl.String) + " " + time[1].cast(pl.String)
    kind = column.dtype
    if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
        return column.cast(pl.Datetime("us", kind.time_zone)).dt.convert_time_zone("UTC"), True
    if isinstance(kind, pl.Datetime | pl.Date):
        return in_zone(column.cast(pl.Datetime("us")), time_zone), False
    if kind.is_integer() or kind == pl.String:
        text = column.cast(pl.String)
        first = next((one for one in text if one is not None), "")
        written = time_format(first)
        if written is not None and kind.is_integer():
            return from_epoch(column.cast(pl.Int64), written.pattern.removeprefix("epoch:")), True
        if written is not None:
            return parse_times(text, written, time_zone), written.zoned
        raise UnusableFile(
            f"{file}, row 1, column {time[0].name!r}: {first!r} is no time of a known form; expected is {KNOWN_FORMS}",
            row=1,
            column=time[0].name,
            text=first,
        )
    raise UnusableFile(
        f"{file}: column {time[0].name!r} holds {kind}, no times; expected are times, whole numbers or text",
        column=time[0].name,
    )
