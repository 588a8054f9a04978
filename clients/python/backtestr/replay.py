"""A price replay publishes stored bars or ticks as prices; its handle reads them and controls it.

for price in client.replay("BTCPERP", "1m", bars_per_second=50):
    print(price.timestamp, price.last)
"""

from __future__ import annotations

import contextlib
import math
import time
import uuid
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import TypedDict

from backtestr.core.effects import Gap, Restarted
from backtestr.core.instants import Instant, as_ms
from backtestr.core.request_encoding import encode_request
from backtestr.core.updates import Update
from backtestr.io.io_thread import IoThread
from backtestr_protocol import topics
from backtestr_protocol.errors import NotFound, SystemFault, TimedOut, from_data
from backtestr_protocol.messages import TickPrice
from backtestr_protocol.price_messages import (
    AcknowledgePrices,
    PriceReplayAccepted,
    PriceReplayRef,
    PriceReplayStarted,
    PriceReplayStatus,
    ReplayState,
    StartPriceReplay,
)
from backtestr_protocol.stream_messages import PriceUpdate

from .requester import Requester
from .subscription import GapWarning, Subscription

# Seconds without a price of this price replay after which the broker is asked for its status.
STATUS_AFTER = 1.0
# Seconds for which messages of others on the topic are skipped though the timeout is over: some thousand messages.
# Without that, a program that polls beside a busy feed would fall behind it.
_SKIP = 0.01
# Seconds for which an acknowledgement is tried. The next one covers it.
_ACKNOWLEDGE_TIMEOUT = 30.0
_FINAL = ("completed", "stopped", "failed")


class Rate(TypedDict, total=False):
    """The rate of a price replay: exactly one of these."""

    bars_per_second: float | None
    speed: float | None
    as_fast_as_read: bool


