"""Replays: stored bars played again as prices. All that a worker hosts are in one machine without a thread or clock.

    sent = replays.open(tape, now)
    sent = replays.take(note, now)     # pause, resume, stop; more credit
    sent = replays.due(now)            # what is due by now
    replays.next_deadline(now)         # when to ask again, None for not before a note

A replay has a rate, or it has credit: it may then be so many bars ahead, and publishes them at once. What is due at one
moment goes out as one payload, or, where that is much, in several batches. Times are monotonic seconds.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import msgspec

from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.instants import instant
from backtestr_engine.data.timeframes import LENGTH_US
from backtestr_engine.publishing.backtest_streams import encoded_prices
from backtestr_engine.publishing.batching import BatchOptions, at_once
from backtestr_engine.publishing.payloads import Packer
from backtestr_protocol import topics
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import DataError, InvalidConfiguration, ValidationError
from backtestr_protocol.messages import Nothing
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

Sent = tuple[ToBroker, Sequence[bytes]]

# Bars of one replay: four years of minutes. Three columns of them are 48 MB, so that the 32 replays that a broker
# allows take 1.5 GB at the very most.
MAX_BARS = 2_000_000
# Bars a second. Topics keep 10,000 messages for repair: faster, and who is away for a second has lost some.
MAX_RATE = 10_000.0
# Bars that one replay publishes before the others have their turn.
MAX_AT_ONCE = 10_000
# Seconds between two looks at one replay: below, waking up costs more than what is due.
MOMENT = 0.005


class Tape(msgspec.Struct, frozen=True):
    """The bars of a replay, and how they are to be played."""

    order: OpenReplay
    bars: Bars
    checksum: int

    @property
    def opened(self) -> OpenedReplay:
        times = self.bars.timestamp
        return OpenedReplay(
            bars=len(self.bars),
            start_time=int(times[0]) // 1000,
            end_time=int(times[-1]) // 1000,
            checksum=self.checksum,
        )


def read_tape(catalog: Catalog, order: OpenReplay) -> Tape:
    """Read the bars, all of them, once: what happens to the series later does not change the replay.

    Raises what `Catalog.load` raises, `InvalidConfiguration` for a range that ends before it starts or has too many
    bars, `ValidationError` for a rate that is out of bounds, and `DataError` for other bars than an earlier worker had.
    """
    start, end = (None if one is None else one * 1000 for one in (order.start_time, order.end_time))
    if start is not None and end is not None and start >= end:
        raise InvalidConfiguration(
            f"startTime {instant(start)} is not before endTime {instant(end)} (the end is exclusive)",
            paths=["$.startTime", "$.endTime"],
        )
    bars = catalog.load(order.symbol, order.timeframe, start, end)
    _rate(order, bars)
    if len(bars) > MAX_BARS:
        raise InvalidConfiguration(
            f"a replay has up to {MAX_BARS:,} bars, and the range has {len(bars):,}; choose startTime and endTime",
            paths=["$.startTime", "$.endTime"],
        )
    kept = _prices_alone(bars)
    checksum = 0
    for column in (kept.timestamp, kept.close, kept.volume):
        checksum = zlib.crc32(column.data, checksum)
    if order.checksum not in (None, checksum):
        raise DataError(
            f"the stored bars of {order.symbol} {order.timeframe} changed while they were replayed, and the worker "
            "that had read them ended; start the replay again",
            symbol=order.symbol,
            timeframe=order.timeframe,
        )
    return Tape(order, kept, checksum)


def _prices_alone(bars: Bars) -> Bars:
    """Bars of which only closes are known, in memory of their own: a slice would keep the whole series there."""
    close = bars.close.copy()
    return Bars(bars.symbol, bars.timeframe, bars.timestamp.copy(), close, close, close, close, bars.volume.copy())


def _rate(order: OpenReplay, bars: Bars) -> float | None:
    """Bars a second; None for one with credit. Nights, weekends and missing bars take no longer than a bar: real time
    is a bar per timeframe."""
    given = order.bars_per_second if order.speed is None else order.speed
    if given is None:
        return None
    name = "barsPerSecond" if order.speed is None else "speed"
    rate = given if order.speed is None else given * 1e6 / LENGTH_US[bars.timeframe]
    if not (math.isfinite(given) and given > 0 and rate <= MAX_RATE):
        at_most = MAX_RATE if order.speed is None else MAX_RATE * LENGTH_US[bars.timeframe] / 1e6
        raise ValidationError(
            f"{name} must be above 0 and up to {at_most:g}, not {given!r}; asFastAsRead has no bound",
            path=f"$.{name}",
            expected=f"above 0, up to {at_most:g}",
            got=repr(given),
        )
    return rate


class _Replay:
    __slots__ = ("allowed", "bars", "is_paused", "looked", "pace", "position", "replay_id", "topic")

    def __init__(self, tape: Tape) -> None:
        order = tape.order
        rate = _rate(order, tape.bars)
        self.replay_id = order.replay_id
        self.bars = tape.bars
        self.topic = topics.prices(tape.bars.symbol, tape.bars.timeframe)
        self.pace = None if rate is None else Pace(rate)
        self.allowed = order.allowed or 0
        self.position = order.position
        self.is_paused = order.paused
        self.looked = -math.inf

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
        return now if self.done else max(self.pace.deadline(now), self.looked + MOMENT)


class Replays:
    def __init__(self, batching: BatchOptions, packer: Packer) -> None:
        """`batching`: that of prices, of which replays need no more than how large a batch may be: what falls due
        within a `MOMENT` goes out together as it is."""
        self._batching = batching
        self._packer = packer
        self._replays: dict[str, _Replay] = {}

    @property
    def replay_ids(self) -> list[str]:
        return list(self._replays)

    def open(self, tape: Tape) -> None:
        """Host a replay; its first bar is due at once."""
        self._replays[tape.order.replay_id] = _Replay(tape)

    def take(self, note: Control | Credit, now: float) -> list[Sent]:
        """Do what the broker says. What is about a replay that has ended meanwhile is ignored."""
        replay = self._replays.get(note.replay_id if isinstance(note, Credit) else note.task_id)
        if replay is None:
            return []
        if isinstance(note, Credit):
            replay.allowed = max(replay.allowed, note.allowed)
            return []
        return self._control(replay, note.action, now)

    def _control(self, replay: _Replay, action: Action, now: float) -> list[Sent]:
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
        """What every replay is to publish by `now`; of those that are through, their end."""
        sent: list[Sent] = []
        for replay in list(self._replays.values()):
            if (count := replay.due(now)) > 0:
                sent += self._play(replay, count, now)
            if replay.done and not replay.is_paused:
                sent += self._end(replay, "completed")
        return sent

    def _play(self, replay: _Replay, count: int, now: float) -> list[Sent]:
        bars = replay.bars[replay.position : replay.position + count]
        prices = encoded_prices(bars, replayId=replay.replay_id)
        published = at_once(replay.topic, prices, self._batching, self._packer)
        reached = 0
        sent: list[Sent] = []
        for note, payload in published:
            reached += note.count
            time = int(bars.timestamp[reached - 1]) // 1000
            mark = ReplayMark(replay_id=replay.replay_id, current_time=time)
            sent.append((Published(topic=note.topic, count=note.count, replay=mark), (payload,)))
        replay.position += count
        replay.looked = now
        if replay.pace is not None:
            replay.pace.take(count)
        return sent

    def _end(self, replay: _Replay, outcome: Outcome) -> list[Sent]:
        del self._replays[replay.replay_id]
        return [(Finished(task_id=replay.replay_id, outcome=outcome), (encode(Nothing()),))]

    def next_deadline(self, now: float) -> float | None:
        """When something is due at the earliest."""
        deadlines = [due for replay in self._replays.values() if (due := replay.deadline(now)) is not None]
        return min(deadlines, default=None)

    def check_invariants(self) -> None:
        for replay_id, replay in self._replays.items():
            assert replay.replay_id == replay_id
            assert 0 <= replay.position <= len(replay.bars) <= MAX_BARS
