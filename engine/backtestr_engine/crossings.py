"""Crossings: the bars on which a line goes to the other side of a level or of another line.

A crossing is an event: the bar before must have stood on this side of it, so the end of a warm-up (NaN) is none.
"""

from __future__ import annotations

import numpy as np

from backtestr_engine.data.arrays import Booleans, Floats


def rises_above(line: Floats, level: Floats | float) -> Booleans:
    """Where `line` is above `level` and was not on the bar before."""
    return _begins(line > level, line <= level)


def falls_below(line: Floats, level: Floats | float) -> Booleans:
    """Where `line` is below `level` and was not on the bar before."""
    return _begins(line < level, line >= level)


def _begins(beyond: Booleans, within: Booleans) -> Booleans:
    began = np.zeros_like(beyond)
    np.logical_and(beyond[1:], within[:-1], out=began[1:])
    return began
