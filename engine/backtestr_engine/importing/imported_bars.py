"""Bars made of the rows of a file, the last stage of an import: their timeframe, and what was assumed about them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backtestr_engine.data.arrays import Integers
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.timeframes import LENGTH_US, MINUTE_US, open_times
from backtestr_protocol.errors import UnknownTimeframe
from backtestr_protocol.messages import QuotePrice, Timeframe

from .rows import Rows
from .ticks import bars_of, quote_price


def make_series(
    parts: Sequence[tuple[str, Rows]], timeframe: Timeframe | None, price: QuotePrice | None
) -> dict[str, tuple[Bars, list[str]]]:
    """Return the bars of each symbol's rows, as `make_bars` does.

    A symbol with one bar has the timeframe of the symbol with the most.
    """
    most, _ = max(parts, key=lambda part: len(part[1]))
    made = {symbol: make_bars(rows, symbol, timeframe, price) for symbol, rows in parts if symbol == most}
    usual = made[most][0].timeframe
    for symbol, rows in parts:
        if symbol != most:
            made[symbol] = make_bars(rows, symbol, timeframe or (usual if len(rows) == 1 else None), price)
    return {symbol: made[symbol] for symbol, _ in parts}


def make_bars(rows: Rows, symbol: str, timeframe: Timeframe | None, price: QuotePrice | None) -> tuple[Bars, list[str]]:
    """Return the bars of validated rows, or those that their ticks make, and the warnings about them.

    `timeframe` is the most frequent step of bars when None. `price` is the side of quotes, `mid` when None.
    Raises `UnknownTimeframe` for ticks without a timeframe, for a timeframe that cannot be detected, and for bars that
    lie closer than the one given.
    """
    if rows.kind == "bars":
        return _bars(rows, symbol, timeframe)
    return _tick_bars(rows, symbol, timeframe, price or "mid")


def _bars(rows: Rows, symbol: str, given: Timeframe | None) -> tuple[Bars, list[str]]:
    usual = _usual_step(rows.timestamps)
    timeframe = _detected_timeframe(usual, rows.file) if given is None else _checked_timeframe(given, usual, rows.file)
    fields = rows.fields
    volume = fields["volume"] if "volume" in fields else np.zeros(len(rows))
    bars = Bars(
        symbol, timeframe, rows.timestamps, fields["open"], fields["high"], fields["low"], fields["close"], volume
    )
    warnings = []
    if usual is not None and usual != LENGTH_US[timeframe]:
        warnings.append(f"the most frequent step is {_step_name(usual)}, not {timeframe}")
    off_edge = int(np.count_nonzero(open_times(rows.timestamps, timeframe) != rows.timestamps))
    if off_edge:
        warnings.append(f"{off_edge:,} of {len(rows):,} bars do not open on a {timeframe} edge in UTC")
    return bars, warnings


def _tick_bars(rows: Rows, symbol: str, given: Timeframe | None, side: QuotePrice) -> tuple[Bars, list[str]]:
    if given is None:
        raise UnknownTimeframe(
            f"{rows.file} holds {rows.kind}, which have no timeframe: name the one of the bars to make of them "
            f"({', '.join(LENGTH_US)})",
            path="$.timeframe",
            expected=list(LENGTH_US),
        )
    if rows.kind == "quotes":
        price = quote_price(rows.fields["bid"], rows.fields["ask"], side)
        of = "quotes at the middle of bid and ask" if side == "mid" else f"quotes at the {side}"
    else:
        price, of = rows.fields["price"], rows.kind
    size = rows.fields.get("size")
    volume = f"the number of {rows.kind}" if size is None else "their summed size"
    note = f"{given} bars made of {len(rows):,} {of}; volume is {volume}"
    return bars_of(symbol, given, rows.timestamps, price, size), [note]


def _checked_timeframe(given: Timeframe, usual: int | None, file: str) -> Timeframe:
    """Return the timeframe given, unless most bars lie closer than that."""
    if usual is not None and usual < LENGTH_US[given]:
        raise UnknownTimeframe(
            f"{file} holds finer bars than {given}: its most frequent step is {_step_name(usual)}",
            path="$.timeframe",
            got=given,
            mostFrequentStepMs=usual // 1000,
        )
    return given


def _detected_timeframe(usual: int | None, file: str) -> Timeframe:
    """Return the timeframe whose length is the most frequent step."""
    for timeframe, length in LENGTH_US.items():
        if length == usual:
            return timeframe
    step = "there is only one bar" if usual is None else f"its most frequent step is {_step_name(usual)}"
    raise UnknownTimeframe(
        f"the timeframe of {file} cannot be detected: {step}; name it ({', '.join(LENGTH_US)})",
        path="$.timeframe",
        expected=list(LENGTH_US),
    )


def _usual_step(timestamps: Integers) -> int | None:
    """Return the most frequent step in microseconds, the shortest of equally frequent ones; None without any."""
    lengths, counts = np.unique(np.diff(timestamps), return_counts=True)
    return int(lengths[counts.argmax()]) if len(lengths) else None


def _step_name(step_us: int) -> str:
    names = {length: name for name, length in LENGTH_US.items()}
    return names.get(step_us, f"{step_us / MINUTE_US:g} minutes")
