"""Series that an algorithm shows beside its signals: named columns for people to look at, which no backtest reads."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backtestr_engine.data.arrays import AnyArray, Floats
from backtestr_engine.data.bars import COLUMNS
from backtestr_protocol.errors import AlgorithmError, quoted

MAX_SHOWN = 64
"""More lines than this are not looked at together; each takes 8 bytes a bar in the answer."""

MAX_NAME_CHARACTERS = 64

SIGNAL_COLUMNS = (
    "entries",
    "exits",
    "short_entries",
    "short_exits",
    "target",
    "stop_loss",
    "take_profit",
    "trailing_stop",
    "limit_price",
    "stop_price",
)
"""The columns that signals may have in a table, in this order."""

TAKEN_NAMES = frozenset({*COLUMNS, "symbol", *SIGNAL_COLUMNS})
"""The names of the other columns of a table of signals: a shown series has another name."""


def checked_shown(show: Mapping[str, AnyArray] | None, bars: int) -> dict[str, Floats]:
    """Return each series as float64 of shape (bars,), in the order given; one that is float64 already is not copied.

    Booleans become 0 and 1. Raises `AlgorithmError`, which names the series, for a name that no column can have, for
    values that are no numbers, and for another shape.
    """
    if show is None:
        return {}
    if not isinstance(show, Mapping):
        raise AlgorithmError(f'show must be a dict of names and arrays, {{"atr": atr}}, not {type(show).__name__}')
    if len(show) > MAX_SHOWN:
        raise AlgorithmError(f"show has {len(show)} series; up to {MAX_SHOWN} can be shown")
    return {_checked_name(name): _checked_values(name, values, bars) for name, values in show.items()}


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise AlgorithmError(f"show: the name of a series is text, not {type(name).__name__}")
    if not (0 < len(name) <= MAX_NAME_CHARACTERS and name.isprintable() and name == name.strip()):
        raise AlgorithmError(
            f"show: a series has a name of 1 to {MAX_NAME_CHARACTERS} printable characters, without spaces around it, "
            f"not {quoted(name)}"
        )
    if name in TAKEN_NAMES:
        raise AlgorithmError(f"show: {name!r} is the name of another column of the table; give the series another name")
    return str(name)


def _checked_values(name: str, given: AnyArray, bars: int) -> Floats:
    try:
        values = np.asarray(given)
    except ValueError as error:  # lists of different lengths within each other
        raise AlgorithmError(f"show: {name!r} is no array of numbers: {error}") from error
    if values.shape != (bars,):
        raise AlgorithmError(f"show: {name!r} has shape {values.shape}; it needs one value per bar ({bars})")
    if values.dtype.kind not in "fiub":
        raise AlgorithmError(f"show: {name!r} must be an array of numbers or booleans, not of {values.dtype}")
    return np.asarray(values, dtype=np.float64)
