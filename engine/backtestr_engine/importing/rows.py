"""The rows of a file of market data: those that can be read, and a table of the cells that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
import polars as pl

from backtestr_engine.data.arrays import Booleans, Floats, Integers

from .formats import Kind
from .layout import Layout
from .timestamps import ReadTimes

MALFORMED = {"line": pl.Int64(), "column": pl.String(), "text": pl.String(), "reason": pl.String()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """The rows of one file, in the order of the file."""

    file: str
    """The name of the file, for messages."""
    kind: Kind
    names: Mapping[str, str]
    """The file's names for `timestamp` and the fields."""
    timestamps: Integers
    """Times of the rows that can be read, int64 microseconds UTC."""
    fields: Mapping[str, Floats]
    """Their numbers, float64, by the names of `formats.Columns`."""
    zoned: bool
    """The times of the file say by themselves which instant they are."""
    zone: str | None = None
    """The zone that was given, or that the format or the type of the times implies; None where there is none."""
    incomplete: bool = False
    """Rows of the file were dropped, so that there may be gaps."""
    offsets: Integers | None = None
    """The offset that is written with each time, int64 microseconds; None where there is none or all are zero."""
    malformed: pl.DataFrame
    """Cells, or whole lines, that cannot be read: `line column text reason`, as `malformed_cells` makes it."""
    place: Literal["line", "row"]
    """The unit in which `places` counts: lines of a text, or rows of a table."""
    places: Callable[[], Sequence[int]]
    """Returns where each row stands, from 1. Counting lines takes a second pass over a text: few imports call it."""
    symbols: pl.Series | None = None
    """The symbol of each row, where the file has a column for it."""
    single: bool = False
    """A price of the file is float32."""
    notes: Sequence[str] = ()
    """Notes about reading them, for the answer."""

    def __len__(self) -> int:
        return len(self.timestamps)

    def taken(self, rows: Booleans | Integers) -> Rows:
        """Return the rows for which `rows` is true, or those that it counts, from 0, in its order; without symbols."""
        return replace(
            self,
            timestamps=self.timestamps[rows],
            fields={name: values[rows] for name, values in self.fields.items()},
            symbols=None,
            offsets=None if self.offsets is None else self.offsets[rows],
            places=lambda: np.asarray(self.places())[rows].tolist(),
        )

    def with_fields(self, fields: Mapping[str, Floats]) -> Rows:
        """Return the rows with other numbers."""
        return replace(self, fields=fields)


def make_rows(
    file: str,
    layout: Layout,
    times: ReadTimes,
    fields: Mapping[str, pl.Series],
    malformed: Sequence[pl.DataFrame],
    place: Literal["line", "row"],
    places: Callable[[], Sequence[int]],
) -> Rows:
    """Return the rows of columns without nulls: times as datetime[us, UTC], `fields` float64.

    `malformed` is sorted by line; entries of one line stay as they are given. `places` is called once at most.
    """
    return Rows(
        file=file,
        kind=layout.kind,
        names=layout.names,
        timestamps=times.instants.rechunk().to_physical().to_numpy(),
        fields={name: values.rechunk().to_numpy() for name, values in fields.items()},
        zoned=times.written.zoned,
        zone=times.zone,
        offsets=times.offsets,
        malformed=pl.concat([pl.DataFrame(schema=MALFORMED), *malformed]).sort("line", maintain_order=True),
        place=place,
        places=cache(places),
        notes=times.notes,
    )


def malformed_cells(line: pl.Series, column: str, text: pl.Series, reason: str | pl.Series) -> pl.DataFrame:
    """Return one row for each cell. Lines count from 1, the header included; for a table they are its rows."""
    reasons = pl.repeat(reason, len(line), dtype=pl.String(), eager=True) if isinstance(reason, str) else reason
    names = pl.repeat(column, len(line), dtype=pl.String(), eager=True)
    return pl.DataFrame([line, names, text, reasons], schema=MALFORMED)
