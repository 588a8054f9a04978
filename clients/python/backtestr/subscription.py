"""A subscription is a program's reading of a topic or a prefix."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

import polars as pl

from backtestr.core.effects import DeliveredBatch, Gap, MaybeLost, Restarted, StreamMessage
from backtestr.core.subscriptions import Since
from backtestr.core.topic_stream import TopicStream
from backtestr.core.update_filter import UpdateFilter, narrowed
from backtestr.core.updates import Update, as_update, decode_batch, read_message
from backtestr.io.io_thread import IoThread
from backtestr.io.mailboxes import MAX_UNREAD, time_left
from backtestr_protocol import topics
from backtestr_protocol.errors import did_you_mean
from backtestr_protocol.messages import FetchMissed, Missed

from .price_tables import frames
from .requester import Requester


class GapWarning(UserWarning):
    """A warning that messages are lost: the reader was so slow that the broker no longer retained them.

    The results of a backtest have them all.
    """


def checked_prefix(prefix: str) -> str:
    """Return `prefix` if it names a topic or, ending with a dot, is the start of topic names. Raises `ValueError`."""
    possible = topics.sockets_for(prefix) if prefix.endswith(".") else topics.class_of(prefix)
    if not possible:
        known = [one.prefix for one in topics.CLASSES]
        raise ValueError(
            f"{prefix!r} is neither a topic nor the beginning of one that ends with a dot"
            f"{did_you_mean(prefix, known)} ({', '.join(known)})"
        )
    return prefix


class Subscription:
    """An iterable of `Update`, `Gap` and `Restarted`, for one reading thread; also a context manager.

    A `Gap` states messages that are lost for good. `Restarted` states that another start of the broker answers now:
    topics are read again from number 1. The iteration ends when the subscription is closed. If an error ends it, the
    error is raised after everything before it was read.
    """

    def __init__(
        self,
        io_thread: IoThread,
        prefix: str,
        since: Since,
        until: str | None = None,
        first_seq: int = 1,
        wanted: UpdateFilter | None = None,
    ) -> None:
        self.prefix = prefix
        self._io_thread = io_thread
        self._wanted = wanted
        of_broker = narrowed(checked_prefix(prefix), wanted)
        self._subscription_id, self._mailbox = io_thread.open(of_broker, since, until, first_seq)
        self._rows: Iterator[Update | StreamMessage] = iter(())  # the unread rest of a batch

    def next(self, timeout: float | None = None) -> Update | Gap | Restarted | None:
        """Return what comes next; None at the end. Raises `TimedOut` when nothing came within `timeout` seconds."""
        if self._wanted is None:
            return self._next(timeout)
        left = time_left(timeout)
        while True:
            update = self._next(left())
            if not isinstance(update, Update) or self._wanted.passes(update.data):
                return update

    def _next(self, timeout: float | None) -> Update | Gap | Restarted | None:
        for row in self._rows:
            return row if isinstance(row, Update) else read_message(row)
        delivery = self._mailbox.peek(timeout)
        assert not isinstance(delivery, MaybeLost)  # which only a subscription to the latest of each topic gets
        if isinstance(delivery, DeliveredBatch):
            rows = iter(decode_batch(delivery))  # before the take: a Ctrl-C in between loses nothing
            self._mailbox.take(0.0)
            self._rows = rows
            return as_update(next(rows))
        self._mailbox.take(0.0)
        return read_message(delivery) if isinstance(delivery, StreamMessage) else delivery

    def __iter__(self) -> Iterator[Update | Gap | Restarted]:
        while (update := self.next()) is not None:
            yield update
            if self._wanted is None:  # the rest of a batch, without a call for each of its messages
                for row in self._rows:
                    yield row if isinstance(row, Update) else read_message(row)

    def frames(self) -> Iterator[pl.DataFrame | Gap | Restarted]:
        """Yield prices as tables `seq timestamp symbol timeframe bid ask last volume`, until `close` is called.

        A table joins the unread prices, up to 65,536 rows. This is made for column batches, in which a backtest that
        this client starts publishes its prices: they cost a small part of reading prices one by one. Lost messages are
        stated as in the iteration. Raises `ValueError` for a subscription to anything but prices.
        """
        if not self.prefix.startswith("prices."):
            raise ValueError(f"{self.prefix!r} is no topic of prices, and has no frames")
        tables = frames(self._mailbox, map(as_update, self._rows))
        if self._wanted is None or self._wanted.symbols is None:
            return tables
        return _of_symbols(tables, self._wanted.symbols)

    def close(self) -> None:
        """Receive nothing more; what has arrived can still be read."""
        self._io_thread.shut(self._subscription_id)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _of_symbols(
    tables: Iterator[pl.DataFrame | Gap | Restarted], symbols: frozenset[str]
) -> Iterator[pl.DataFrame | Gap | Restarted]:
    for one in tables:
        if not isinstance(one, pl.DataFrame):
            yield one
        elif not (wanted := one.filter(pl.col("symbol").is_in(sorted(symbols)))).is_empty():
            yield wanted


def fetch_missed(ask: Requester, topic: str, from_seq: int, to_seq: int | None) -> list[Update | Gap]:
    """Fetch messages of a topic, page by page, as far as the broker retains them; a `Gap` states those it does not."""
    stream = TopicStream(topic, from_start=True)
    stream.next_seq = from_seq
    found: list[Update | Gap] = []
    while to_seq is None or stream.next_seq <= to_seq:
        request = FetchMissed(topic=topic, from_seq=stream.next_seq, to_seq=to_seq)
        answer = ask("FetchMissed", request, Missed)
        for delivery in stream.fetched(answer, MAX_UNREAD):
            if isinstance(delivery, Gap):
                found.append(delivery)
            elif isinstance(delivery, StreamMessage) and (to_seq is None or delivery.seq <= to_seq):
                found.append(read_message(delivery))
        if not answer.messages:
            break
    return found
