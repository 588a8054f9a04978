"""Validation of rows, the fourth stage of an import: a file with a problem is refused, or the rows are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import polars as pl

from backtestr_engine.data.arrays import Booleans, Integers
from backtestr_protocol.errors import UnusableFile, UnusableRows, worth_dropping
from backtestr_protocol.import_messages import DroppedRows
from backtestr_protocol.messages import Repair

from .problems import FIRST_ROWS, Problem, problems_of, value_problems
from .rows import Rows


def usable_rows(rows: Rows, repair: Repair | None) -> tuple[Rows, list[DroppedRows]]:
    """Return the rows that can be used, and what was dropped where `repair` is "drop".

    Without repair, raises `UnusableRows` that names every problem with its count, first lines and column. With it,
    raises `UnusableFile` when nothing is left.
    """
    return _drop_rows(rows) if repair == "drop" else (_sound_rows(rows), [])


def describe_dropped(dropped: DroppedRows, place: str) -> str:
    """Return `dropped 2 lines: high is below open or close (column 'high'; lines 4, 7)`."""
    places = _places(place, dropped.count)
    listed = ", ".join(map(str, dropped.first)) + (", …" if dropped.count > len(dropped.first) else "")
    return f"dropped {dropped.count:,} {places}: {dropped.reason} (column {dropped.column!r}; {places} {listed})"


def _sound_rows(rows: Rows) -> Rows:
    if rows.malformed.height:
        raise _malformed(rows)
    if found := problems_of(rows.kind, rows.timestamps, rows.fields):
        raise _unsound(rows, found)
    return rows


def _kept_by_dropping(rows: Rows) -> tuple[int, int]:
    """Return how many rows `repair` would keep, and of how many."""
    kept = np.ones(len(rows), dtype=np.bool_)
    for problem in value_problems(rows.kind, rows.fields):
        kept &= ~problem.wrong
    for problem in _disorder(rows.timestamps, kept, may_repeat=rows.kind != "bars"):
        kept &= ~problem.wrong
    return int(np.count_nonzero(kept)), len(rows) + rows.malformed["line"].n_unique()


def _would_keep(rows: Rows) -> tuple[str, dict[str, int]]:
    """Return what dropping would keep: for the message where that is too little to advise it, and for the details."""
    kept, of = _kept_by_dropping(rows)
    facts = {"kept": kept, "rows": of}
    if worth_dropping(kept, of):
        return "", facts
    return f"; --repair drop would keep no more than {kept:,} of {of:,} {rows.place}s", facts


def _drop_rows(rows: Rows) -> tuple[Rows, list[DroppedRows]]:
    """Drop rows that cannot be read, then rows of impossible values, then rows that are not after all before them.

    A row is counted once, under the first of its problems.
    """
    dropped = _dropped_malformed(rows)
    kept = np.ones(len(rows), dtype=np.bool_)
    problems = []
    for problem in value_problems(rows.kind, rows.fields):
        problems.append(Problem(problem.column, problem.reason, problem.wrong & kept))
        kept &= ~problem.wrong
    problems += _disorder(rows.timestamps, kept, may_repeat=rows.kind != "bars")
    for problem in problems:
        kept &= ~problem.wrong
    found = [problem for problem in problems if problem.count]
    places = rows.places() if found else ()
    dropped += [
        DroppedRows(
            reason=problem.reason,
            column=rows.names[problem.column],
            count=problem.count,
            first=[places[row] for row in problem.first()],
        )
        for problem in found
    ]
    if not kept.any():
        described = "; ".join(describe_dropped(one, rows.place) for one in dropped)
        raise UnusableFile(
            f"{rows.file} has no row that can be used: {described}", dropped=msgspec.to_builtins(dropped)
        )
    return (replace(rows.taken(kept), incomplete=True) if found else rows), dropped


def _places(place: str, count: int) -> str:
    """Return `line`, or `lines` where there are several."""
    return place if count == 1 else f"{place}s"


def _disorder(timestamps: Integers, kept: Booleans, *, may_repeat: bool) -> list[Problem]:
    """Return the problems of kept rows that are not later than every kept row above (ticks: that are earlier)."""
    rows = np.flatnonzero(kept)
    after, latest = timestamps[rows][1:], np.maximum.accumulate(timestamps[rows])[:-1]
    checks = [("an earlier time than a row before", after < latest)]
    if not may_repeat:
        checks.insert(0, ("the same time as a row before", after == latest))
    problems = []
    for reason, late in checks:
        wrong = np.zeros(len(timestamps), dtype=np.bool_)
        wrong[rows[1:][late]] = True
        problems.append(Problem("timestamp", reason, wrong))
    return problems


def _dropped_malformed(rows: Rows) -> list[DroppedRows]:
    """Return one entry for each reason and column; a line with several malformed cells counts for the first of them."""
    first_of_line = rows.malformed.unique("line", keep="first", maintain_order=True)
    groups = first_of_line.group_by("column", "reason", maintain_order=True)
    counted = groups.agg(pl.len(), pl.col("line").head(FIRST_ROWS))
    return [
        DroppedRows(reason=reason, column=column, count=count, first=first)
        for column, reason, count, first in counted.iter_rows()
    ]


def _malformed(rows: Rows) -> UnusableRows:
    count, place = rows.malformed.height, rows.place
    shown = rows.malformed.head(FIRST_ROWS).rename({"line": place}).to_dicts()
    first = shown[0]
    more = f" ({count} such places)" if count > 1 else ""
    said, facts = _would_keep(rows)
    where = f"{rows.file}, {place} {first[place]}, column {first['column']!r}"
    return UnusableRows(
        f"{where}: {first['text']!r} {first['reason']}{more}{said}",
        **first,
        count=count,
        first=shown,
        **facts,
    )


def _unsound(rows: Rows, found: Sequence[Problem]) -> UnusableRows:
    places, place = rows.places(), rows.place
    named = [(problem, [places[row] for row in problem.first()]) for problem in found]
    described = "; ".join(
        f"{problem.reason} on {problem.count} {_places(place, problem.count)} (first: {', '.join(map(str, first))})"
        for problem, first in named
    )
    worst, first_places = min(named, key=lambda one: one[1][0])
    column = rows.names[worst.column]
    said, facts = _would_keep(rows)
    return UnusableRows(
        f"{rows.file}, {place} {first_places[0]}, column {column!r}: {worst.reason}. In all: {described}{said}",
        **{place: first_places[0]},
        column=column,
        reason=worst.reason,
        faults=[{"reason": one.reason, "count": one.count, f"{place}s": first} for one, first in named],
        **facts,
    )
