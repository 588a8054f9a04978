"""The messages of a topic are delivered once, in order and without holes, and every loss is stated as a gap."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.core import topic_stream as streams_module
from backtestr.core.counters import StreamCounters
from backtestr.core.effects import Delivery, Gap, StreamMessage
from backtestr.core.topic_stream import MAX_INCONCLUSIVE, TopicStream, unpack
from backtestr_protocol.codec import encode, encoded_payload
from backtestr_protocol.envelopes import Payload
from backtestr_protocol.messages import Missed, MissedMessage
from backtestr_protocol.stream_messages import Batch

TOPIC = "orders.x"
AMPLE = 1_000


def payload(number: int) -> Payload:
    return Payload("Number", msgspec.Raw(encode(number)))


def messages(*numbers: int) -> list[tuple[int, Payload]]:
    return [(number, payload(number)) for number in numbers]


def missed(*numbers: int, to_seq: int, oldest: int = 1) -> Missed:
    kept = [MissedMessage(seq=one, payload=msgspec.Raw(encoded_payload("Number", one))) for one in numbers]
    return Missed(topic=TOPIC, from_seq=1, to_seq=to_seq, oldest_seq=oldest, messages=kept)


def numbers(deliveries: list[Delivery]) -> list[int | tuple[int, int]]:
    found: list[int | tuple[int, int]] = []
    for delivery in deliveries:
        match delivery:
            case StreamMessage():
                assert msgspec.msgpack.decode(delivery.data) == delivery.seq, "a message has a wrong sequence number"
                found.append(delivery.seq)
            case Gap():
                found.append((delivery.from_seq, delivery.to_seq))
    return found


def stream(counters: StreamCounters | None = None) -> TopicStream:
    return TopicStream(TOPIC, from_start=True, counters=counters)


def test_messages_in_order_pass() -> None:
    one = stream()
    assert numbers(one.offer(messages(1, 2), AMPLE)) == [1, 2]
    assert numbers(one.offer(messages(3), AMPLE)) == [3]
    assert one.missing() is None


def test_duplicates_are_dropped() -> None:
    counters = StreamCounters()
    one = stream(counters)
    one.offer(messages(1, 2), AMPLE)
    assert one.offer(messages(1, 2), AMPLE) == []
    assert counters.duplicates_dropped == 2


def test_missing_messages_are_fetched_and_early_ones_wait() -> None:
    one = stream()
    assert one.offer(messages(3, 4), AMPLE) == []
    assert one.missing() == (1, 2)
    assert numbers(one.fetched(missed(1, 2, to_seq=2), AMPLE)) == [1, 2, 3, 4]


def test_messages_that_are_no_longer_retained_may_still_be_on_their_way() -> None:
    one = stream()
    one.offer(messages(1, 2), AMPLE)
    one.note_watermark(9)
    assert one.fetched(missed(8, 9, to_seq=9, oldest=8), AMPLE) == []
    assert one.missing() == (3, 7)
    assert numbers(one.offer(messages(3, 4, 5, 6, 7, 8, 9), AMPLE)) == [3, 4, 5, 6, 7, 8, 9]
    assert one.missing() is None


def test_messages_that_a_later_one_has_overtaken_are_lost() -> None:
    one = stream()
    one.offer(messages(1, 2), AMPLE)
    one.note_watermark(9)
    one.fetched(missed(8, 9, to_seq=9, oldest=8), AMPLE)
    assert one.offer(messages(10), AMPLE) == []
    assert numbers(one.fetched(missed(8, 9, to_seq=9, oldest=8), AMPLE)) == [(3, 7), 8, 9, 10]


def test_messages_that_several_answers_omit_are_lost() -> None:
    one = stream()
    one.offer(messages(1, 2), AMPLE)
    one.note_watermark(9)
    for _ in range(MAX_INCONCLUSIVE):
        assert one.fetched(missed(8, 9, to_seq=9, oldest=8), AMPLE) == []
        assert one.missing() == (3, 7)
    assert numbers(one.fetched(missed(8, 9, to_seq=9, oldest=8), AMPLE)) == [(3, 7), 8, 9]


def test_an_answer_that_overtakes_the_stream_costs_no_message_that_is_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer fills all places for early messages; the next messages in order must still be accepted."""
    monkeypatch.setattr(streams_module, "MAX_AHEAD", 3)
    one = stream()
    one.note_watermark(9)
    assert one.fetched(missed(7, 8, 9, to_seq=9, oldest=7), AMPLE) == []
    assert numbers(one.offer(messages(1, 2, 3, 4, 5, 6), AMPLE)) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_an_answer_that_the_stream_has_passed_proves_no_later_loss() -> None:
    one = stream()
    one.offer(messages(1, 2, 3, 4), AMPLE)
    one.note_watermark(10)
    assert one.missing() == (5, 10)
    one.offer(messages(*range(5, 12)), AMPLE)
    one.offer(messages(15), AMPLE)
    late = msgspec.structs.replace(missed(*range(5, 11), to_seq=10), from_seq=5)
    assert one.fetched(late, AMPLE) == []
    assert one.missing() == (12, 14)


def test_there_is_one_request_at_a_time() -> None:
    one = stream()
    one.offer(messages(3), AMPLE)
    one.request_number = 7
    assert one.missing() is None


def test_a_watermark_reveals_a_lost_last_message() -> None:
    one = stream()
    one.offer(messages(1), AMPLE)
    one.note_watermark(3)
    assert one.missing() == (2, 3)


