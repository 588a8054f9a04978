"""Sequence numbers are dense in each topic, rings are bounded in messages and bytes, and FetchMissed reads them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core.streams import sequencer as sequencer_module
from backtestr_broker.core.streams.sequencer import Sequencer
from backtestr_protocol import topics
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import NotFound, ValidationError
from backtestr_protocol.messages import Missed

ERRORS_KEPT = 100  # PROTOCOL.md, section 7


def filled(topic: str, *counts: int) -> Sequencer:
    """Append a payload for each count; the payload is the text of its first number."""
    sequencer = Sequencer()
    for count in counts:
        sequencer.append(topic, encode(sequencer.last_seq(topic) + 1), count)
    sequencer.check_invariants()
    return sequencer


def numbers(missed: Missed) -> list[int]:
    for message in missed.messages:
        assert bytes(message.payload) == encode(message.seq), "a message has the payload of another number"
    return [message.seq for message in missed.messages]


def test_each_topic_has_its_own_numbers_from_one() -> None:
    sequencer = Sequencer()
    placed = [sequencer.append(topic, b"\xc0").seq for topic in ("orders.a", "orders.b", "orders.a", "progress.a")]
    assert placed == [1, 1, 2, 1]
    assert sequencer.last_seq("orders.a") == 2
    assert sequencer.last_seq("orders.none") == 0


def test_a_batch_takes_as_many_numbers_as_it_has_messages() -> None:
    sequencer = filled("orders.a", 1, 5, 1)
    assert numbers(sequencer.fetch("orders.a", 1, None)) == [1, 2, 7]
    assert sequencer.append("orders.a", b"\xc0").seq == 8


def test_a_placed_payload_says_where_it_goes() -> None:
    placed = Sequencer().append("progress.a", b"\xc0")
    assert (placed.name, placed.topic_class.socket, placed.topic_class.message_type) == (
        b"progress.a",
        "progress",
        "Stream",
    )


@pytest.mark.parametrize("topic", ["system.errors", "system.replays", "system.backtests", "system.watermarks"])
def test_a_topic_of_one_name_is_known_before_its_first_message(topic: str) -> None:
    sequencer = Sequencer()
    empty = Missed(topic=topic, from_seq=3, to_seq=0, oldest_seq=1, messages=[])
    assert sequencer.fetch(topic, 3, None) == empty
    assert sequencer.fetch(topic, 3, 9) == empty
    assert len(sequencer) == 0, "to ask makes no topic"
    sequencer.append(topic, b"\xc0")
    assert sequencer.fetch(topic, 3, None).to_seq == 1


@pytest.mark.parametrize("topic", ["orders.unknown", "state.unknown", "prices.S.1m", "system.error", "system."])
def test_another_topic_is_not(topic: str) -> None:
    with pytest.raises(NotFound):
        Sequencer().fetch(topic, 1, None)


def test_an_invalid_topic_is_refused() -> None:
    with pytest.raises(ValueError, match="is no topic"):
        Sequencer().append("weather.today", b"\xc0")


@pytest.mark.parametrize(
    ("from_seq", "to_seq", "expected", "answered_to"),
    [
        (1, None, [1, 2, 3, 4], 4),
        (1, 1, [1], 1),
        (2, 3, [2, 3], 3),
        (4, 99, [4], 4),
        (5, None, [], 4),
        (99, None, [], 4),
        (99, 100, [], 4),
    ],
)
def test_a_fetch_returns_the_retained_messages_in_its_range(
    from_seq: int, to_seq: int | None, expected: list[int], answered_to: int
) -> None:
    missed = filled("orders.a", 1, 1, 1, 1).fetch("orders.a", from_seq, to_seq)
    assert numbers(missed) == expected
    assert (missed.from_seq, missed.to_seq, missed.oldest_seq) == (from_seq, answered_to, 1)


@pytest.mark.parametrize(("from_seq", "to_seq", "expected"), [(3, 3, [2]), (6, 7, [2, 7]), (7, 7, [7]), (1, 2, [1, 2])])
def test_a_batch_is_given_whole_for_any_message_of_it(from_seq: int, to_seq: int, expected: list[int]) -> None:
    assert numbers(filled("orders.a", 1, 5, 1).fetch("orders.a", from_seq, to_seq)) == expected


def test_a_known_topic_without_messages_says_so() -> None:
    sequencer = Sequencer()
    sequencer.create("orders.a")
    missed = sequencer.fetch("orders.a", 1, None)
    assert (missed.to_seq, missed.oldest_seq, missed.messages) == (0, 1, [])


def test_an_unknown_topic_is_not_found_and_the_nearest_is_named() -> None:
    with pytest.raises(NotFound, match=r"did you mean 'orders\.abc'") as caught:
        filled("orders.abc", 1).fetch("order.abc", 1, None)
    assert caught.value.details is not None
    assert caught.value.details["known"] == ["orders.abc"]


def test_bounds_that_contradict_are_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        filled("orders.a", 1, 1).fetch("orders.a", 2, 1)
    assert caught.value.details == {"path": "$.toSeq"}


def test_a_ring_retains_the_messages_of_its_class_and_states_the_gap() -> None:
    sequencer = filled(topics.ERRORS, *[1] * (ERRORS_KEPT + 5))
    missed = sequencer.fetch(topics.ERRORS, 1, None)
    assert numbers(missed) == list(range(6, ERRORS_KEPT + 6))
    assert missed.oldest_seq == 6
    assert missed.to_seq == ERRORS_KEPT + 5


def test_a_ring_of_batches_retains_at_least_the_messages_of_its_class() -> None:
    sequencer = filled(topics.ERRORS, *[30] * 10)
    missed = sequencer.fetch(topics.ERRORS, 1, None)
    assert numbers(missed) == [181, 211, 241, 271]
    assert missed.oldest_seq == 181


def test_one_batch_larger_than_the_ring_is_retained() -> None:
    sequencer = filled(topics.STATUS, 1, 1, 5)
    assert numbers(sequencer.fetch(topics.STATUS, 1, None)) == [3]


def test_an_answer_is_cut_and_states_its_last_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer_module, "MAX_ANSWER_BYTES", 250)
    sequencer = Sequencer()
    for _ in range(5):
        sequencer.append("orders.a", bytes(100), count=2)
    first = sequencer.fetch("orders.a", 1, 9)
    assert ([one.seq for one in first.messages], first.to_seq) == ([1, 3], 4)
    second = sequencer.fetch("orders.a", first.to_seq + 1, 9)
    assert ([one.seq for one in second.messages], second.to_seq) == ([5, 7], 8)
    third = sequencer.fetch("orders.a", second.to_seq + 1, 9)
    assert ([one.seq for one in third.messages], third.to_seq) == ([9], 9)


def test_one_message_over_the_limit_is_answered_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer_module, "MAX_ANSWER_BYTES", 50)
    sequencer = Sequencer()
    sequencer.append("orders.a", bytes(100))
    sequencer.append("orders.a", bytes(100))
    missed = sequencer.fetch("orders.a", 1, None)
    assert ([one.seq for one in missed.messages], missed.to_seq) == ([1], 1)


def test_all_rings_together_are_bounded_and_the_longest_quiet_loses_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer_module, "MAX_RETAINED_BYTES", 1000)
    sequencer = Sequencer()
    for topic in ("orders.quiet", "orders.busy"):
        for _ in range(4):
            sequencer.append(topic, bytes(100))
    for _ in range(4):
        sequencer.append("orders.busy", bytes(100))
        sequencer.check_invariants()
    quiet = sequencer.fetch("orders.quiet", 1, None)
    assert quiet.oldest_seq == 5 - len(quiet.messages) > 1, "the gap is stated"
    assert quiet.to_seq == 4
    assert sequencer.fetch("orders.busy", 1, None).oldest_seq == 1
    assert sequencer.append("orders.quiet", b"\xc0").seq == 5


def test_a_dropped_topic_is_unknown_and_begins_again() -> None:
    sequencer = filled("orders.a", 1, 1)
    sequencer.drop("orders.a")
    sequencer.drop("orders.never")
    sequencer.check_invariants()
    assert sequencer.take_advanced() == {}
    with pytest.raises(NotFound):
        sequencer.fetch("orders.a", 1, None)


def test_an_advance_is_reported_once() -> None:
    sequencer = filled("orders.a", 1, 4)
    sequencer.create("orders.b")
    moves = [(sequencer.has_advanced, sequencer.take_advanced()) for _ in range(2)]
    assert moves == [(True, {"orders.a": 5}), (False, {})]


def test_the_report_of_an_advance_can_be_left_out() -> None:
    sequencer = filled(topics.WATERMARKS, 1)
    sequencer.forget_advance(topics.WATERMARKS)
    assert not sequencer.has_advanced
    assert sequencer.take_advanced() == {}


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=30), start=st.integers(1, 900), length=st.integers(0, 200)
)
def test_a_fetch_has_every_retained_message_in_its_range(counts: list[int], start: int, length: int) -> None:
    """A message at or above `oldestSeq` and within the range is returned; a gap below it is stated."""
    sequencer = filled(topics.ERRORS, *counts)
    last = sum(counts)
    missed = sequencer.fetch(topics.ERRORS, start, start + length)
    firsts = [sum(counts[:number]) + 1 for number in range(len(counts))]
    covered = {
        seq
        for first, count in zip(firsts, counts, strict=True)
        if first in numbers(missed)
        for seq in range(first, first + count)
    }
    wanted = set(range(max(start, missed.oldest_seq), min(start + length, last) + 1))
    assert wanted <= covered
    assert missed.to_seq == min(start + length, last)
    assert last - missed.oldest_seq + 1 >= min(last, ERRORS_KEPT)


def test_a_wrong_name_is_compared_with_the_latest_topics_only() -> None:
    """With thousands of topics, a comparison with each would delay every client."""
    sequencer = filled("orders.long-quiet", 1)
    for number in range(sequencer_module.COMPARED):
        sequencer.append(f"progress.{number}", b"\xc0")
    with pytest.raises(NotFound) as caught:
        sequencer.fetch("orders.long-quie", 1, None)
    assert "did you mean" not in caught.value.message
    sequencer.append("orders.long-quiet", b"\xc0")
    with pytest.raises(NotFound, match=r"did you mean 'orders\.long-quiet'"):
        sequencer.fetch("orders.long-quie", 1, None)


def test_a_long_wrong_name_is_not_sent_back_whole() -> None:
    with pytest.raises(NotFound) as caught:
        filled("orders.a", 1).fetch("x" * 1_000_000, 1, None)
    assert len(repr((caught.value.message, caught.value.details))) < 1000


def test_numbers_of_messages_that_are_elsewhere_leave_no_hole_in_the_ring() -> None:
    sequencer = Sequencer()
    sequencer.append("orders.b1", b"a")
    assert sequencer.skip("orders.b1", 5).prefix == "orders."
    assert (sequencer.last_seq("orders.b1"), sequencer.oldest_seq("orders.b1")) == (6, 7)
    sequencer.append("orders.b1", b"b")
    sequencer.check_invariants()
    assert [one.seq for one in sequencer.fetch("orders.b1", 1, None).messages] == [7]
    assert sequencer.take_advanced() == {"orders.b1": 7}
    assert sequencer.oldest_seq("orders.none") == 1
