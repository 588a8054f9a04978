"""Every form of a batch holds the same messages, and a hostile batch raises one type of error."""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.core.batches import MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, PriceColumns, open_payload
from backtestr.core.counters import StreamCounters
from backtestr.core.effects import DELIVERY_BYTES, DeliveredBatch, Delivery, Gap, StreamMessage, weight
from backtestr.core.topic_stream import TopicStream, unpack
from backtestr.core.updates import as_update, decode_batch
from backtestr_protocol.codec import encode
from backtestr_protocol.envelopes import Payload
from backtestr_protocol.errors import MessageError, SerializationError, ValidationError
from backtestr_protocol.messages import Missed, MissedMessage
from backtestr_protocol.stream_messages import PriceUpdate
from support.client.batches import PACK, TOPIC, batch_of, column, columns, of_columns, of_messages, price

AMPLE = 1_000


def prices(unpacked: list[tuple[int, Payload]]) -> list[tuple[int, PriceUpdate]]:
    return [(seq, msgspec.msgpack.decode(one.data, type=PriceUpdate)) for seq, one in unpacked]


@pytest.mark.parametrize("compression", PACK)
@pytest.mark.parametrize("make", [of_messages, of_columns])
def test_every_form_of_a_batch_is_the_same_messages(make: Any, compression: str) -> None:
    assert prices(unpack(7, make(1, 60, compression))) == [(seq, price(seq - 6)) for seq in range(7, 66)]


def test_a_table_has_the_prices_with_their_sequence_numbers() -> None:
    found = open_payload(of_columns(1, 3))
    assert isinstance(found, PriceColumns)
    expected = pl.DataFrame(
        {
            "seq": [5, 6],
            "timestamp": pl.Series([1, 2]).cast(pl.Datetime("ms", "UTC")).cast(pl.Datetime("us", "UTC")),
            "symbol": ["S", "S"],
            "timeframe": ["1m", "1m"],
            "bid": [1.25, 2.25],
            "ask": [1.5, 2.5],
            "last": [1.5, 1.5],
            "volume": [3.0, 3.0],
        }
    )
    assert found.frame(5).equals(expected)
    assert found.frame(5).schema == expected.schema
    assert found.after(1).frame(6).equals(expected[1:])


def test_an_unknown_column_is_ignored() -> None:
    assert prices(unpack(1, of_columns(1, 3, changed={"venue": "X", "depth": column([1, 2], "<i8")})))[1][1] == price(2)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (of_messages(1, 3, "zstd", messages=b"x"), "not zstd"),
        (of_messages(1, 3, "lz4", rawBytes=9), "9 bytes"),
        (of_messages(1, 3, "none", messages=b"x"), "another form"),
        (of_messages(1, 3, "gzip", messages=[]), "another form"),
        (of_messages(1, 3, count=4), "4 messages; it holds 2"),
        (of_messages(1, 3, messages=None), "either messages or columns"),
        (of_messages(1, 3, columns={}), "either messages or columns"),
        (of_columns(1, 3, changed={"bid": column([1.0], "<f8")}), "column bid of 2 prices"),
        (of_columns(1, 3, changed={"bid": column([1, 2], "<i8")}), "column bid of 2 prices"),
        (of_columns(1, 3, changed={"bid": "cheap"}), "column bid of 2 prices"),
        (of_columns(1, 3, changed={"timestamp": 1.5}), "column timestamp of 2 prices"),
        (of_columns(1, 3, changed={"timestamp": 2**63}), "beyond 64 bits"),
        (of_columns(1, 3, changed={"symbol": 5}), "column symbol"),
        (of_columns(1, 3, changed={"symbol": column([1, 2], "<i8")}), "column symbol"),
        (of_columns(1, 3, type="OrderUpdate"), "OrderUpdate"),
        (of_columns(1, 3, type=None), "None"),
        (of_columns(1, 3, count=0), "batch of 0 messages"),
        (of_columns(1, 3, "lz4", count=MAX_BATCH_MESSAGES + 1), f"1 to {MAX_BATCH_MESSAGES}"),
        (of_columns(1, 3, "zstd", columns=b"x"), "not zstd"),
        (of_columns(1, 3, "none", columns=b"x"), "another form"),
    ],
)
def test_the_error_of_a_wrong_batch_says_what_is_wrong(payload: Payload, words: str) -> None:
    with pytest.raises(SerializationError, match=words):
        unpack(4, payload)


@pytest.mark.parametrize("field", ["messages", "columns"])
@pytest.mark.parametrize("compression", PACK)
def test_a_batch_that_claims_to_be_too_large_is_refused_before_it_is_unpacked(field: str, compression: str) -> None:
    with pytest.raises(SerializationError, match=f"{MAX_BATCH_BYTES} at most") as caught:
        unpack(4, batch_of({"count": 1, "compression": compression, "rawBytes": MAX_BATCH_BYTES + 1, field: b"x"}))
    assert caught.value.details == {"bytes": MAX_BATCH_BYTES + 1}


def test_an_unknown_compression_is_an_error() -> None:
    with pytest.raises(ValidationError, match="brotli"):
        unpack(4, batch_of({"count": 1, "compression": "brotli", "rawBytes": 1, "messages": b"x"}))


values = st.one_of(
    st.text(max_size=3),
    st.floats(),
    st.integers(-(2**63), 2**64 - 1),
    st.builds(lambda dtype, data: {"dtype": dtype, "data": data}, st.sampled_from(["<f8", "<i8", ">f8"]), st.binary()),
)


@given(st.binary(max_size=100))
def test_hostile_bytes_raise_one_type(body: bytes) -> None:
    try:
        unpack(1, Payload("Batch", msgspec.Raw(body)))
    except MessageError:
        return


