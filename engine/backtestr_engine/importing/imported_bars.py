"""Bars or ticks made of the rows of a file, the last stage of an import, and what was assumed about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from backtestr_engine.data.arrays import Floats, Integers
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.tick_bars import bars_of_ticks
from backtestr_engine.data.ticks import Ticks, check_price
from backtestr_engine.data.timeframes import LENGTH_US, MINUTE_US, open_times
from backtestr_protocol.errors import InvalidConfiguration, UnknownTimeframe
from backtestr_protocol.messages import TICK, SeriesTimeframe, TickPrice, Timeframe

from .rows import Rows

_AT: dict[TickPrice, str] = {
    "mid": "at the middle of bid and ask",
    "bid": "at the bid",
    "ask": "at the ask",
    "last": "at the last price",
}


def make_series(
    parts: Sequence[tuple[str, Rows]], timeframe: SeriesTimeframe | None, price: TickPrice | None
) -> dict[str, tuple[Bars | Ticks, list[str]]]:
    """Return the bars or ticks of each symbol's rows, as `make_one` does.

    A symbol with one bar has the timeframe of the symbol with the most.
    """
    most, _ = max(parts, key=lambda part: len(part[1]))
    made = {symbol: make_one(rows, symbol, timeframe, price) for symbol, rows in parts if symbol == most}
    usual = made[most][0].timeframe
    for symbol, rows in parts:
        if symbol != most:
            made[symbol] = make_one(rows, symbol, timeframe or (usual if len(rows) == 1 else None), price)
    return {symbol: made[symbol] for symbol, _ in parts}


def make_one(
    rows: Rows, symbol: str, timeframe: SeriesTimeframe | None, price: TickPrice | None
) -> tuple[Bars | Ticks, list[str]]:
    """Return the bars or ticks of validated rows, or the bars that ticks make, and the warnings about them.

    `timeframe` is the most frequent step of bars when None. Ticks are ticks when it is None or `tick`, and are made
    into bars of it otherwise, of their `price`: the default is that of `check_price`.

    Raises `UnknownTimeframe` for a timeframe that cannot be detected, for bars that lie closer than the one given, and
    for ticks asked for where there are bars; `InvalidConfiguration` for a price where no bars are made of ticks, and
    for one that the ticks do not have.
    """
    if rows.kind == "bars":
        return _bars(rows, symbol, _bars_timeframe(timeframe, rows.file))
    ticks = _ticks(rows, symbol)
    if timeframe is None or timeframe == TICK:
        _refuse_price(price)
        return ticks, []
    chosen = check_price(symbol, ticks.columns, price)
    bars = bars_of_ticks(symbol, timeframe, chosen, [ticks])
    return bars, [_making_note(rows, timeframe, chosen)]


def _bars_timeframe(given: SeriesTimeframe | None, file: str) -> Timeframe | None:
    if given != TICK:
        return given
    raise UnknownTimeframe(
        f"{file} holds bars, no ticks: leave the timeframe out, or name theirs ({', '.join(LENGTH_US)})",
        path="$.timeframe",
        expected=list(LENGTH_US),
    )


def _refuse_price(price: TickPrice | None) -> None:
    if price is not None:
        raise InvalidConfiguration(
            f"price {price!r} chooses what bars are made of, and ticks are kept with every price: name the timeframe "
            "of bars to make, or leave price out",
            paths=["$.price", "$.timeframe"],
        )


def _ticks(rows: Rows, symbol: str) -> Ticks:
    fields = rows.fields
    if rows.kind == "quotes":
        return Ticks(symbol, rows.timestamps, fields["bid"], fields["ask"], *_trades(fields))
    return Ticks(symbol, rows.timestamps, last=fields["price"], volume=fields.get("size"))


def _trades(fields: Mapping[str, Floats]) -> tuple[Floats | None, Floats | None]:
    """Return last prices and volumes of quotes, NaN where a quote is no trade: its last price is blank or 0."""
    if "last" not in fields:
        return None, None
    traded = fields["last"] > 0
    if not traded.any():
        return None, None
    last = np.where(traded, fields["last"], np.nan)
    return last, np.where(traded, fields["volume"], np.nan) if "volume" in fields else None


def _making_note(rows: Rows, timeframe: Timeframe, price: TickPrice) -> str:
    if rows.kind == "quotes":
        made, volume = f"{len(rows):,} quotes {_AT[price]}", "the number of quotes"
        if price == "last":
            volume = "the summed volume of trades" if "volume" in rows.fields else "the number of trades"
    else:
        made = f"{len(rows):,} trades"
        volume = "their summed size" if "size" in rows.fields else "the number of trades"
    return f"{timeframe} bars made of {made}; volume is {volume}"


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
