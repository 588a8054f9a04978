"""Read the rows of a sweep: filter, sort and page them, without having the whole table in memory.

First the columns that the filter and the order need are read, of all blocks; then the rows of the page alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import polars as pl

from backtestr_engine.backtest.tables import HandOver, Table
from backtestr_engine.data.arrays import Integers
from backtestr_engine.research.constraint import Constraint
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.errors import ValidationError, did_you_mean
from backtestr_protocol.sweep_messages import DeletedSweep, GetSweepResults, SweepRef, SweepResults

from .sweep_store import StoredBlock, SweepStore, rows_of

Frames = list[bytes]

_results = msgspec.msgpack.Decoder(GetSweepResults)
_ref = msgspec.msgpack.Decoder(SweepRef)

_CELL = "cell"


def read_results(store: SweepStore, request: GetSweepResults, hand_over: HandOver) -> tuple[SweepResults, list[bytes]]:
    """Return a page of the rows of a sweep.

    Raises `ValidationError` for a column that does not exist, or that cannot be sorted by, and for a filter that cannot
    be read; `DataError` for rows that cannot be read.
    """
    blocks = store.blocks(request.sweep_id)
    schema = next(rows_of(blocks[:1])).schema if blocks else pl.Schema({_CELL: pl.Int64})
    wanted = _wanted(request, schema)
    keys, where = _keys(request, schema)
    parts = [part.with_columns(pl.lit(number).alias("_block")) for number, part in enumerate(rows_of(blocks, keys))]
    parts = [part.with_row_index("_row") for part in parts]
    if not parts:
        references, attachments = hand_over([Table("rows", lambda: pl.DataFrame(schema=schema))])
        return SweepResults(sweep_id=request.sweep_id, stored=0, matching=0, tables=references), attachments
    every = pl.concat(parts).unique(_CELL, keep="first")
    stored = every.height
    if where is not None:
        columns = {name: every[name].to_numpy() for name in where.names}
        every = every.filter(pl.Series(where.holds(columns)))
    matching = every.height
    order, descending = [_CELL], [False]
    if request.sort is not None and request.sort != _CELL:
        order, descending = [request.sort, _CELL], [request.descending, False]
    elif request.sort == _CELL:
        descending = [request.descending]
    page = every.sort(order, descending=descending, nulls_last=True).slice(request.offset, request.limit)
    table = Table("rows", lambda: _gathered(blocks, page, wanted))
    references, attachments = hand_over([table])
    answer = SweepResults(sweep_id=request.sweep_id, stored=stored, matching=matching, tables=references)
    return answer, attachments


def _wanted(request: GetSweepResults, schema: pl.Schema) -> list[str]:
    """Return the columns of the answer."""
    if request.columns is None:
        return list(schema)
    for name in request.columns:
        _check_column(name, list(schema), "$.columns")
    return list(dict.fromkeys([_CELL, *request.columns]))


def _keys(request: GetSweepResults, schema: pl.Schema) -> tuple[list[str], Constraint | None]:
    """Return the columns that the filter and the order need, and the filter."""
    plain = [name for name, kind in schema.items() if kind.is_numeric() or kind == pl.Boolean]
    keys = [_CELL]
    if request.sort is not None:
        sortable = [name for name, kind in schema.items() if name in plain or kind == pl.String]
        _check_column(request.sort, sortable, "$.sort")
        keys.append(request.sort)
    where = None
    if request.where is not None:
        where = Constraint(request.where, plain, [name for name in plain if schema[name] == pl.Boolean])
        keys += sorted(where.names)
    return list(dict.fromkeys(keys)), where


def _check_column(name: str, known: Sequence[str], path: str) -> None:
    if name not in known:
        raise ValidationError(
            f"{path}: there is no column {name!r}{did_you_mean(name, known)} ({', '.join(known)})",
            path=path,
            expected=list(known),
            got=name,
        )


def _gathered(blocks: Sequence[StoredBlock], page: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return the rows of a page, in its order; each block is read once."""
    of_block, of_row = page["_block"].to_numpy(), page["_row"].to_numpy()
    parts: list[pl.DataFrame] = []
    places: list[Integers] = []
    for number in np.unique(of_block):
        at = np.flatnonzero(of_block == number)
        [rows] = rows_of([blocks[int(number)]], columns)
        parts.append(rows[of_row[at].astype(np.int64)].select(columns))
        places.append(at)
    if not parts:
        [rows] = rows_of(blocks[:1], columns)
        return rows.select(columns).clear()
    return pl.concat(parts)[np.argsort(np.concatenate(places))]


def results_answer(store: SweepStore, data: bytes, hand_over_as: Callable[[bool], HandOver]) -> Frames:
    """Return the frames of the answer to GetSweepResults; `hand_over_as` takes whether tables may come as files."""
    request = decode(_results, data)
    answer, attachments = read_results(store, request, hand_over_as(request.mapped))
    return [encode(answer), *attachments]


def delete_answer(store: SweepStore, data: bytes) -> Frames:
    """Remove the rows of a sweep, and return the frames of the answer."""
    sweep_id = decode(_ref, data).sweep_id
    return [encode(DeletedSweep(sweep_id=sweep_id, freed_bytes=store.delete(sweep_id)))]