@given(
    st.integers(-2, 70_000),
    st.sampled_from(list(PACK)),
    st.dictionaries(st.sampled_from(list(columns(0, 1))), values),
    st.integers(-10, 10),
    st.integers(0, 3),
)
def test_hostile_columns_raise_one_type(
    count: int, compression: str, changes: dict[str, Any], by: int, rows: int
) -> None:
    raw = encode({**columns(0, rows), **changes})
    batch = {"count": count, "compression": compression, "rawBytes": len(raw) + by, "type": "PriceUpdate"}
    try:
        found = open_payload(batch_of({**batch, "columns": PACK[compression](raw)}))
        assert isinstance(found, PriceColumns)
        assert found.frame(1).height == count
    except MessageError:
        return


def missed(first: int, stop: int, make: Any, oldest: int = 1) -> Missed:
    payload = make(first, stop, "lz4")
    kept = MissedMessage(seq=first, payload=msgspec.Raw(encode({"type": payload.type, "data": payload.data})))
    return Missed(topic=TOPIC, from_seq=1, to_seq=stop - 1, oldest_seq=oldest, messages=[kept])


def numbers(deliveries: list[Delivery]) -> list[int | tuple[int, int]]:
    """Return the sequence numbers of deliveries, each checked against its message, and gaps as pairs."""
    found: list[int | tuple[int, int]] = []
    for one in deliveries:
        match one:
            case DeliveredBatch():
                updates = [as_update(row) for row in decode_batch(one)]
                assert [(each.seq, each.data) for each in updates] == [(each.seq, price(each.seq)) for each in updates]
                found += [each.seq for each in updates]
                assert found[-1] == one.last_seq
            case StreamMessage():
                assert msgspec.msgpack.decode(one.data, type=PriceUpdate) == price(one.seq)
                found.append(one.seq)
            case Gap():
                found.append((one.from_seq, one.to_seq))
    return found


def test_columns_in_order_are_delivered_whole() -> None:
    one = TopicStream(TOPIC, from_start=True)
    [batch] = one.receive(1, of_columns(1, 50), AMPLE)
    assert isinstance(batch, DeliveredBatch)
    assert (batch.seq, batch.last_seq, one.next_seq, one.known) == (1, 49, 50, 49)
    assert batch.weight == weight([batch]) == 49 * 40 // DELIVERY_BYTES


def test_columns_that_came_in_part_before_are_delivered_from_the_first_new_one() -> None:
    counters = StreamCounters()
    one = TopicStream(TOPIC, from_start=True, counters=counters)
    one.receive(1, of_columns(1, 30), AMPLE)
    assert numbers(one.receive(20, of_columns(20, 50), AMPLE)) == list(range(30, 50))
    assert counters.duplicates_dropped == 10
    assert one.receive(1, of_columns(1, 50), AMPLE) == []
    assert counters.duplicates_dropped == 59


@pytest.mark.parametrize("make", [of_messages, of_columns])
def test_a_batch_is_delivered_whole_though_an_answer_was_quicker_with_some_of_it(make: Any) -> None:
    counters = StreamCounters()
    one = TopicStream(TOPIC, from_start=True, counters=counters)
    one.note_watermark(60)
    assert one.fetched(missed(40, 61, make, oldest=40), AMPLE) == []
    delivered = one.receive(1, make(1, 50), AMPLE)
    assert isinstance(delivered[0], DeliveredBatch)
    assert numbers(delivered) == list(range(1, 61))
    assert counters.duplicates_dropped == 10


@pytest.mark.parametrize("make", [of_messages, of_columns])
def test_a_gap_is_repaired_with_compressed_batches(make: Any) -> None:
    """The broker retains payloads as they were published: compressed, or as columns."""
    one = TopicStream(TOPIC, from_start=True)
    assert one.receive(40, make(40, 50), AMPLE) == []
    assert one.missing() == (1, 39)
    assert numbers(one.fetched(missed(1, 45, make), AMPLE)) == list(range(1, 50))


def test_without_space_for_a_whole_batch_a_part_is_delivered() -> None:
    one = TopicStream(TOPIC, from_start=True)
    assert numbers(one.receive(1, of_columns(1, 1000), 5)) == [1, 2, 3, 4, 5]
    assert numbers(one.resume(AMPLE)) == list(range(6, 1000))


@given(st.data())
def test_lost_doubled_and_reordered_batches_are_delivered_once_in_order(data: st.DataObject) -> None:
    """The law of single messages (test_topic_stream) holds for batches in every form."""
    total = data.draw(st.integers(1, 60), "total")
    counters = StreamCounters()
    one = TopicStream(TOPIC, from_start=True, counters=counters)
    delivered: list[Delivery] = []
    for _ in range(data.draw(st.integers(0, 12), "arrivals")):
        first = data.draw(st.integers(1, total), "first")
        stop = data.draw(st.integers(first + 1, total + 1), "stop")
        make = data.draw(st.sampled_from([of_messages, of_columns]), "form")
        space = data.draw(st.integers(0, 20), "space")
        out = one.receive(first, make(first, stop), space)
        assert weight(out) <= space
        delivered += out
        one.check_invariants()
    one.note_watermark(total)
    while True:
        delivered += one.resume(AMPLE)
        if (lacking := one.missing()) is None:
            break
        one.note_repair(lacking[1])
        delivered += one.fetched(missed(lacking[0], lacking[1] + 1, of_columns), AMPLE)
        one.check_invariants()
    assert numbers(delivered) == list(range(1, total + 1))
    assert (counters.gaps_open, counters.messages_lost) == (0, 0)
