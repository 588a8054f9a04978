"""The laws of batching: no message is lost, doubled, reordered or late, and no batch is too large."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.config import load_config
from backtestr_engine.publishing.batching import (
    MAX_PENDING_BYTES,
    Batcher,
    BatchOptions,
    Publication,
    Setting,
)
from support.engine.batches import batcher, columns, counts, messages, numbers, packer

ORDERS, PRICES, PROGRESS = "orders.b", "prices.S.1m", "progress.b"

options = st.builds(
    lambda least, more, target, longer: BatchOptions(
        min_messages=least,
        max_messages=least + more,
        target_latency_ms=target,
        max_wait_ms=target + longer,
        compression_bytes=50,
        priority="real_time",
    ),
    st.integers(1, 5),
    st.integers(0, 10),
    st.integers(1, 20),
    st.integers(0, 30),
)


def seen(sent: list[Publication]) -> dict[str, list[int]]:
    """Return the numbers of the messages by topic, in the order in which they were sent."""
    found: dict[str, list[int]] = defaultdict(list)
    for note, payload in sent:
        found[note.topic] += [one["data"]["at"] for one in messages([(note, payload)])]
    return found


@given(options, st.booleans(), st.data())
def test_every_message_goes_out_once_in_order_and_in_time(
    chosen: BatchOptions, compression: bool, data: st.DataObject
) -> None:
    """Any number and kind of messages on two topics, any steps of time, and settings that change in between."""
    one = batcher(packer(enabled=compression), orders=chosen)
    topics = [ORDERS, "orders.c"]
    added: dict[str, int] = dict.fromkeys(topics, 0)
    oldest: dict[str, list[tuple[float, int]]] = {topic: [] for topic in topics}  # when each run came, and its end
    sent: list[Publication] = []
    now = 0.0
    for _ in range(data.draw(st.integers(1, 12), "steps")):
        topic = data.draw(st.sampled_from(topics), "topic")
        make: Any = data.draw(st.sampled_from([numbers, columns]), "kind")
        count = data.draw(st.integers(0, 40), "count")
        out = one.add(topic, make(added[topic], added[topic] + count), now)
        added[topic] += count
        oldest[topic].append((now, added[topic]))
        one.check_invariants()
        if data.draw(st.booleans(), "retune"):
            setting = Setting(
                data.draw(st.integers(chosen.min_messages, chosen.max_messages), "messages"),
                data.draw(st.floats(chosen.target_latency_ms, chosen.max_wait_ms), "wait"),
            )
            one.set("orders", setting)
        now += data.draw(st.floats(0, 0.05), "pause")
        deadline = one.next_deadline()
        taken = one.take(now)
        assert bool(taken) == (deadline is not None and deadline <= now)
        out += taken
        one.check_invariants()
        assert all(note.count <= chosen.max_messages for note, _ in out)
        sent += out
        gone = {topic: len(found) for topic, found in seen(sent).items()}
        for topic in topics:
            for came, end in oldest[topic]:
                assert gone.get(topic, 0) >= end or now - came < chosen.max_wait_ms / 1000, "a message is late"
    sent += one.flush()
    assert one.next_deadline() is None
    assert seen(sent) == {topic: list(range(count)) for topic, count in added.items() if count}
    assert one.batches("orders") == len(sent)


def test_a_flood_leaves_in_full_batches_and_the_rest_waits() -> None:
    one = batcher()
    assert counts(one.add(PRICES, numbers(0, 65_536), 1.0)) == [(PRICES, 1000)] * 65
    assert one.next_deadline() == pytest.approx(1.001)
    assert one.take(1.0005) == []
    assert counts(one.take(1.001)) == [(PRICES, 536)]


def test_a_batch_below_the_minimum_waits_longer() -> None:
    """Fewer than five progress messages wait 50 ms, five wait 16 ms."""
    one = batcher()
    one.add(PROGRESS, numbers(0, 1), 0.0)
    assert one.next_deadline() == pytest.approx(0.050)
    one.add(PROGRESS, numbers(1, 5), 0.010)
    assert one.next_deadline() == pytest.approx(0.016)
    assert counts(one.take(0.016)) == [(PROGRESS, 5)]


def test_a_batch_of_progress_has_the_percent_of_its_last_message() -> None:
    one = batcher()
    one.add(PROGRESS, numbers(0, 1), 0.0, 10.0)
    one.add(PROGRESS, numbers(1, 2), 0.01, 20.0)
    [(note, _)] = one.flush(PROGRESS)
    assert (note.count, note.progress_percent) == (2, 20.0)
    one.add(PROGRESS, numbers(2, 3), 0.02, 30.0)
    [(note, _)] = one.take(1.0)
    assert note.progress_percent == 30.0


def test_one_topic_is_flushed_without_the_others() -> None:
    one = batcher()
    one.add(ORDERS, numbers(0, 3), 0.0)
    one.add(PRICES, numbers(0, 2), 0.0)
    assert counts(one.flush(ORDERS)) == [(ORDERS, 3)]
    assert one.flush(ORDERS) == []
    assert counts(one.flush()) == [(PRICES, 2)]


def test_the_more_urgent_goes_first() -> None:
    one = batcher()
    one.add(PROGRESS, numbers(0, 1), 0.0)
    one.add(ORDERS, numbers(0, 1), 0.0)
    one.add(PRICES, numbers(0, 1), 0.0)
    assert counts(one.take(1.0)) == [(ORDERS, 1), (PRICES, 1), (PROGRESS, 1)]


def test_waiting_messages_are_bounded_in_bytes_over_all_topics() -> None:
    one = batcher()
    run = numbers(0, 999)
    symbols = MAX_PENDING_BYTES // run.size + 1
    sent = [one.add(f"prices.S{symbol}.1m", run, 0.0) for symbol in range(symbols)]
    assert [len(out) for out in sent] == [0] * (symbols - 1) + [symbols]
    assert one.next_deadline() is None
    one.check_invariants()


def test_the_status_has_the_classes_that_had_messages() -> None:
    one = batcher()
    assert one.status(0.0) == {}
    one.add(ORDERS, numbers(0, 501), 0.0)
    one.take(0.01)
    [(name, status)] = one.status(1.0).items()
    assert (name, status.size, status.wait_ms, status.messages, status.batches) == ("orders", 500, 5.0, 501, 2)
    assert status.latency_ms > 1.0, "what they waited here and what they wait afterwards"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"min_messages": 600}, "min_messages 600 is above max_messages 500"),
        ({"target_latency_ms": 20.0}, "target_latency_ms 20.0 is above max_wait_ms 10.0"),
        ({"max_messages": 65_536}, "65535"),
        ({"priority": "urgent"}, "urgent"),
    ],
)
def test_bounds_that_contradict_each_other_are_refused(changes: dict[str, Any], words: str) -> None:
    shipped = msgspec.to_builtins(load_config(None).batching.orders)
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert({**shipped, **changes}, BatchOptions)


def test_a_batcher_needs_only_topics_and_messages() -> None:
    """A price replay uses a batcher without a backtest."""
    one: Batcher = batcher()
    one.add("prices.REPLAY.1m", numbers(0, 1), 10.0)
    assert one.next_deadline() == pytest.approx(10.001)
    assert counts(one.take(10.002)) == [("prices.REPLAY.1m", 1)]
