"""Pages follow each other without a hole, and each is bounded."""

from __future__ import annotations

from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest

from backtestr_engine.data.arrays import Records
from backtestr_engine.publishing import stream_pages
from backtestr_engine.publishing.stream_log import StreamLog
from backtestr_engine.publishing.stream_pages import page
from backtestr_engine.simulation.records import ORDER, POSITION
from backtestr_protocol.errors import ValidationError
from backtestr_protocol.messages import FetchMissed
from support.engine.batches import batcher
from support.protocol.independent import messages_of


class Recorded(msgspec.Struct):
    orders: Records
    positions: Records
    backtest_id: str = "b"
    symbols: tuple[str, ...] = ("A",)


@pytest.fixture
def recorded() -> Recorded:
    orders = np.zeros(40, dtype=ORDER)
    orders["order_id"] = np.arange(1, 41)
    return Recorded(orders, np.zeros(5, dtype=POSITION))


def asked(recorded: Recorded, from_seq: int, to_seq: int | None = None, topic: str = "orders.b", **log: bool) -> Any:
    request = FetchMissed(topic=topic, from_seq=from_seq, to_seq=to_seq)
    return msgpack.unpackb(page(recorded, StreamLog(**log), request, batcher().payload))


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_pages, "BATCH", 4)
    monkeypatch.setattr(stream_pages, "PAGE", 10)


@pytest.mark.usefixtures("_small")
def test_pages_follow_each_other(recorded: Recorded) -> None:
    found: list[Any] = []
    pages = 0
    while len(found) < 40:
        answer = asked(recorded, len(found) + 1)
        assert (answer["fromSeq"], answer["oldestSeq"]) == (len(found) + 1, 1)
        assert [one["seq"] for one in answer["messages"]] == [len(found) + 1 + at for at in (0, 4, 8)]
        found += [message for one in answer["messages"] for message in messages_of(one["payload"])]
        assert answer["toSeq"] == len(found)
        pages += 1
    assert pages == 4
    assert [one["data"]["orderId"] for one in found] == [str(one) for one in range(1, 41)]


@pytest.mark.usefixtures("_small")
def test_a_page_has_its_first_batch_whatever_its_bytes_and_no_other_beyond_the_bound(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_pages, "PAGE_BYTES", 1)
    answer = asked(recorded, 3)
    assert (answer["toSeq"], len(answer["messages"])) == (6, 1)


@pytest.mark.parametrize(("from_seq", "to_seq", "reached"), [(41, None, 40), (50, 60, 40), (3, 5, 5), (39, 99, 40)])
def test_a_range_ends_where_it_was_asked_to_or_where_there_is_no_more(
    recorded: Recorded, from_seq: int, to_seq: int | None, reached: int
) -> None:
    answer = asked(recorded, from_seq, to_seq)
    assert answer["toSeq"] == reached
    assert sum(len(messages_of(one["payload"])) for one in answer["messages"]) == max(0, reached - from_seq + 1)


@pytest.mark.parametrize(("topic", "off"), [("orders.b", "orders"), ("positions.b", "positions")])
def test_a_stream_that_is_off_has_no_messages(recorded: Recorded, topic: str, off: str) -> None:
    assert asked(recorded, 1, topic=topic)["messages"]
    answer = asked(recorded, 1, topic=topic, **{off: False})
    assert (answer["toSeq"], answer["messages"]) == (0, [])


def test_a_topic_of_another_backtest_is_refused(recorded: Recorded) -> None:
    with pytest.raises(ValidationError, match="no topic of 'b'"):
        asked(recorded, 1, topic="orders.other")
