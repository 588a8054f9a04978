"""Corrections of rows that lose nothing, made before rows are validated: order, and the last digits of prices."""

from __future__ import annotations

import numpy as np

from backtestr_engine.data.arrays import Booleans, Floats

from .problems import FIRST_ROWS
from .rows import Rows

WIDENED_ULPS = 4
"""The units in the last place by which a high may be below open or close: prices that were adjusted one by one differ
by one or two, and a price's own step is some thousand million times as much."""


def turn_round(rows: Rows) -> tuple[Rows, list[str]]:
    """Return rows that stand newest first in the opposite order, with a note; all others as they are.

    Rows stand newest first where more of them go back in time than forward. Rows of one time are turned round, too.
    """
    steps = np.diff(rows.timestamps)
    back, forward = int(np.count_nonzero(steps < 0)), int(np.count_nonzero(steps > 0))
    if back <= forward:
        return rows, []
    turned = rows.taken(np.arange(len(rows) - 1, -1, -1))
    return turned, [f"the {rows.place}s stand newest first: they were turned round"]


def widen(rows: Rows) -> tuple[Rows, list[str]]:
    """Return bars whose high and low were moved to open or close where they miss them by rounding, with notes.

    Rounding is at most `WIDENED_ULPS` units in the last place, of float32 where the file has a price as float32.
    """
    if rows.kind != "bars":
        return rows, []
    fields = dict(rows.fields)
    top, bottom = np.maximum(fields["open"], fields["close"]), np.minimum(fields["open"], fields["close"])
    notes = []
    for name, bound, missed in (("high", top, fields["high"] < top), ("low", bottom, fields["low"] > bottom)):
        near = np.flatnonzero(missed)
        if not len(near):
            continue
        near = near[_are_near(fields[name][near], bound[near], single=rows.single)]
        if len(near):
            values = fields[name].copy()
            values[near] = bound[near]
            fields[name] = values
            notes.append(_note(rows, name, near.tolist()))
    return (rows.with_fields(fields), notes) if notes else (rows, [])


def _are_near(values: Floats, bounds: Floats, *, single: bool) -> Booleans:
    """Return which positive values differ from their bounds by no more than `WIDENED_ULPS`.

    The bits of positive floats, read as integers, have the order of the floats, and neighbours differ by one.
    """
    kind, bits = (np.float32, np.int32) if single else (np.float64, np.int64)
    steps = np.abs(values.astype(kind).view(bits).astype(np.int64) - bounds.astype(kind).view(bits))
    near: Booleans = (values > 0) & np.isfinite(values) & np.isfinite(bounds) & (steps <= WIDENED_ULPS)
    return near


def _note(rows: Rows, name: str, near: list[int]) -> str:
    places = rows.places()
    first = sorted(places[row] for row in near)[:FIRST_ROWS]
    count, listed = len(near), ", ".join(map(str, first)) + (", …" if len(near) > FIRST_ROWS else "")
    where = f"{rows.place} {listed}" if count == 1 else f"{count:,} {rows.place}s ({listed})"
    step = f"at most {WIDENED_ULPS} units in the last place"
    return f"{name} was widened to open or close on {where}: it missed them by rounding ({step})"
