"""Subscriptions run against the broker's real core: late ones, losses, slow readers, ends and restarts."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr.core.effects import Ask, Deliver, Gap, MaybeLost, Restarted, StreamMessage, UnattributedError, Wait
from backtestr.core.subscriptions import Subscriptions
from backtestr_protocol.codec import STREAM, Signer, encode, encode_stream, encoded_payload
from backtestr_protocol.envelopes import Outgoing
from backtestr_protocol.errors import NotFound, SerializationError
from backtestr_protocol.messages import FetchMissed, Missed, MissedMessage
from support.client.batches import of_columns, of_messages
from support.client.link import WALL_MS, Link

ORDERS = "orders.b1"
KEY = Signer(bytes(32))


def streamed(topic: str, seq: int, kind: str, data: Any) -> list[bytes]:
    envelope = Outgoing(
        id="m",
        timestamp=WALL_MS,
        schema_version=1,
        message_type="Stream",
        payload={"type": kind, "data": data},
        seq=seq,
        instance_id="i",
    )
    return encode_stream(KEY, topic.encode(), envelope)


def status_of(backtest_id: str, status: str) -> bytes:
    data = {
        "backtestId": backtest_id,
        "status": status,
        "algorithmId": "a",
        "symbol": "S",
        "progressPercent": 100.0,
        "submitTime": WALL_MS,
    }
    return encoded_payload("BacktestStatus", data)


def publish_status(link: Link, status: str, backtest_id: str = "b1") -> None:
    link.core.outbox.publish("system.backtests", status_of(backtest_id, status))
    link.carry_published()


def test_messages_arrive_in_order(link: Link) -> None:
    link.subscribe(1, ORDERS, "start")
    for number in range(3):
        link.publish(ORDERS, number)
    assert link.numbers(1) == [1, 2, 3]


def test_a_late_subscription_gets_the_retained_messages(link: Link) -> None:
    link.publish(ORDERS, 1, 2, 3)
    link.subscribe(1, ORDERS, "retained")
    link.publish(ORDERS, 4)
    assert link.numbers(1) == [1, 2, 3, 4]


@pytest.mark.parametrize("published", [2, 3, 5])
def test_a_subscription_from_a_sequence_number_gets_every_message_from_there_on(link: Link, published: int) -> None:
    link.publish(ORDERS, *range(1, published + 1))
    link.subscribe(1, ORDERS, "retained", first_seq=4)
    for number in range(published + 1, 8):
        link.publish(ORDERS, number)
    assert link.numbers(1) == [4, 5, 6, 7]


def test_after_a_restart_a_subscription_from_a_sequence_number_begins_with_the_first(link: Link) -> None:
    link.publish(ORDERS, 1, 2, 3)
    link.subscribe(1, ORDERS, "retained", first_seq=3)
    link.start_broker()
    link.publish(ORDERS, 1)
    assert [type(one) for one in link.delivered[1]] == [StreamMessage, Restarted, StreamMessage]


def test_a_subscription_from_now_gets_only_new_messages(link: Link) -> None:
    link.publish(ORDERS, 1, 2, 3)
    link.subscribe(1, ORDERS, "now")
    link.publish(ORDERS, 4)
    assert link.numbers(1) == [4]


def test_a_late_subscription_gets_a_gap_for_messages_that_are_no_longer_retained(link: Link) -> None:
    for number in range(5_005):
        link.core.outbox.publish(ORDERS, encoded_payload("Number", number))
    link.carry_published()
    link.subscribe(1, ORDERS, "retained", space=10_000)
    assert link.numbers(1) == [(1, 5), *range(6, 5_006)]


def test_a_subscription_waits_for_an_unknown_topic(link: Link) -> None:
    link.subscribe(1, "prices.EURUSD.1m", "retained")
    link.publish("prices.EURUSD.1m", 1)
    assert link.numbers(1) == [1]
    assert not link.ended


def test_a_jump_is_repaired(link: Link) -> None:
    link.subscribe(1, ORDERS, "start")
    link.publish(ORDERS, 1)
    with link.lossy_streams():
        link.publish(ORDERS, 2, 3)
    link.publish(ORDERS, 4)
    assert link.numbers(1) == [1, 2, 3, 4]


def test_a_lost_last_message_is_found_by_the_watermarks(link: Link) -> None:
    link.subscribe(1, ORDERS, "start")
    with link.lossy_streams(lambda topic: topic == ORDERS):
        link.publish(ORDERS, 1)
        link.advance(1.0)
    assert link.numbers(1) == [1]


def test_a_backlog_that_a_watermark_overtakes_is_waited_for() -> None:
    subscriptions = Subscriptions()
    subscriptions.connected(KEY, "i")
    subscriptions.open(1, ORDERS, "now", 1_000)
    subscriptions.receive(streamed(ORDERS, 1, "Number", 1))
    [wait, check] = subscriptions.receive(streamed("system.watermarks", 5, "Watermarks", {"topics": {ORDERS: 9}}))
    assert isinstance(wait, Wait)
    assert isinstance(check, Ask)  # the first watermark: what was before it is unknown
    late = Missed(topic=ORDERS, from_seq=2, to_seq=8, oldest_seq=9, messages=[])  # what is to come is not retained
    assert subscriptions.answered(check.purpose, late) == []
    [delivered] = subscriptions.receive(streamed(ORDERS, 2, "Number", 2))
    assert isinstance(delivered, Deliver)
    [again] = subscriptions.waited(wait.repair)  # a message has come since
    assert isinstance(again, Wait)
    assert subscriptions.waited(wait.repair) == []
    [fetch] = subscriptions.waited(again.repair)  # none has
    assert isinstance(fetch, Ask)
    assert fetch.data == FetchMissed(topic=ORDERS, from_seq=3, to_seq=9)


def test_an_ended_topic_of_which_nothing_more_is_told_is_read_page_by_page_to_its_end() -> None:
    subscriptions = Subscriptions()
    subscriptions.connected(KEY, "i")
    first = next(one for one in subscriptions.open(1, ORDERS, "retained", 3) if isinstance(one, Ask))

    def answered(ask: Ask, *numbers: int) -> list[Any]:
        assert isinstance(ask.data, FetchMissed)
        assert ask.data.to_seq is None
        found = [
            MissedMessage(seq=seq, payload=msgspec.Raw(encode({"type": "Number", "data": seq}))) for seq in numbers
        ]
        first_seq, last_seq = ask.data.from_seq, max(numbers, default=ask.data.from_seq - 1)
        answer = Missed(topic=ORDERS, from_seq=first_seq, to_seq=last_seq, oldest_seq=1, messages=found)
        return subscriptions.answered(ask.purpose, answer)

    assert [type(one) for one in answered(first, 1, 2, 3)] == [Deliver]  # there is no space for more
    [second] = subscriptions.taken(1, 3)
    assert isinstance(second, Ask)
    [delivered, third] = answered(second, 4, 5)
    assert [one.seq for one in delivered.deliveries] == [4, 5]
    assert third.data.from_seq == 6
    assert answered(third) == []
    assert subscriptions.taken(1, 2) == []


def test_an_empty_answer_says_nothing_of_messages_that_were_told_of_since_it_was_asked_for() -> None:
    subscriptions = Subscriptions()
    subscriptions.connected(KEY, "i")
    check = next(one for one in subscriptions.open(1, ORDERS, "retained", 1_000) if isinstance(one, Ask))
    told = subscriptions.receive(streamed("system.watermarks", 1, "Watermarks", {"topics": {ORDERS: 2}}))
    assert told == [], "a request is under way"
    nothing = Missed(topic=ORDERS, from_seq=1, to_seq=0, oldest_seq=1, messages=[])
    [wait] = subscriptions.answered(check.purpose, nothing)  # the answer is older than the watermark
    assert isinstance(wait, Wait)
    [fetch] = subscriptions.waited(wait.repair)
    assert isinstance(fetch, Ask)
    [lost] = subscriptions.answered(fetch.purpose, nothing)
    assert isinstance(lost, Deliver)
    assert lost.deliveries == [Gap(ORDERS, 1, 2)]


def test_a_loss_is_found_though_its_watermark_is_lost_too(link: Link) -> None:
    link.subscribe(1, ORDERS, "start")
    link.advance(1.5)  # a watermark comes, so that the loss of the next one shows
    with link.lossy_streams():
        link.publish(ORDERS, 1)
        link.advance(0.4)
    link.advance(3.0)
    assert link.numbers(1) == [1]


def test_a_prefix_carries_every_topic_that_advances(link: Link) -> None:
    link.publish("prices.A.1m", 1)
    link.subscribe(1, "prices.", "retained")
    link.publish("prices.A.1m", 2)
    link.publish("prices.B.1m", 1)
    assert [(one.topic, one.seq) for one in link.delivered[1]] == [  # type: ignore[union-attr]
        ("prices.A.1m", 1),
        ("prices.A.1m", 2),
        ("prices.B.1m", 1),
    ]


def test_a_topic_is_not_confused_with_a_longer_name(link: Link) -> None:
    link.subscribe(1, "prices.EUR.1m", "now")
    link.publish("prices.EUR.1mm", 1)
    assert link.numbers(1) == []


def test_a_slow_reader_stops_the_sequence_and_loses_no_retained_message(link: Link) -> None:
    link.subscribe(1, ORDERS, "start", space=10)
    for number in range(100):
        link.publish(ORDERS, number)
    assert link.numbers(1) == [*range(1, 11)]
    link.take(1, 1_000)
    assert link.numbers(1) == [*range(1, 101)]


def test_a_reader_that_is_slower_than_the_retained_ring_gets_a_gap(link: Link) -> None:
    link.subscribe(1, "progress.b1", "start", space=10)
    for number in range(12_000):
        link.core.outbox.publish("progress.b1", encoded_payload("Number", number))
    link.carry_published()
    for _ in range(20):
        link.take(1, 1_000)
    found = link.numbers(1)
    assert found[:10] == [*range(1, 11)]
    assert found[-1] == 12_000
    assert [one for one in found if isinstance(one, tuple)] == [(10_011, 11_000)]


def test_the_end_of_a_backtest_ends_its_streams_after_their_last_message(link: Link) -> None:
    link.subscribe(1, ORDERS, "start", until="b1")
    link.publish(ORDERS, 1, 2)
    publish_status(link, "running")
    assert not link.ended
    with link.lossy_streams():
        link.publish(ORDERS, 3)
    publish_status(link, "completed")
    assert link.numbers(1) == [1, 2, 3]
    assert link.ended == {1: None}
    assert link.finished["b1"].status == "completed"


def test_a_stream_ends_only_when_its_slow_reader_has_everything(link: Link) -> None:
    link.subscribe(1, ORDERS, "start", space=2, until="b1")
    for number in (1, 2, 3):
        link.publish(ORDERS, number)
    publish_status(link, "stopped")
    assert link.numbers(1) == [1, 2]
    assert not link.ended
    link.take(1, 2)
    assert link.numbers(1) == [1, 2, 3]
    assert link.ended == {1: None}


def test_the_end_is_found_though_its_message_is_lost(link: Link) -> None:
    link.subscribe(1, ORDERS, "start", until="b1")
    link.publish(ORDERS, 1)
    with link.lossy_streams():
        publish_status(link, "failed")
    link.advance(3.0)
    assert link.finished["b1"].status == "failed"
    assert link.ended == {1: None}


def test_an_unknown_backtest_ends_with_that_error(link: Link) -> None:
    link.subscribe(1, ORDERS, "retained", until="b1")
    assert isinstance(link.finished["b1"], NotFound)
    assert isinstance(link.ended[1], NotFound)


def test_a_restart_is_stated_and_topics_begin_again(link: Link) -> None:
    link.subscribe(1, "system.backtests", "retained")
    publish_status(link, "running")
    link.start_broker()
    publish_status(link, "queued", "b2")
    publish_status(link, "running", "b2")
    assert [type(one).__name__ for one in link.delivered[1]] == ["StreamMessage", "Restarted", *["StreamMessage"] * 2]
    assert link.delivered[1][1] == Restarted("instance-2")
    assert link.numbers(1) == [1, 1, 2]


def test_the_status_of_a_new_backtest_is_not_asked_for_before_it_has_started(link: Link) -> None:
    link.subscribe(1, ORDERS, "start", until="b1")
    link.start_broker()
    assert link.finished == {}
    link.publish(ORDERS, 1)
    with link.lossy_streams():
        publish_status(link, "completed")
    link.started("b1")  # it has ended meanwhile, and the message was lost
    assert isinstance(link.finished["b1"], NotFound), "this core never had it, and was asked"
    link.started("b1")


def test_a_backtest_that_did_not_outlive_the_broker_ends_with_that_error(link: Link) -> None:
    link.subscribe(1, ORDERS, "start", until="b1")
    link.started("b1")
    link.publish(ORDERS, 1)
    link.start_broker()
    assert isinstance(link.finished["b1"], NotFound)
    assert isinstance(link.ended[1], NotFound)


def test_an_answer_from_before_a_restart_is_dropped(link: Link) -> None:
    link.publish(ORDERS, 1, 2, 3)
    link.subscribe(1, ORDERS, "retained")
    with link.drop_replies(2), link.lossy_streams():
        link.publish(ORDERS, 4)
        link.advance(0.5)  # asks for 4, and the answer is lost
    link.start_broker()
    link.publish(ORDERS, 1, 2, 3, 4, 5, 6)
    link.advance(10.0)
    assert link.numbers(1) == [1, 2, 3, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd", "gzip"])
@pytest.mark.parametrize("make", [of_messages, of_columns])
def test_a_repair_brings_the_published_messages_in_every_form(link: Link, make: Any, compression: str) -> None:
    """The broker retains payloads as they came, compressed or as columns, and a repair gets the same bytes."""
    topic = "prices.S.1m"

    def publish(first: int, stop: int) -> None:
        batch = make(first, stop, compression)
        link.core.outbox.publish(topic, encode({"type": batch.type, "data": batch.data}), stop - first)
        link.carry_published()

    link.subscribe(1, topic, "start", space=100_000)
    publish(1, 100)
    with link.lossy_streams(lambda one: one == topic):
        publish(100, 200)
        publish(200, 300)
    publish(300, 400)
    link.advance(1.0)
    assert link.numbers(1) == list(range(1, 400))
    link.subscribe(2, topic, "retained", space=100_000)
    link.advance(1.0)
    assert link.numbers(2) == list(range(1, 400))
    link.check_invariants()


def test_a_reader_without_space_gets_columns_when_it_has_some(link: Link) -> None:
    topic = "prices.S.1m"
    link.subscribe(1, topic, "start", space=10)
    batch = of_columns(1, 200, "lz4")
    link.core.outbox.publish(topic, encode({"type": batch.type, "data": batch.data}), 199)
    link.carry_published()
    assert link.numbers(1) == list(range(1, 11))
    link.take(1, 100)
    link.take(1, 100)
    assert link.numbers(1) == list(range(1, 200))


def test_a_damaged_batch_ends_the_subscription_with_what_is_wrong(link: Link) -> None:
    link.subscribe(1, ORDERS, "start")
    batch = {"count": 2, "compression": "lz4", "rawBytes": 10, "messages": b"1234"}
    link.core.outbox.publish(ORDERS, encoded_payload("Batch", batch), 2)
    link.carry_published()
    assert isinstance(link.ended[1], SerializationError)
    assert "lz4" in str(link.ended[1])


def test_a_malformed_backtest_status_is_an_unattributed_error(link: Link) -> None:
    link.subscribe(1, ORDERS, "start", until="b1")
    link.core.outbox.publish("system.backtests", encoded_payload("BacktestStatus", {"status": 7}))
    link.carry_published()
    assert [type(one) for one in link.events if isinstance(one, UnattributedError)] == [UnattributedError]
    publish_status(link, "completed")
    assert link.ended == {1: None}


def test_the_status_of_a_backtest_is_asked_for_after_a_gap(link: Link) -> None:
    link.subscribe(1, ORDERS, "start", until="b1")
    link.started("b1")
    with link.lossy_streams():
        publish_status(link, "completed")
        for _ in range(1_100):
            link.core.outbox.publish("system.backtests", status_of("b2", "running"))
        link.carry_published()
    publish_status(link, "running", "b2")
    assert isinstance(link.finished["b1"], NotFound), "this core never had the backtest, and was asked"


def test_the_end_of_an_unfollowed_backtest_is_not_reported(link: Link) -> None:
    link.subscribe(1, ORDERS, "start", until="b1")
    link.subscriptions.unfollow("b1")
    link.close(1)
    publish_status(link, "completed")
    assert link.finished == {}


def test_requests_of_subscriptions_that_time_out_are_made_again(link: Link) -> None:
    link.publish(ORDERS, 1, 2)
    with link.drop_replies(3):
        link.subscribe(1, ORDERS, "retained", until="b1")
    assert link.numbers(1) == []
    link.advance(6.0)
    assert link.numbers(1) == [1, 2]
    assert isinstance(link.finished["b1"], NotFound)


def test_unsigned_stream_messages_are_not_believed(link: Link) -> None:
    link.subscribe(1, ORDERS, "start")
    forged = [b"orders.b1", bytes(32), encoded_payload("Number", 1)]
    [noticed] = link.subscriptions.receive(forged)
    assert isinstance(noticed, UnattributedError)
    moved = link.signer.seal(STREAM, [b"orders.b2", b"\x80"])
    assert [type(one) for one in link.subscriptions.receive([b"orders.b1", moved[0], b"\x80"])] == [UnattributedError]
    assert link.numbers(1) == []


def test_closing_the_last_subscription_unsubscribes_from_its_prefix(link: Link) -> None:
    link.subscribe(1, ORDERS, "start")
    link.subscribe(2, ORDERS, "start")
    link.close(1)
    assert set(link.subscriptions.prefixes) == {ORDERS, "system.watermarks"}
    link.close(2)
    link.close(2)
    assert link.subscriptions.prefixes == []


def test_losses_and_repairs_are_counted(link: Link) -> None:
    link.subscribe(1, ORDERS, "start")
    with link.lossy_streams(lambda topic: topic == ORDERS):
        link.publish(ORDERS, 1)
        link.advance(1.0)
    with link.lossy_streams():
        link.publish(ORDERS, 2)
    link.publish(ORDERS, 3)
    counters = link.subscriptions.counters
    assert link.numbers(1) == [1, 2, 3]
    assert (counters.gaps_seen, counters.gaps_repaired, counters.gaps_open) == (2, 2, 0)
    assert counters.watermarks_behind == 1


def test_a_restart_gives_up_repairs_and_counts_them(link: Link) -> None:
    link.subscribe(1, ORDERS, "start")
    with link.lossy_streams(), link.drop_requests(10):
        link.publish(ORDERS, 1)
        link.core.outbox.publish(ORDERS, encoded_payload("Number", 2))
    with link.drop_requests(10):
        link.publish(ORDERS, 3)
        assert link.subscriptions.counters.gaps_open == 1
    link.start_broker()
    assert (link.subscriptions.counters.gaps_left, link.subscriptions.counters.gaps_open) == (1, 0)


# --- the latest of each topic ---


def test_a_reader_of_the_latest_gets_it_for_topics_whose_messages_were_lost(link: Link) -> None:
    link.publish("state.a", 1)
    link.subscribe(1, "state.", "latest")
    with link.lossy_streams(lambda topic: topic.startswith("state.")):
        for number in range(2, 6):
            link.publish("state.a", number)
        link.advance(1.0)
    assert link.numbers(1) == [5]
    with link.lossy_streams(lambda topic: topic.startswith("state.")):
        link.publish("state.a", 6, 7)
        link.advance(1.0)
    assert link.numbers(1) == [5, 6, 7]


def test_a_reader_of_the_latest_is_told_when_messages_may_be_lost(link: Link) -> None:
    link.advance(1.5)
    link.subscribe(1, "state.", "latest")
    link.advance(1.5)
    assert link.delivered[1] == [MaybeLost("state.")]  # messages before the first watermarks may be lost
    link.advance(5.0)
    assert link.delivered[1] == [MaybeLost("state.")]
    with link.lossy_streams():
        link.publish("state.a", 1)
        link.advance(1.0)
    link.advance(2.0)
    assert link.delivered[1][1:] == [MaybeLost("state.")]
    link.connect()
    assert link.delivered[1][2:] == [MaybeLost("state.")]


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(1, 4), max_size=30),
    loss=st.sampled_from([0.0, 0.2, 0.6]),
    space=st.sampled_from([3, 20, 1_000]),
)
def test_the_messages_of_a_backtest_are_complete_over_a_bad_network(
    seed: int, sizes: list[int], loss: float, space: int
) -> None:
    chance = random.Random(seed)
    link = Link()
    link.subscribe(1, ORDERS, "start", space, until="b1")
    total = 0
    with link.lossy_streams(lambda _: chance.random() < loss):
        for size in sizes:
            link.publish(ORDERS, *range(size))
            total += size
            if chance.random() < 0.2:
                link.advance(0.3)
            if chance.random() < 0.3:
                link.take(1, len(link.delivered[1]))  # more than it has taken, which only adds space
            if chance.random() < 0.1:
                with link.drop_replies():
                    link.advance(0.3)
        publish_status(link, "completed")
    for _ in range(total + 10):
        link.advance(0.6, step=0.3)
        link.take(1, 3)
        link.check_invariants()
        if link.ended:
            break
    assert link.ended == {1: None}
    assert link.numbers(1) == [*range(1, total + 1)]
    counters = link.subscriptions.counters
    assert (counters.gaps_lost, counters.messages_lost) == (0, 0)
    assert counters.gaps_seen == counters.gaps_repaired + counters.gaps_open + counters.gaps_left


@pytest.mark.parametrize("topic", ["system.status", "system.watermarks", "system.errors"])
def test_every_system_topic_can_be_followed(link: Link, topic: str) -> None:
    link.subscribe(1, topic, "now")
    if topic == "system.errors":
        link.publish(topic, 1)
    link.advance(3.0)
    found = [one for one in link.numbers(1) if isinstance(one, int)]
    assert found == [*range(found[0], found[-1] + 1)]
