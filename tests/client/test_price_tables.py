"""Prices as tables: every row comes once and in order, and every loss is stated."""

from __future__ import annotations

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.core.effects import DeliveredBatch, Delivery, Gap, Restarted, StreamMessage
from backtestr.core.topic_stream import TopicStream
from backtestr.core.updates import Update
from backtestr.io.mailboxes import Mailbox
from backtestr.price_tables import MAX_MESSAGES, MAX_ROWS, frames
from backtestr_protocol.errors import NetworkError, ValidationError
from support.client.batches import TOPIC, of_columns, of_messages, price

GAP = Gap(TOPIC, 4, 6)


def delivered(first: int, stop: int, *, whole: bool = True) -> list[Delivery]:
    """Return the messages [first, stop) as delivered: as columns or one by one."""
    stream = TopicStream(TOPIC, from_start=False)
    return stream.receive(first, (of_columns if whole else of_messages)(first, stop), 1_000_000)


def mailbox(*deliveries: Delivery, error: Exception | None = None) -> Mailbox:
    """Return a mailbox that has ended."""
    one = Mailbox(lambda _: None)
    one.put(list(deliveries))
    one.end(error)
    return one


def read(box: Mailbox) -> list[pl.DataFrame | Gap | Restarted]:
    return list(frames(box, ()))


def seqs(found: list[pl.DataFrame | Gap | Restarted]) -> list[list[int] | tuple[int, int]]:
    return [
        (one.from_seq, one.to_seq) if isinstance(one, Gap) else one["seq"].to_list()
        for one in found
        if not isinstance(one, Restarted)
    ]


def test_unread_prices_are_joined() -> None:
    found = read(mailbox(*delivered(1, 3), *delivered(3, 5), *delivered(5, 8, whole=False)))
    assert seqs(found) == [[1, 2, 3, 4], [5, 6, 7]]
    whole, rows = found
    assert isinstance(whole, pl.DataFrame)
    assert isinstance(rows, pl.DataFrame)
    assert whole.schema == rows.schema
    assert rows["bid"].to_list() == [price(one).bid for one in (5, 6, 7)]


def test_a_gap_stands_between_the_tables() -> None:
    found = read(mailbox(*delivered(1, 4), GAP, *delivered(7, 9), Restarted("other"), *delivered(1, 2)))
    assert seqs(found) == [[1, 2, 3], (4, 6), [7, 8], [1]]
    assert found[3] == Restarted("other")


def test_topics_are_not_mixed_up() -> None:
    [block] = delivered(3, 5)
    assert isinstance(block, DeliveredBatch)
    other = DeliveredBatch("prices.S.5m", 3, block.content)
    assert seqs(read(mailbox(*delivered(1, 3), other))) == [[1, 2], [3, 4]]


def test_tables_are_bounded() -> None:
    found = read(mailbox(*delivered(1, 40_001), *delivered(40_001, 80_001)))
    assert [len(one) for one in seqs(found)] == [40_000, 40_000]
    assert MAX_ROWS < 80_000
    batches = [one for first in (1, 401, 801) for one in delivered(first, first + 400, whole=False)]
    assert [len(one) for one in seqs(read(mailbox(*batches)))] == [800, 400]
    assert MAX_MESSAGES < 1200


def test_the_error_that_ended_it_is_raised_after_the_table_before_it() -> None:
    reading = frames(mailbox(*delivered(1, 4), error=NetworkError("gone")), ())
    first = next(reading)
    assert isinstance(first, pl.DataFrame)
    assert first.height == 3
    with pytest.raises(NetworkError, match="gone"):
        next(reading)


def test_a_reader_that_stops_and_continues_misses_nothing() -> None:
    box = mailbox(*delivered(1, 4), GAP, *delivered(7, 9))
    found = []
    for _ in range(3):
        for one in frames(box, ()):
            found.append(one)
            break
    assert seqs(found) == [[1, 2, 3], (4, 6), [7, 8]]


def test_prices_before_a_damaged_one_are_kept() -> None:
    bad = StreamMessage("prices.S.1m", 3, "PriceUpdate", msgspec.Raw(b"\x80"))
    box = mailbox(*delivered(1, 3, whole=False), bad, *delivered(4, 6))
    reading = frames(box, ())
    assert seqs([next(reading)]) == [[1, 2]]
    with pytest.raises(ValidationError):
        next(reading)
    assert seqs(list(frames(box, ()))) == [[4, 5]]


def test_rows_that_were_read_already_come_first() -> None:
    box = mailbox(*delivered(3, 4, whole=False))
    assert seqs(list(frames(box, [Update("prices.S.1m", 2, "PriceUpdate", price(2))]))) == [[2, 3]]


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), max_size=12))
def test_every_row_comes_once_and_in_order(parts: list[tuple[int, bool]]) -> None:
    deliveries: list[Delivery] = []
    following = 1
    for count, whole in parts:
        deliveries += delivered(following, following + count, whole=whole)
        following += count
    found = read(mailbox(*deliveries))
    tables = [one for one in found if isinstance(one, pl.DataFrame)]
    assert [seq for one in tables for seq in one["seq"]] == list(range(1, following))
    assert [bid for one in tables for bid in one["bid"]] == [price(seq).bid for seq in range(1, following)]
    assert all(isinstance(one, DeliveredBatch | StreamMessage) for one in deliveries)
