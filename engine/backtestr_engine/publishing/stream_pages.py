"""Pages of a backtest's topics: the data of answers to FetchMissed, made of its records and its stream log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from backtestr_engine.data.arrays import Records
from backtestr_protocol import topics
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import ValidationError
from backtestr_protocol.messages import FetchMissed, Missed, MissedMessage

from .record_encoding import EncodedMaps
from .record_messages import changes_and_marks, order_messages, progress_messages
from .stream_log import StreamLog

# Messages of one batch, and of one page: half of what a client holds ahead of a gap, and some milliseconds of work for
# each who makes it, passes it on and reads it.
BATCH = 1_000
PAGE = 5_000
# Bytes of one page after the first batch. The broker passes it on in some milliseconds, and serves others in between.
PAGE_BYTES = 1 << 20

Pack = Callable[[str, EncodedMaps], bytes]
"""A function that returns one stream payload of the messages of a topic."""


class Recorded(Protocol):
    """The records of a backtest, all so far or all of a stored result."""

    @property
    def backtest_id(self) -> str: ...

    @property
    def symbols(self) -> Sequence[str]: ...

    @property
    def orders(self) -> Records:
        """Every state of every order."""
        ...

    @property
    def positions(self) -> Records:
        """Every change of a position."""
        ...


def last_seq(recorded: Recorded, log: StreamLog, topic: str) -> int:
    """Return the number of the latest message of one of the backtest's topics."""
    if topic == topics.orders(recorded.backtest_id):
        return len(recorded.orders) if log.has_orders else 0
    if topic == topics.positions(recorded.backtest_id):
        return len(recorded.positions) + log.marks_made if log.has_positions else 0
    return log.progress_made


def messages(recorded: Recorded, log: StreamLog, topic: str, first: int, stop: int) -> EncodedMaps:
    """Return messages [first, stop) of one of the backtest's topics, counted from 0."""
    backtest_id, symbols = recorded.backtest_id, recorded.symbols
    if topic == topics.orders(backtest_id):
        return order_messages(backtest_id, symbols, recorded.orders[first:stop])
    if topic == topics.positions(backtest_id):
        return changes_and_marks(backtest_id, symbols, *log.positions(recorded.positions, first, stop))
    return progress_messages(log.progress(backtest_id, first, stop))


def page(recorded: Recorded, log: StreamLog, request: FetchMissed, pack: Pack) -> bytes:
    """Return the data of an answer to FetchMissed: as many of the messages as a page has.

    Raises `ValidationError` for a topic that is not the backtest's.
    """
    topic = request.topic
    if topic not in topics.of_backtest(recorded.backtest_id):
        raise ValidationError(f"$.topic: {topic[:200]!r} is no topic of {recorded.backtest_id!r}", path="$.topic")
    last = last_seq(recorded, log, topic)
    stop = last if request.to_seq is None else min(last, request.to_seq)
    wanted = min(stop, request.from_seq - 1 + PAGE)
    found: list[MissedMessage] = []
    size, reached = 0, request.from_seq - 1
    if wanted > reached:
        made = messages(recorded, log, topic, reached, wanted)
        for first in range(0, len(made), BATCH):
            payload = pack(topic, made.cut(first, min(first + BATCH, len(made))))
            if found and size + len(payload) > PAGE_BYTES:
                break
            found.append(MissedMessage(seq=request.from_seq + first, payload=msgspec.Raw(payload)))
            size += len(payload)
            reached = request.from_seq - 1 + min(first + BATCH, len(made))
    to_seq = reached if found else stop
    return encode(Missed(topic=topic, from_seq=request.from_seq, to_seq=to_seq, oldest_seq=1, messages=found))
