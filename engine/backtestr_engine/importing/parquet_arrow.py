"""Reading Parquet and Arrow files of bars or ticks: typed columns, told by the names that a CSV header would have."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from backtestr_protocol.errors import UnusableFile

from .columns import Columns, find_columns
from .rows import Rows, in_order, malformed_cells
from .timestamps import KNOWN_FORMS, from_epoch, in_zone, parse_times, time_format


def read_table(path: Path, format: str) -> tuple[list[str], Columns, pl.DataFrame]:
    """The names of all columns, which of them is what, and those that are something. Raises `UnusableFile`."""
    try:
        if format == "parquet":
            frame = pl.scan_parquet(path)
        else:
            with path.open("rb") as file:
                is_file = file.read(6) == b"ARROW1"
            frame = pl.scan_ipc(path) if is_file else pl.read_ipc_stream(path).lazy()
        header = frame.collect_schema().names()
        columns = find_columns(header, path.name)
        used = [header[position] for position in (*columns.time, *columns.fields.values())]
        return header, columns, frame.select(used).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UnusableFile(f"{path.name} cannot be read as {format}: {error}", path=str(path)) from error


def typed_rows(
    frame: pl.DataFrame, header: list[str], columns: Columns, time_zone: str | None, file: str
) -> tuple[Rows, bool]:
    """`timestamp` and the fields of every row that has them all, and whether the times say which instant they are.

    Rows count from 1, as lines in what is malformed too. Raises `UnusableFile` for a time column of a type that holds
    no times.
    """
    timestamp, zoned = _instants([frame[header[position]] for position in columns.time], time_zone, file)
    numbers = {name: _numbers(frame[header[position]]) for name, position in columns.fields.items()}
    read = pl.DataFrame([timestamp.alias("timestamp"), *(values.alias(name) for name, values in numbers.items())])
    row = pl.int_range(1, frame.height + 1, eager=True)
    malformed = []
    for values in read:
        at = columns.fields.get(values.name, columns.time[0])
        bad = values.is_null()
        text = pl.Series([str(value) for value in frame[header[at]].filter(bad)], dtype=pl.String)
        reason = "is no time" if values.name == "timestamp" else "is not a number"
        malformed.append(malformed_cells(row.filter(bad), header[at], text, reason))
    if not any(one.height for one in malformed):
        return Rows(read.rechunk(), in_order([])), zoned
    readable = ~pl.any_horizontal(pl.all().is_null())
    kept = row.filter(read.select(readable).to_series())
    return Rows(read.filter(readable), in_order(malformed), kept.to_list()), zoned


def _numbers(column: pl.Series) -> pl.Series:
    return column.cast(pl.Float64, strict=False)


def _instants(time: list[pl.Series], time_zone: str | None, file: str) -> tuple[pl.Series, bool]:
    """datetime[us, UTC] of the time column, or of the date and the time column, and whether they had a zone."""
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