def test_messages_that_are_no_longer_retained_are_a_gap() -> None:
    one = stream()
    one.offer(messages(9), AMPLE)
    assert numbers(one.fetched(missed(6, 7, 8, to_seq=8, oldest=6), AMPLE)) == [(1, 5), 6, 7, 8, 9]


def test_all_missing_messages_may_be_lost() -> None:
    one = stream()
    one.offer(messages(9), AMPLE)
    assert numbers(one.fetched(missed(to_seq=8, oldest=9), AMPLE)) == [(1, 8), 9]


def test_after_an_answer_that_was_cut_to_size_the_rest_is_fetched() -> None:
    one = stream()
    one.note_watermark(5)
    assert numbers(one.fetched(missed(1, 2, to_seq=2), AMPLE)) == [1, 2]
    assert one.missing() == (3, 5)


def test_messages_that_the_broker_does_not_know_are_lost_and_not_fetched_again() -> None:
    one = stream()
    one.offer(messages(3), AMPLE)
    one.asked_for = 3
    assert numbers(one.fetched(missed(to_seq=0), AMPLE)) == [(1, 2), 3]


def test_a_stream_from_now_begins_with_the_first_message_that_comes() -> None:
    one = TopicStream(TOPIC, from_start=False)
    one.note_watermark(4)
    assert one.missing() is None
    assert numbers(one.offer(messages(5, 6), AMPLE)) == [5, 6]


def test_without_space_the_sequence_stands_still() -> None:
    one = stream()
    assert numbers(one.offer(messages(1, 2, 3), 2)) == [1, 2]
    assert one.has_next
    assert one.missing() is None
    assert numbers(one.resume(AMPLE)) == [3]


def test_a_batch_has_consecutive_numbers() -> None:
    raw = [msgspec.Raw(encoded_payload("Number", number)) for number in (4, 5)]
    batch = Payload("Batch", msgspec.Raw(encode(Batch(count=2, compression="none", raw_bytes=9, messages=raw))))
    assert [seq for seq, _ in unpack(4, batch)] == [4, 5]


@given(st.data())
def test_lost_doubled_and_reordered_messages_are_all_delivered_once_or_stated_as_gaps(data: st.DataObject) -> None:
    """Every number from 1 to n comes once and in order, as a message or in a gap of messages that are not retained.

    The broker retains the latest `retained` messages, the network loses, doubles and reorders messages, and the reader
    has little space.
    """
    total = data.draw(st.integers(1, 30), "total")
    retained = data.draw(st.integers(1, 30), "retained")
    counters = StreamCounters()
    one = stream(counters)
    delivered: list[Delivery] = []
    for number in data.draw(st.lists(st.integers(1, total), max_size=60), "arrivals"):
        delivered += one.offer(messages(number), data.draw(st.integers(0, 3), "space"))
        one.check_invariants()
    one.note_watermark(total)
    oldest = max(1, total - retained + 1)
    for _ in range(10 * total):
        delivered += one.resume(data.draw(st.integers(1, 3), "space"))
        missing = one.missing()
        if missing is None and not one.has_next:
            break
        if missing is not None:
            first, last = missing
            one.note_repair(last)
            assert one.next_seq == first <= last <= total
            cut = data.draw(st.integers(max(first, min(oldest, last)), last), "cut")
            kept = [number for number in range(first, cut + 1) if number >= oldest]
            space = data.draw(st.integers(1, 3), "space")
            fetched = one.fetched(missed(*kept, to_seq=cut, oldest=oldest), space)
            assert len(fetched) <= space
            delivered += fetched
        one.check_invariants()
    covered: list[int] = []
    for found in numbers(delivered):
        if isinstance(found, tuple):
            assert found[1] < oldest
            covered += range(found[0], found[1] + 1)
        else:
            covered.append(found)
    assert covered == list(range(1, total + 1))
    gaps = [found for found in numbers(delivered) if isinstance(found, tuple)]
    assert counters.messages_lost == sum(last - first + 1 for first, last in gaps)
    assert (counters.gaps_lost > 0) == bool(gaps)
    assert counters.gaps_open == 0


def test_a_gap_is_counted_from_its_discovery_to_its_end() -> None:
    counters = StreamCounters()
    one = stream(counters)
    one.offer(messages(4), AMPLE)
    one.note_repair(3)
    one.note_repair(3)  # fetched again, because no answer came
    assert (counters.gaps_seen, counters.gaps_open) == (1, 1)
    one.fetched(missed(1, 2, to_seq=2), AMPLE)
    assert counters.gaps_open == 1
    one.fetched(missed(3, to_seq=3), AMPLE)
    assert (counters.gaps_repaired, counters.gaps_open) == (1, 0)


def test_a_gap_is_lost_if_any_of_it_is() -> None:
    counters = StreamCounters()
    one = stream(counters)
    one.offer(messages(9), AMPLE)
    one.note_repair(8)
    one.fetched(missed(6, 7, 8, to_seq=8, oldest=6), AMPLE)
    assert (counters.gaps_repaired, counters.gaps_lost, counters.messages_lost) == (0, 1, 5)


def test_a_watermark_ahead_is_counted_once() -> None:
    counters = StreamCounters()
    one = stream(counters)
    one.offer(messages(1, 2), AMPLE)
    one.note_watermark(2)
    assert counters.watermarks_behind == 0
    one.note_watermark(5)
    one.note_watermark(5)
    assert counters.watermarks_behind == 1


def test_a_repair_that_is_given_up_is_counted_as_left() -> None:
    counters = StreamCounters()
    one = stream(counters)
    one.offer(messages(3), AMPLE)
    one.note_repair(2)
    one.abandon()
    one.abandon()
    assert (counters.gaps_left, counters.gaps_open) == (1, 0)
