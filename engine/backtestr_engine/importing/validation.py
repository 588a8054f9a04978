"""Which rows of a file can be used: refused with what stands against them, or dropped where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import polars as pl

from backtestr_engine.data.arrays import Booleans, Integers
from backtestr_engine.data.bars import FIRST_ROWS, Problem, order_problems, price_problems
from backtestr_protocol.errors import UnusableFile, UnusableRows
from backtestr_protocol.messages import DroppedRows

from .sources import Source
from .ticks import Quotes, Trades, quote_problems, trade_problems


def sound_rows(source: Source) -> pl.DataFrame:
    """All rows of `source`, or an `UnusableRows` that names every fault with its count, first lines and column."""
    if source.malformed.height:
        raise _malformed(source)
    timestamp = times(source.rows)
    problems = [*order_problems(timestamp, may_repeat=source.kind != "bars"), *_value_problems(source)]
    found = [problem for problem in problems if problem.count]
    if found:
        raise _unsound(source, found)
    return source.rows


def drop_unsound_rows(source: Source) -> tuple[pl.DataFrame, list[DroppedRows]]:
    """The rows that can be used, and what was dropped: rows that cannot be read, then rows of impossible values, then
    of what is left those not after all before them. A row is counted once, under what first stands against it.

    Raises `UnusableFile` when nothing is left.
    """
    dropped = _dropped_malformed(source)
    kept = np.ones(source.rows.height, dtype=np.bool_)
    problems = []
    for problem in _value_problems(source):
        problems.append(Problem(problem.column, problem.reason, problem.wrong & kept))
        kept &= ~problem.wrong
    problems += _disorder(times(source.rows), kept, may_repeat=source.kind != "bars")
    for problem in problems:
        kept &= ~problem.wrong
    found = [problem for problem in problems if problem.count]
    places = source.places() if found else ()
    dropped += [
        DroppedRows(
            reason=problem.reason,
            column=source.names[problem.column],
            count=problem.count,
            first=[places[row] for row in problem.first()],
        )
        for problem in found
    ]
    if not kept.any():
        described = "; ".join(describe_dropped(one, source.place) for one in dropped)
        raise UnusableFile(
            f"{source.file} has no row that can be used: {described}", dropped=msgspec.to_builtins(dropped)
        )
    return source.rows.filter(pl.Series(kept)) if found else source.rows, dropped


def describe_dropped(dropped: DroppedRows, place: str) -> str:
    """`dropped 2 lines: high is below open or close (column 'high'; lines 4, 7)`."""
    places = _places(place, dropped.count)
    listed = ", ".join(map(str, dropped.first)) + (", …" if dropped.count > len(dropped.first) else "")
    return f"dropped {dropped.count:,} {places}: {dropped.reason} (column {dropped.column!r}; {places} {listed})"


def _places(place: str, count: int) -> str:
    """`line`, or `lines` where there are several."""
    return place if count == 1 else f"{place}s"


def times(rows: pl.DataFrame) -> Integers:
    """`timestamp` as int64 microseconds."""
    timestamp: Integers = rows["timestamp"].to_physical().to_numpy()
    return timestamp


def _value_problems(source: Source) -> list[Problem]:
    fields = {name: source.rows[name].to_numpy() for name in source.rows.columns[1:]}
    if source.kind == "bars":
        return price_problems(fields)
    if source.kind == "quotes":
        return quote_problems(Quotes(times(source.rows), fields["bid"], fields["ask"]))
    return trade_problems(Trades(times(source.rows), fields["price"], fields.get("size")))


def _disorder(timestamp: Integers, kept: Booleans, *, may_repeat: bool) -> list[Problem]:
    """Of the rows that are `kept`, those that are not after (of ticks: are before) one of the kept rows above them."""
    rows = np.flatnonzero(kept)
    after, latest = timestamp[rows][1:], np.maximum.accumulate(timestamp[rows])[:-1]
    checks = [("an earlier time than a row before", after < latest)]
    if not may_repeat:
        checks.insert(0, ("the same time as a row before", after == latest))
    problems = []
    for reason, late in checks:
        wrong = np.zeros(len(timestamp), dtype=np.bool_)
        wrong[rows[1:][late]] = True
        problems.append(Problem("timestamp", reason, wrong))
    return problems


def _dropped_malformed(source: Source) -> list[DroppedRows]:
    """One entry a reason and column; a line with several malformed cells counts for the first of them."""
    rows = source.malformed.unique("line", keep="first", maintain_order=True)
    groups = rows.group_by("column", "reason", maintain_order=True).agg(pl.len(), pl.col("line").head(FIRST_ROWS))
    return [
        DroppedRows(reason=reason, column=column, count=count, first=first)
        for column, reason, count, first in groups.iter_rows()
    ]


def _malformed(source: Source) -> UnusableRows:
    count, place = source.malformed.height, source.place
    shown = source.malformed.head(FIRST_ROWS).rename({"line": place}).to_dicts()
    first = shown[0]
    more = f" ({count} such places)" if count > 1 else ""
    return UnusableRows(
        f"{source.file}, {place} {first[place]}, column {first['column']!r}: {first['text']!r} {first['reason']}{more}",
        **first,
        count=count,
        first=shown,
    )


def _unsound(source: Source, found: Sequence[Problem]) -> UnusableRows:
    places, place = source.places(), source.place
    named = [(problem, [places[row] for row in problem.first()]) for problem in found]
    described = "; ".join(
        f"{problem.reason} on {problem.count} {_places(place, problem.count)} (first: {', '.join(map(str, first))})"
        for problem, first in named
    )
    worst, first_places = min(named, key=lambda one: one[1][0])
    column = source.names[worst.column]
    return UnusableRows(
        f"{source.file}, {place} {first_places[0]}, column {column!r}: {worst.reason}. In all: {described}",
        **{place: first_places[0]},
        column=column,
        reason=worst.reason,
        faults=[{"reason": one.reason, "count": one.count, f"{place}s": first} for one, first in named],
    )
