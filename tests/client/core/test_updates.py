"""A batch is read as the same updates as its messages one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.core.batches import PackedMessages, open_payload
from backtestr.core.effects import DeliveredBatch, StreamMessage
from backtestr.core.updates import Update, as_update, decode_batch, read_message
from backtestr_protocol.codec import encode, encoded_payload
from backtestr_protocol.envelopes import Payload
from backtestr_protocol.errors import MessageError, ValidationError
from backtestr_protocol.stream_messages import Batch
from support.client.batches import of_columns, of_messages, price

TOPIC = "prices.S.1m"
OTHER = {"name": "made up"}


def read(batch: DeliveredBatch) -> Iterator[Update]:
    return map(as_update, decode_batch(batch))


def packed_batch(*payloads: bytes, skipped: int = 0) -> DeliveredBatch:
    messages = [msgspec.Raw(one) for one in payloads]
    batch = Batch(count=len(payloads), compression="none", raw_bytes=1, messages=messages)
    found = open_payload(Payload("Batch", msgspec.Raw(encode(batch))))
    assert isinstance(found, PackedMessages)
    return DeliveredBatch(TOPIC, 1 + skipped, found.after(skipped))


@given(st.lists(st.sampled_from(["PriceUpdate", "Novelty"]), min_size=1, max_size=8), st.data())
def test_a_batch_reads_as_its_messages_do(types: list[str], data: st.DataObject) -> None:
    """The messages have one type, several, or one that this client does not know."""
    contents: list[Any] = [price(seq) if name == "PriceUpdate" else OTHER for seq, name in enumerate(types, 1)]
    bodies = [encoded_payload(name, content) for name, content in zip(types, contents, strict=True)]
    skipped = data.draw(st.integers(0, len(types) - 1))
    singly = [
        read_message(StreamMessage(TOPIC, seq, name, msgspec.Raw(encode(content))))
        for seq, (name, content) in enumerate(zip(types, contents, strict=True), 1)
    ]
    assert list(read(packed_batch(*bodies, skipped=skipped))) == singly[skipped:]


def test_a_damaged_message_is_an_error_at_its_position() -> None:
    third = encoded_payload("PriceUpdate", price(3))
    found = read(packed_batch(encoded_payload("PriceUpdate", price(1)), encoded_payload("PriceUpdate", {}), third))
    assert next(found).data == price(1)
    with pytest.raises(ValidationError, match=r"\$\.symbol: required"):
        next(found)
    assert next(found).data == price(3), "and costs no other"


@given(st.binary(max_size=40))
def test_hostile_messages_raise_one_type(body: bytes) -> None:
    try:
        list(read(packed_batch(body)))
    except MessageError:
        return


@pytest.mark.parametrize("make", [of_messages, of_columns])
def test_columns_and_maps_read_the_same(make: Any) -> None:
    content = open_payload(make(1, 5))
    assert not isinstance(content, Payload)
    assert [one.data for one in read(DeliveredBatch(TOPIC, 1, content))] == [price(seq) for seq in range(1, 5)]
