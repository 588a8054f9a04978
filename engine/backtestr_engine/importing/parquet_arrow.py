"""Reading the rows of a Parquet or Arrow file, whose columns have types: the third stage of an import."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import polars as pl

from backtestr_engine.data.zones import zone_names
from backtestr_protocol.errors import UnusableFile

from .formats import may_be_blank
from .layout import Layout
from .number_styles import decimal_mark, read_styled
from .rows import Rows, make_rows, malformed_cells
from .sources import TableFile, unreadable_table
from .timestamps import (
    KNOWN_FORMS,
    ReadTimes,
    TimeFormat,
    TimeOptions,
    begins_of_dates,
    in_zone,
    read_counts,
    read_times,
    time_format,
    within_years,
)

_TEXTS_LOOKED_AT = 20


def read_table(file: TableFile, layout: Layout) -> Rows:
    """Return all rows of a table.

    Rows count from 1, as lines in what is malformed too. Raises `UnusableFile` for a table that cannot be read, and for
    a time column of a type that holds no times, `AmbiguousTimes` and `AmbiguousNumbers`.
    """
    header = file.header
    symbols = [] if layout.symbols is None else [layout.symbols]
    used = {header[position]: None for position in (*layout.time, *layout.fields.values(), *symbols)}
    try:
        table = file.table.select(list(used)).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise unreadable_table(file.path, file.format, error) from error
    time = [table[header[position]] for position in layout.time]
    times = _instants(time, layout.times, file.name)
    columns = {name: table[header[at]] for name, at in layout.fields.items()}
    fields = _numbers(columns, layout)
    for name, column in columns.items():
        if may_be_blank(layout.kind, name):
            fields[name] = fields[name].set(column.is_null(), math.nan)
    row = pl.int_range(1, table.height + 1, eager=True)
    malformed = [_malformed(row, time[0], times.instants, "is no time")]
    malformed += [_malformed(row, columns[name], values, "is not a number") for name, values in fields.items()]
    places: Sequence[int] = range(1, table.height + 1)
    symbol = table[header[symbols[0]]].cast(pl.String).str.strip_chars() if symbols else None
    if any(one.height for one in malformed):
        readable = pl.DataFrame([times.instants, *(values.alias(name) for name, values in fields.items())]).select(
            ~pl.any_horizontal(pl.all().is_null())
        )
        kept = readable.to_series()
        times = times.where(kept)
        fields = {name: values.filter(kept) for name, values in fields.items()}
        places = row.filter(kept).to_list()
        symbol = None if symbol is None else symbol.filter(kept)
    single = any(columns[name].dtype == pl.Float32 for name in fields if name not in ("volume", "size"))
    made = make_rows(file.name, layout, times, fields, malformed, "row", lambda: places)
    return replace(made, single=single, symbols=symbol)


def _numbers(columns: dict[str, pl.Series], layout: Layout) -> dict[str, pl.Series]:
    """Return columns as float64, null where a value is no number. Texts are numbers as in a text file."""
    fields = {name: column.cast(pl.Float64, strict=False) for name, column in columns.items()}
    texts = {name: column for name, column in columns.items() if column.dtype == pl.String}
    decimal = (layout.decimal or decimal_mark(texts.values())) if texts else None
    for name, text in texts.items():
        if decimal is not None:
            styled = read_styled(text, decimal, amount=name in ("volume", "size"))
            fields[name] = styled if decimal == "," else fields[name].fill_null(styled)
    return fields


def _malformed(row: pl.Series, column: pl.Series, read: pl.Series, reason: str) -> pl.DataFrame:
    """Return the cells of `column` that were `read` as null."""
    bad = read.is_null()
    text = pl.Series([str(value) for value in column.filter(bad)], dtype=pl.String)
    return malformed_cells(row.filter(bad), column.name, text, reason)


def _instants(time: list[pl.Series], options: TimeOptions, file: str) -> ReadTimes:
    """Return the times. `time` is one column, or date and time."""
    column = time[0] if len(time) == 1 else time[0].cast(pl.String) + " " + time[1].cast(pl.String)
    kind = column.dtype
    if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
        instants = column.cast(pl.Datetime("us", kind.time_zone)).dt.convert_time_zone("UTC")
        zone = options.zone if kind.time_zone == "UTC" else _iana_name(kind.time_zone) or options.zone
        return ReadTimes(within_years(instants), TimeFormat("", zoned=True), zone=zone)
    if isinstance(kind, pl.Date):
        begins = within_years(begins_of_dates(column.cast(pl.Datetime("us")), options.zone))
        return ReadTimes(begins, TimeFormat(""), zone=options.zone)
    if isinstance(kind, pl.Datetime):
        return ReadTimes(in_zone(column.cast(pl.Datetime("us")), options.zone), TimeFormat(""), zone=options.zone)
    if kind.is_integer() or kind.is_float() or kind == pl.String:
        return _written_instants(column, options, file)
    raise UnusableFile(
        f"{file}: column {time[0].name!r} holds {kind}, no times; expected are times, whole numbers or text",
        column=time[0].name,
    )


def _written_instants(column: pl.Series, options: TimeOptions, file: str) -> ReadTimes:
    """Return the times of a column of texts, or of numbers that count from 1970 or are dates such as 20240304."""
    is_text = column.dtype == pl.String
    whole = column if is_text or column.dtype.is_integer() else column.cast(pl.Int64, strict=False)
    text = whole.cast(pl.String)
    first = text.drop_nulls().head(_TEXTS_LOOKED_AT).to_list()
    written = time_format(first)
    if written is None:
        shown = first[0] if first else ""
        raise UnusableFile(
            f"{file}, row 1, column {column.name!r}: {shown!r} is no time of a known form; expected is {KNOWN_FORMS}",
            row=1,
            column=column.name,
            text=shown,
        )
    if is_text or not written.zoned:
        return read_times(text, written, options)
    integer = column.dtype.is_integer()
    numbers = column.cast(pl.Int64 if integer else pl.Float64, strict=False)
    return msgspec.structs.replace(read_counts(numbers, options), zone=options.zone)


def _iana_name(zone: str) -> str | None:
    """Return the name of a column's zone if it is one of IANA's: a column may have a fixed offset too."""
    return zone if zone in zone_names() else None