class PriceReplay:
    """One price replay: iterate over its prices, once and in one thread; control it from any thread.

    Prices come in order and each once. The iteration ends when the price replay has ended and everything was read, and
    raises the error of one that failed. As a context manager it is stopped at the end of the block.
    """

    def __init__(
        self, ask: Requester, io_thread: IoThread, asked: StartPriceReplay, started: PriceReplayStarted
    ) -> None:
        """Receive the prices of a started price replay; called by `Client.replay`."""
        self._ask = ask
        self._io_thread = io_thread
        self._started = started
        self._has_credit = asked.as_fast_as_read
        topic_class = topics.class_of(started.topic)
        assert topic_class is not None
        # Four in each ring: the price replay need not wait for one acknowledgement before the next.
        self._acknowledge_every = topic_class.retained // 4
        self._seq = self._acknowledged = started.from_seq - 1
        self._unread = started.bars
        self._end: PriceReplayStatus | None = None
        self._ask_status_at = time.monotonic() + STATUS_AFTER
        self._subscription = Subscription(io_thread, started.topic, "retained", first_seq=started.from_seq)

    @property
    def id(self) -> str:
        return self._started.replay_id

    @property
    def topic(self) -> str:
        """The topic of its prices, for others who watch: `client.subscribe(replay.topic)`."""
        return self._started.topic

    @property
    def bars(self) -> int:
        """The number of its bars."""
        return self._started.bars

    def __repr__(self) -> str:
        return f"Replay({self.id!r}, {self.topic!r})"

    # --- reading --------------------------------------------------------------------------------------------------

    def next(self, timeout: float | None = None) -> PriceUpdate | None:
        """Return the next price; None at the end.

        Raises `TimedOut` when none came within `timeout` seconds, the error of a price replay that failed, and
        `NotFound` when the broker was restarted, since a price replay ends with its broker.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self._unread and not self._is_read():
            until = min(deadline, math.inf if self._end else self._ask_status_at)
            late = deadline
            try:
                update = self._subscription.next(None if until == math.inf else max(0.0, until - time.monotonic()))
            except TimedOut:
                pass
            else:
                late += _SKIP
                match update:
                    case None:
                        return None
                    case Restarted():
                        raise NotFound(f"the broker was restarted, and replay {self.id} ended with it; start it again")
                    case Gap():
                        self._missed(update)
                    case Update():
                        if (price := self._read(update)) is not None:
                            self._ask_status_at = time.monotonic() + STATUS_AFTER
                            return price
            now = time.monotonic()
            if self._end is None and now >= self._ask_status_at:
                self._check_status()
                self._ask_status_at = time.monotonic() + STATUS_AFTER
            elif now >= late:
                raise TimedOut(f"no price came within {timeout:g} s", timeoutSeconds=timeout)
        if self._end is not None and self._end.status == "failed":
            raise from_data(self._end.error) if self._end.error else SystemFault(f"replay {self.id} failed")
        return None

    def __iter__(self) -> Iterator[PriceUpdate]:
        while (price := self.next()) is not None:
            yield price

    def _read(self, update: Update) -> PriceUpdate | None:
        self._reached(update.seq)
        price = update.data
        if not isinstance(price, PriceUpdate) or price.replay_id != self.id:
            return None  # of another price replay, a backtest or a feed
        self._unread -= 1
        return price

    def _missed(self, gap: Gap) -> None:
        warnings.warn(
            f"messages {gap.from_seq} to {gap.to_seq} of {gap.topic} came faster than they were read, and the broker "
            "no longer keeps them; as_fast_as_read=True waits for its reader",
            GapWarning,
            stacklevel=3,
        )
        self._reached(gap.to_seq)

    def _reached(self, seq: int) -> None:
        self._seq = seq
        if self._has_credit and seq - self._acknowledged >= self._acknowledge_every:
            self._acknowledge()

    def _acknowledge(self) -> None:
        self._acknowledged = self._seq
        data = AcknowledgePrices(replay_id=self.id, seq=self._seq)
        self._io_thread.ask("AcknowledgePrices", encode_request(data), _ACKNOWLEDGE_TIMEOUT)

    def _check_status(self) -> None:
        """Ask whether it has ended, since nothing has come for a while.

        If it has not, it may wait for an acknowledgement that was refused and that no later one covers: send it again.
        """
        status = self.status()
        if status.status in _FINAL:
            self._end = status
        elif self._has_credit and self._seq >= self._started.from_seq:
            self._acknowledge()

    def _is_read(self) -> bool:
        return self._end is not None and self._seq >= (self._end.last_seq or 0)

    # --- control --------------------------------------------------------------------------------------------------

    def status(self) -> PriceReplayStatus:
        """Ask the broker for status, position, progress and rate."""
        return self._ask("GetPriceReplayStatus", PriceReplayRef(replay_id=self.id), PriceReplayStatus)

    def pause(self) -> ReplayState:
        """Pause it, and return when nothing more is published. Raises `StateConflict` when it has ended."""
        return self._control("Pause")

    def resume(self) -> ReplayState:
        """Continue with the next bar. Raises `StateConflict` when it has ended."""
        return self._control("Resume")

    def stop(self) -> ReplayState:
        """Stop it. Published prices can still be read. A price replay that has ended stays as it is."""
        state = self._control("Stop")
        self._check_status()
        return state

    def _control(self, verb: str) -> ReplayState:
        return self._ask(f"{verb}PriceReplay", PriceReplayRef(replay_id=self.id), PriceReplayAccepted).status

    def close(self) -> None:
        """Receive nothing more.

        With a rate the price replay continues. One that goes as fast as it is read waits, and is stopped when this
        client's session ends.
        """
        self._subscription.close()

    def __enter__(self) -> PriceReplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        with contextlib.suppress(NotFound):  # the broker was restarted
            self.stop()


def replay_request(
    symbol: str,
    timeframe: str,
    start: Instant | None,
    end: Instant | None,
    rate: Rate,
    price: TickPrice | None = None,
) -> StartPriceReplay:
    """Return the request, with an id of its own. Raises `ValueError` unless there is exactly one rate."""
    if sum(value is not None and value is not False for value in rate.values()) != 1:
        raise ValueError("give one of bars_per_second, speed (1 is real time) and as_fast_as_read=True")
    return StartPriceReplay(
        replay_id=str(uuid.uuid4()),
        symbol=symbol,
        timeframe=timeframe,
        price=price,
        start_time=None if start is None else as_ms(start),
        end_time=None if end is None else as_ms(end),
        **rate,
    )


def start_replay(ask: Requester, io_thread: IoThread, asked: StartPriceReplay) -> PriceReplay:
    """Have the broker start a price replay, and receive its prices."""
    try:
        started = ask("StartPriceReplay", asked, PriceReplayStarted)
    except (KeyboardInterrupt, TimedOut):  # it may wait behind a long import, and would start later without a reader
        with contextlib.suppress(NotFound):
            ask("StopPriceReplay", PriceReplayRef(replay_id=asked.replay_id or ""), PriceReplayAccepted)
        raise
    return PriceReplay(ask, io_thread, asked, started)
