"""Price replays publish stored bars or ticks as prices; those of one worker are one machine without thread or clock.

    replays.open(bars)
    sent = replays.take(message, now)  # pause, resume, stop; more credit
    sent = replays.due(now)            # publish the bars that are due by now
    replays.next_deadline(now)         # when to call `due` again; None for not before a message

A price replay has a rate, or it has credit: it then publishes at once as many bars as the credit allows. The bars that
are due at one moment are published in one payload, or in several batches if they are many. Times are monotonic seconds.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import msgspec

from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog, nothing_between
from backtestr_engine.data.instants import instant
from backtestr_engine.data.ticks import Ticks
from backtestr_engine.data.timeframes import length_us
from backtestr_engine.publishing.backtest_streams import encoded_prices
from backtestr_engine.publishing.batching import BatchOptions, at_once
from backtestr_engine.publishing.payloads import Packer
from backtestr_engine.publishing.tick_prices import encoded_ticks
from backtestr_protocol import topics
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import DataError, InvalidConfiguration, ValidationError
from backtestr_protocol.messages import TICK, Nothing
from backtestr_protocol.price_messages import MAX_RATE, MAX_SPEED, MIN_RATE
from backtestr_protocol.worker_channel import (
    Action,
    Control,
    Credit,
    Finished,
    OpenedReplay,
    OpenReplay,
    Outcome,
    Paused,
    Published,
    ReplayMark,
    Resumed,
    ToBroker,
)

from .pace import Pace
from .tick_pace import TickPace

Sent = tuple[ToBroker, Sequence[bytes]]

# The most bars or ticks of one price replay: four years of minutes. Three columns of them are 48 MB, so the 32 price
# replays that a broker allows take at most 1.5 GB; ticks that have all five columns take 80 MB.
MAX_BARS = 2_000_000
# The most bars that one price replay publishes before the others, in turn.
MAX_AT_ONCE = 10_000
# Seconds between two steps of one price replay: if it were shorter, waking up would cost more than publishing.
MOMENT = 0.005


class ReplayBars(msgspec.Struct, frozen=True):
    """The bars or ticks of a price replay, and the settings by which they are published."""

    settings: OpenReplay
    bars: Bars | Ticks
    checksum: int

    @property
    def opened(self) -> OpenedReplay:
        """The answer to the task that opened it."""
        times = self.bars.timestamp
        return OpenedReplay(
            bars=len(self.bars),
            start_time=int(times[0]) // 1000,
            end_time=int(times[-1]) // 1000,
            checksum=self.checksum,
        )


def read_replay_bars(catalog: Catalog, settings: OpenReplay) -> ReplayBars:
    """Read all bars or ticks of a price replay at once, so that later changes of the series do not change it.

    Raises what `Catalog.load` and `Catalog.open_ticks` raise, `InvalidConfiguration` for a range that ends before it
    starts or has too many of them, `ValidationError` for a rate that is out of bounds, and `DataError` for others than
    an earlier worker had.
    """
    start, end = (None if one is None else one * 1000 for one in (settings.start_time, settings.end_time))
    if start is not None and end is not None and start >= end:
        raise InvalidConfiguration(
            f"startTime {instant(start)} is not before endTime {instant(end)} (the end is exclusive)",
            paths=["$.startTime", "$.endTime"],
        )
    kept = (_read_ticks if settings.timeframe == TICK else _read_bars)(catalog, settings, start, end)
    _pace(settings, kept)
    fields = ("close", "volume") if isinstance(kept, Bars) else kept.columns
    checksum = 0
    for name in ("timestamp", *fields):
        checksum = zlib.crc32(getattr(kept, name).data, checksum)
    if settings.checksum not in (None, checksum):
        raise DataError(
            f"the stored {_kind(kept)} of {settings.symbol} {settings.timeframe} changed while they were replayed, and "
            "the worker that had read them ended; start the replay again",
            symbol=settings.symbol,
            timeframe=settings.timeframe,
        )
    return ReplayBars(settings, kept, checksum)


def _kind(prices: Bars | Ticks) -> str:
    return "bars" if isinstance(prices, Bars) else "ticks"


def _check_count(count: int, kind: str) -> None:
    if count > MAX_BARS:
        raise InvalidConfiguration(
            f"a replay has up to {MAX_BARS:,} {kind}, and the range has {count:,}; choose startTime and endTime",
            paths=["$.startTime", "$.endTime"],
        )


def _read_bars(catalog: Catalog, settings: OpenReplay, start: int | None, end: int | None) -> Bars:
    """Return bars with closes only, in memory of their own: a slice would keep the whole series in memory."""
    bars = catalog.load(settings.symbol, settings.timeframe, start, end, price=settings.price)
    _check_count(len(bars), "bars")
    close = bars.close.copy()
    return Bars(bars.symbol, bars.timeframe, bars.timestamp.copy(), close, close, close, close, bars.volume.copy())


def _read_ticks(catalog: Catalog, settings: OpenReplay, start: int | None, end: int | None) -> Ticks:
    if settings.price is not None:
        raise InvalidConfiguration(
            "price is for bars: it chooses what they are made of; ticks are replayed with every price",
            paths=["$.price", "$.timeframe"],
        )
    with catalog.open_ticks(settings.symbol) as file:
        rows = file.rows_between(start, end)
        if not rows:
            raise nothing_between(file.info, TICK, start, end)
        _check_count(len(rows), "ticks")
        return file.read(rows)


def _pace(settings: OpenReplay, prices: Bars | Ticks) -> Pace | TickPace | None:
    """Return the pace of a price replay from its position on; None for one with credit.

    Real time is one bar per timeframe: nights, weekends and missing bars take no longer than a bar. Ticks take their
    own times.
    """
    if settings.speed is not None:
        length = length_us(prices.timeframe) if isinstance(prices, Bars) else None
        _check_rate("speed", settings.speed, MAX_SPEED if length is None else MAX_RATE * length / 1e6)
        if length is None:
            return TickPace(prices.timestamp, settings.position, settings.speed)
        return Pace(settings.speed * 1e6 / length)
    if settings.bars_per_second is not None:
        _check_rate("barsPerSecond", settings.bars_per_second, MAX_RATE)
        return Pace(settings.bars_per_second)
    return None


def _check_rate(name: str, given: float, at_most: float) -> None:
    if not MIN_RATE <= given <= at_most:
        raise ValidationError(
            f"{name} must be from {MIN_RATE:g} to {at_most:g}, not {given!r}; asFastAsRead has no bound",
            path=f"$.{name}",
            expected=f"from {MIN_RATE:g} to {at_most:g}",
            got=repr(given),
        )


class _PriceReplay:
    __slots__ = ("allowed", "bars", "is_paused", "pace", "position", "published_at", "replay_id", "topic")

    def __init__(self, replay: ReplayBars) -> None:
        settings, bars = replay.settings, replay.bars
        self.replay_id = settings.replay_id
        self.bars = bars
        self.topic = topics.prices(bars.symbol, bars.timeframe)
        self.pace = _pace(settings, bars)
        self.allowed = settings.allowed or 0
        self.position = settings.position
        self.is_paused = settings.paused
        self.published_at = -math.inf

    @property
    def done(self) -> bool:
        return self.position >= len(self.bars)

    def due(self, now: float) -> int:
        if self.is_paused:
            return 0
        due = self.allowed - self.position if self.pace is None else self.pace.due(now)
        return max(0, min(due, len(self.bars) - self.position, MAX_AT_ONCE))

    def deadline(self, now: float) -> float | None:
        if self.is_paused:
            return None
        if self.pace is None:
            return now if self.done or self.allowed > self.position else None
        return now if self.done else max(self.pace.deadline(now), self.published_at + MOMENT)


class PriceReplays:
    """The price replays that one worker hosts."""

    def __init__(self, batching: BatchOptions, packer: Packer) -> None:
        """Begin without price replays.

        Of `batching`, the options of prices, only the size of a batch is used: bars that fall due within a `MOMENT` are
        published together anyway.
        """
        self._batching = batching
        self._packer = packer
        self._replays: dict[str, _PriceReplay] = {}

    @property
    def replay_ids(self) -> list[str]:
        """The ids of all price replays that have not ended."""
        return list(self._replays)

    def open(self, replay: ReplayBars) -> None:
        """Host a price replay; its first bar is due at once."""
        self._replays[replay.settings.replay_id] = _PriceReplay(replay)

    def take(self, message: Control | Credit, now: float) -> list[Sent]:
        """Handle a message of the broker; one about a price replay that has ended meanwhile is ignored."""
        replay = self._replays.get(message.replay_id if isinstance(message, Credit) else message.task_id)
        if replay is None:
            return []
        if isinstance(message, Credit):
            replay.allowed = max(replay.allowed, message.allowed)
            return []
        return self._control(replay, message.action, now)

    def _control(self, replay: _PriceReplay, action: Action, now: float) -> list[Sent]:
        match action:
            case "pause":
                if not replay.is_paused and replay.pace is not None:
                    replay.pace.halt(now)
                replay.is_paused = True
                return [(Paused(task_id=replay.replay_id), ())]
            case "resume":
                replay.is_paused = False
                return [(Resumed(task_id=replay.replay_id), ())]
            case "stop":
                return self._end(replay, "stopped")

    def due(self, now: float) -> list[Sent]:
        """Publish the bars of every price replay that are due by `now`, and end those that have no further bars."""
        sent: list[Sent] = []
        for replay in list(self._replays.values()):
            if (count := replay.due(now)) > 0:
                sent += self._publish(replay, count, now)
            if replay.done and not replay.is_paused:
                sent += self._end(replay, "completed")
        return sent

    def _publish(self, replay: _PriceReplay, count: int, now: float) -> list[Sent]:
        bars = replay.bars[replay.position : replay.position + count]
        if isinstance(bars, Bars):
            prices = encoded_prices(bars, replayId=replay.replay_id)
        else:
            prices = encoded_ticks(bars, replayId=replay.replay_id)
        published = at_once(replay.topic, prices, self._batching, self._packer)
        reached = 0
        sent: list[Sent] = []
        for message, payload in published:
            reached += message.count
            time = int(bars.timestamp[reached - 1]) // 1000
            mark = ReplayMark(replay_id=replay.replay_id, current_time=time)
            sent.append((Published(topic=message.topic, count=message.count, replay=mark), (payload,)))
        replay.position += count
        replay.published_at = now
        if replay.pace is not None:
            replay.pace.take(count)
        return sent

    def _end(self, replay: _PriceReplay, outcome: Outcome) -> list[Sent]:
        del self._replays[replay.replay_id]
        return [(Finished(task_id=replay.replay_id, outcome=outcome), (encode(Nothing()),))]

    def next_deadline(self, now: float) -> float | None:
        """Return the earliest time at which a bar or an end is due; None if there is none."""
        deadlines = [due for replay in self._replays.values() if (due := replay.deadline(now)) is not None]
        return min(deadlines, default=None)

    def check_invariants(self) -> None:
        """Assert that the price replays are consistent."""
        for replay_id, replay in self._replays.items():
            assert replay.replay_id == replay_id
            assert 0 <= replay.position <= len(replay.bars) <= MAX_BARS
