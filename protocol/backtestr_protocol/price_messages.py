"""This module has the contracts of prices that no backtest publishes: those of price replays and of feeds.

Both publish a `stream_messages.PriceUpdate` on `prices.<symbol>.<timeframe>`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from .errors import ErrorData
from .messages import BacktestId, Contract, SeriesTimeframe, ShortText, TickPrice
from .ranges import Amount, Milliseconds, Name, Number, Positive, Symbol
from .timeframes import canonical_timeframe

ReplayState = Literal["running", "paused", "completed", "stopped", "failed"]

# The broker decodes, checks and encodes a whole request between two other messages: 1,000 prices take some 3 ms.
MAX_PRICES = 1000

# Bars, or ticks, a second of a price replay. Topics retain 10,000 messages for repair: beyond it, a client away for a
# second loses some. A bar takes up to a quarter of an hour.
MIN_RATE = 0.001
MAX_RATE = 10_000.0
# Times real time, for bars of a year: MAX_RATE of them.
MAX_SPEED = MAX_RATE * 366 * 24 * 60 * 60
Rate = Annotated[float, msgspec.Meta(ge=MIN_RATE, le=MAX_RATE, description="bars a second, from 0.001 to 10,000")]
Speed = Annotated[
    float,
    msgspec.Meta(
        ge=MIN_RATE, le=MAX_SPEED, description="times real time, from 0.001 up to what makes 10,000 bars a second"
    ),
]


class StartPriceReplay(Contract, frozen=True, kw_only=True):
    """A price replay to start: it publishes the bars that open in [startTime, endTime), or its ticks.

    Exactly one of `bars_per_second` (or ticks), `speed` (times real time) and `as_fast_as_read` is present. The client
    may choose `replay_id`, as it may choose the id of a backtest. `price` is that of the ticks that bars are made of.
    """

    replay_id: BacktestId | None = None
    symbol: Symbol
    timeframe: ShortText
    price: TickPrice | None = None
    start_time: Milliseconds | None = None
    end_time: Milliseconds | None = None
    bars_per_second: Rate | None = None
    speed: Speed | None = None
    as_fast_as_read: bool = False

    def __post_init__(self) -> None:
        for name, value in (("start_time", self.start_time), ("end_time", self.end_time)):
            if value is not None:
                msgspec.structs.force_setattr(self, name, int(value))
        # The topic has the one name of the timeframe; a name that there is not is for the worker to refuse.
        msgspec.structs.force_setattr(self, "timeframe", canonical_timeframe(self.timeframe) or self.timeframe)


class PriceReplayStarted(Contract, frozen=True, kw_only=True):
    """A price replay has started: it will publish `bars` bars, or ticks, on `topic`.

    The first bar has the sequence number `from_seq`, or a later one if the topic has other publishers.
    """

    replay_id: str
    topic: str
    from_seq: int
    bars: int


class PriceReplayRef(Contract, frozen=True, kw_only=True):
    """The data of Pause-, Resume- and StopPriceReplay and of GetPriceReplayStatus."""

    replay_id: Name


class PriceReplayAccepted(Contract, frozen=True, kw_only=True):
    """The answer to Pause-, Resume- and StopPriceReplay and to AcknowledgePrices."""

    replay_id: str
    status: ReplayState


class AcknowledgePrices(Contract, frozen=True, kw_only=True):
    """The client that started a price replay with `as_fast_as_read` has read its topic up to `seq`."""

    replay_id: Name
    seq: Positive


class PriceReplayStatus(Contract, frozen=True, kw_only=True):
    """The status of a price replay.

    `start_time` and `end_time` are the open times of its first and last bar. `position` counts the published bars,
    `current_time` is the open time of the last of them, and `last_seq` its sequence number on the topic. `reason`
    states why it was stopped, if not on request. `error` states why it failed. Of ticks, `bars` and `position` are the
    numbers, and the times are theirs.
    """

    replay_id: str
    client_id: str
    status: ReplayState
    symbol: str
    timeframe: str
    bars: int
    start_time: int
    end_time: int
    position: int
    progress_percent: float
    bars_per_second: float | None = None
    speed: float | None = None
    as_fast_as_read: bool = False
    current_time: int | None = None
    last_seq: int | None = None
    reason: str | None = None
    error: ErrorData | None = None


class PriceReplayList(Contract, frozen=True, kw_only=True):
    replays: list[PriceReplayStatus]


class FeedPrice(Contract, frozen=True, kw_only=True):
    """A price of a feed; its numbers are finite, and all but `volume` may be negative, as prices of spreads are."""

    symbol: Symbol
    timestamp: Milliseconds
    bid: Number
    ask: Number
    last: Number
    volume: Amount
    timeframe: SeriesTimeframe

    def __post_init__(self) -> None:
        timeframe = canonical_timeframe(self.timeframe)
        if timeframe is not None and timeframe != self.timeframe:
            msgspec.structs.force_setattr(self, "timeframe", timeframe)


class PublishPrices(Contract, frozen=True, kw_only=True):
    prices: Annotated[list[FeedPrice], msgspec.Meta(max_length=MAX_PRICES)]


class PublishedPrices(Contract, frozen=True, kw_only=True):
    published: int
