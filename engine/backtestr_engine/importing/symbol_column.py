"""Files that hold several symbols: the column that names them, and the rows of each."""

from __future__ import annotations

import numpy as np
import polars as pl

from backtestr_engine.data.catalog import check_symbol
from backtestr_protocol.errors import SeveralSymbols, UnusableFile, did_you_mean

from .rows import Rows

MAX_SERIES = 1_000
"""The most series of one import: each is a file that is written and synced, and the answer lists them all."""

_SHOWN = 20


def check_one_symbol(rows: Rows, column: str) -> None:
    """Raise `SeveralSymbols` where the rows are of more than one."""
    symbols = rows.symbols
    if symbols is None or not len(symbols) or bool((symbols == symbols[0]).all()):
        return
    values = symbols.unique(maintain_order=True)
    raise SeveralSymbols(
        f"{rows.file} holds several symbols: column {column!r} has {len(values):,} values ({_listed(values)})",
        path="$.symbolColumn",
        column=column,
        count=len(values),
        values=values.head(_SHOWN).to_list(),
    )


def part_by_symbol(rows: Rows, column: str, wanted: str | None) -> list[tuple[str, Rows]]:
    """Return the rows of each symbol, in the order of the file, sorted by symbol; of `wanted` alone where it is named.

    Raises `UnusableFile` for a row without a symbol, for a wanted symbol that has no rows and for too many symbols,
    and `ValidationError` for a value that cannot be a symbol.
    """
    assert rows.symbols is not None
    symbols = rows.symbols
    empty = (symbols.is_null() | (symbols == "")).to_numpy()
    if empty.any():
        place = rows.places()[int(empty.argmax())]
        raise UnusableFile(
            f"{rows.file}, {rows.place} {place}, column {column!r}: is empty; every row needs a symbol",
            **{rows.place: place},
            column=column,
        )
    if wanted is not None:
        of_it = (symbols == wanted).to_numpy()
        if not of_it.any():
            raise _absent(rows, column, wanted)
        return [(wanted, rows.taken(of_it))]
    values = symbols.unique().sort()
    if len(values) > MAX_SERIES:
        raise UnusableFile(
            f"{rows.file}: column {column!r} has {len(values):,} values ({_listed(values)}), and one import makes at "
            f"most {MAX_SERIES:,} series; import one after the other: --symbol NAME --symbol-column {column}",
            column=column,
            count=len(values),
            limit=MAX_SERIES,
        )
    numbers = symbols.replace_strict(values, pl.int_range(len(values), eager=True), return_dtype=pl.Int64()).to_numpy()
    order = np.argsort(numbers, kind="stable")
    ends = np.searchsorted(numbers[order], np.arange(len(values)), side="right")
    parts = np.split(order, ends[:-1])
    return [(check_symbol(value), rows.taken(part)) for value, part in zip(values, parts, strict=True)]


def _absent(rows: Rows, column: str, wanted: str) -> UnusableFile:
    assert rows.symbols is not None
    values = rows.symbols.unique().sort()
    return UnusableFile(
        f"{rows.file} has no row of {wanted!r} in column {column!r}{did_you_mean(wanted, values.head(10_000))} "
        f"({_listed(values)}); leave the symbol out to import each into a series of its own",
        path="$.symbol",
        column=column,
        values=values.head(_SHOWN).to_list(),
    )


def _listed(values: pl.Series) -> str:
    return ", ".join(values.head(_SHOWN)) + (", …" if len(values) > _SHOWN else "")
