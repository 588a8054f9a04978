"""What was read of a file of market data: the rows that can be, and a table of what cannot be and where it stands."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import polars as pl

_MALFORMED = {"line": pl.Int64(), "column": pl.String(), "text": pl.String(), "reason": pl.String()}


class Rows(msgspec.Struct, frozen=True):
    """`frame` has `timestamp` (datetime[us, UTC]) and numbers (float64) by name. `malformed` is a table of cells, or
    whole lines, that cannot be read: `line column text reason`, as `malformed_cells` makes it. `lines` are those of
    `frame`, where that took counting them."""

    frame: pl.DataFrame
    malformed: pl.DataFrame
    lines: Sequence[int] | None = None


def malformed_cells(line: pl.Series, column: str, text: pl.Series, reason: str | pl.Series) -> pl.DataFrame:
    """One row per cell. Lines count from 1, a header being the first; of a table they are its rows."""
    reasons = pl.repeat(reason, len(line), dtype=pl.String(), eager=True) if isinstance(reason, str) else reason
    names = pl.repeat(column, len(line), dtype=pl.String(), eager=True)
    return pl.DataFrame([line, names, text, reasons], schema=_MALFORMED)


def in_order(malformed: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """All of them by line; those of one line as they are given."""
    return pl.concat(malformed).sort("line", maintain_order=True) if malformed else pl.DataFrame(schema=_MALFORMED)
