"""Deliveries count against a bound by their size, and a batch knows its last sequence number."""

from __future__ import annotations

import pytest

from backtestr.core.batches import PackedMessages, PriceColumns, open_payload
from backtestr.core.effects import DELIVERY_BYTES, DeliveredBatch, Gap, MaybeLost, Restarted, weight
from backtestr_protocol.envelopes import Payload
from support.client.batches import TOPIC, of_columns, of_messages


def batch(payload: Payload, seq: int = 1) -> DeliveredBatch:
    content = open_payload(payload)
    assert isinstance(content, PackedMessages | PriceColumns)
    return DeliveredBatch(TOPIC, seq, content)


@pytest.mark.parametrize("make", [of_messages, of_columns])
def test_a_batch_ends_with_its_last_sequence_number(make: object) -> None:
    assert callable(make)
    one = batch(make(1, 51), seq=7)
    assert (one.seq, one.last_seq) == (7, 56)


def test_a_small_batch_counts_as_one_delivery() -> None:
    assert batch(of_columns(1, 3)).weight == 1


def test_a_large_batch_counts_by_its_bytes() -> None:
    one = batch(of_columns(1, 10_001))
    assert one.weight == one.content.size // DELIVERY_BYTES > 1


def test_every_other_delivery_counts_as_one() -> None:
    one = batch(of_columns(1, 10_001))
    assert weight([one, Gap(TOPIC, 1, 900), Restarted("i"), MaybeLost("state.")]) == one.weight + 3
    assert weight([]) == 0
