"""Bars or ticks made of the rows of a file, the last stage of an import, and what was assumed about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from backtestr_engine.data.arrays import Floats, Integers
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.instants import instant
from backtestr_engine.data.tick_bars import bars_of_ticks
from backtestr_engine.data.ticks import Ticks, check_price
from backtestr_engine.data.timeframes import DAY_US, HOUR_US, is_dated, length_us, months_in, open_times
from backtestr_engine.data.zones import UTC
from backtestr_protocol.errors import InvalidConfiguration, UnknownTimeframe
from backtestr_protocol.messages import TICK, SeriesTimeframe, TickPrice
from backtestr_protocol.timeframes import TIMEFRAME_RULE, Timeframe

from .dates import dates_of, market_clock, market_zone
from .rows import Rows
from .spacing import check_not_longer, check_timeframe, detected_timeframe, step_name, usual_step

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
    if len(parts) > 1 and timeframe is not None and timeframe != TICK:
        # A symbol may have few of the bars; all symbols together show the spacing.
        times = np.unique(np.concatenate([rows.timestamps for _, rows in parts]))
        if parts[0][1].kind == "bars":
            check_not_longer(timeframe, times, parts[0][1].file)
        parts = [(symbol, replace(rows, incomplete=True)) for symbol, rows in parts]
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

    `timeframe` is told from the spacing of bars when None. Bars of a day and longer have the date of their market as
    time; shorter ones and ticks keep their instants and the zone of the market. Ticks are ticks when it is None or
    `tick`, and are made into bars of it otherwise, of their `price`: the default is that of `check_price`.

    Raises `UnknownTimeframe` for a timeframe that cannot be detected, for bars whose spacing contradicts the one given,
    for two bars of one date, and for ticks asked for where there are bars; `InvalidConfiguration` for a price where no
    bars are made of ticks, and for one that the ticks do not have.
    """
    if rows.kind == "bars":
        return _bars(rows, symbol, _bars_timeframe(timeframe, rows.file))
    zone, notes = _zone(rows)
    ticks = _ticks(rows, symbol, zone)
    if timeframe is None or timeframe == TICK:
        _refuse_price(price)
        return ticks, notes
    chosen = check_price(symbol, ticks.columns, price)
    bars = bars_of_ticks(symbol, timeframe, chosen, [ticks], zone)
    return bars, [_making_note(rows, timeframe, chosen), *notes]


def _bars_timeframe(given: SeriesTimeframe | None, file: str) -> Timeframe | None:
    if given != TICK:
        return given
    raise UnknownTimeframe(
        f"{file} holds bars, no ticks: leave the timeframe out, or name theirs ({TIMEFRAME_RULE})",
        path="$.timeframe",
        expected=TIMEFRAME_RULE,
    )


def _refuse_price(price: TickPrice | None) -> None:
    if price is not None:
        raise InvalidConfiguration(
            f"price {price!r} chooses what bars are made of, and ticks are kept with every price: name the timeframe "
            "of bars to make, or leave price out",
            paths=["$.price", "$.timeframe"],
        )


def _ticks(rows: Rows, symbol: str, zone: str) -> Ticks:
    fields = rows.fields
    if rows.kind == "quotes":
        return Ticks(symbol, rows.timestamps, fields["bid"], fields["ask"], *_trades(fields), zone=zone)
    return Ticks(symbol, rows.timestamps, last=fields["price"], volume=fields.get("size"), zone=zone)


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
    usual = usual_step(rows.timestamps)
    may_be_dated = is_dated(given) if usual is None and given is not None else (usual or 0) > DAY_US - 4 * HOUR_US
    times = market_clock(rows) if may_be_dated else rows.timestamps
    timeframe = detected_timeframe(times, rows.file) if given is None else given
    check_timeframe(timeframe, times, rows.file, incomplete=rows.incomplete)
    if is_dated(timeframe):
        timestamps, warnings = _dated(times, timeframe, rows.file)
        zone = UTC
    else:
        timestamps, (zone, warnings) = rows.timestamps, _zone(rows)
    fields = rows.fields
    volume = fields["volume"] if "volume" in fields else np.zeros(len(rows))
    bars = Bars(
        symbol, timeframe, timestamps, fields["open"], fields["high"], fields["low"], fields["close"], volume, zone=zone
    )
    if usual is not None and not months_in(timeframe) and usual != length_us(timeframe):
        warnings.append(f"the most frequent step is {step_name(usual)}, not {timeframe}")
    off_edge = int(np.count_nonzero(open_times(timestamps, timeframe) != timestamps))
    if off_edge:
        warnings.append(f"{off_edge:,} of {len(rows):,} bars do not open on a {timeframe} edge in UTC")
    return bars, warnings


def _dated(clock: Integers, timeframe: Timeframe, file: str) -> tuple[Integers, list[str]]:
    """Return the date of each bar, and what is to be said about them."""
    dates, moved = dates_of(clock, timeframe)
    same = np.flatnonzero(np.diff(dates) <= 0)
    if len(same):
        raise UnknownTimeframe(
            f"{file} has two bars of one date, {instant(int(dates[same[0] + 1]))}: {timeframe} bars have a date each "
            f"({len(same):,} such places); name the timeframe that they have, or their time zone",
            path="$.timeframe",
            count=len(same),
        )
    if moved:
        return dates, [
            f"{moved:,} of {len(dates):,} bars open in the evening before their date: {timeframe} bars from "
            f"{instant(int(dates[0]))} to {instant(int(dates[-1]))}"
        ]
    return dates, []


def _zone(rows: Rows) -> tuple[str, list[str]]:
    """Return the zone whose dates the bars have, and what is to be said about it."""
    zone = market_zone(rows)
    if zone is None:
        return UTC, ["the offsets of the times are those of no zone: days are those of UTC; name the zone"]
    found = zone != UTC and rows.zone is None
    return zone, [f"days are those of {zone}, which has the offsets of the times"] if found else []
