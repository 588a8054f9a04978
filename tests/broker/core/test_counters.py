"""Each request is counted once, by type and outcome, with its duration."""

from __future__ import annotations

from copy import deepcopy

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from backtestr_broker.core.clients.admission import MAX_PENDING
from backtestr_broker.core.clients.idempotency import KEPT_SECONDS
from backtestr_broker.core.clients.rate_limit import Rate
from backtestr_broker.core.counters import REPEATED, SUCCESS, UNKNOWN
from backtestr_broker.core.counts import BUCKETS, Histogram
from backtestr_broker.core.events import RequestReceived
from support.broker.link import LIMITS, Link, config


@given(st.lists(st.floats(0.0, 100.0)))
def test_a_histogram_counts_each_value_once_in_the_first_bucket_that_fits(seconds: list[float]) -> None:
    taken = Histogram()
    for one in seconds:
        taken.observe(one)
    assert sum(taken.counts) == len(seconds)
    for index, bound in enumerate(BUCKETS):
        assert sum(taken.counts[: index + 1]) == sum(one <= bound for one in seconds)


def test_every_request_is_counted_once_with_its_outcome(link: Link) -> None:
    ann = link.client("ann")
    ann.ask("Ping", message_id="p1")
    ann.ask("Ping", message_id="p1")
    ann.refused("Ting")
    ann.refused("GetState", {"key": "nothing"})
    ann.refused("UpdateState", {"key": "a", "value": 1, "expectedVersion": 7})
    with link.full_disk():
        ann.refused("UpdateState", {"key": "a", "value": 1})
    link.request(ann.peer, [b"never signed"])
    raw_client = link.raw_client("bob")
    raw_client.requests.session_id, raw_client.requests.counter = "no session", 1
    raw_client.refused("Ping")
    assert link.core.counters.measured().requests == {
        ("Hello", SUCCESS): 1,
        ("Ping", SUCCESS): 1,
        ("Ping", REPEATED): 1,
        (UNKNOWN, "UNSUPPORTED_COMMAND"): 1,
        ("GetState", "NOT_FOUND"): 1,
        ("UpdateState", "STATE_CONFLICT"): 1,
        ("UpdateState", "SYSTEM_ERROR"): 1,
        (UNKNOWN, "IPC_SERIALIZATION_ERROR"): 1,
        ("Ping", "SESSION_UNKNOWN"): 1,
    }
    assert link.core.counters.commit_failures == 1
    codes = [facts["code"] for facts in link.signals("request_refused")]
    assert codes == ["UNSUPPORTED_COMMAND", "NOT_FOUND", "STATE_CONFLICT", "SYSTEM_ERROR", "SESSION_UNKNOWN"]
    assert all(facts["requestId"] for facts in link.signals("request_refused"))
    link.core.check_invariants()


def test_a_start_whose_answer_is_forgotten_is_counted_as_repeated(link: Link) -> None:
    ann = link.client("ann")
    ann.ask("StartBacktest", config(backtestId="b1"), message_id="start")
    link.advance(KEPT_SECONDS + 2.0)
    ann.reconnect()
    again = ann.ask("StartBacktest", config(backtestId="b1"), message_id="start")
    assert again == {"backtestId": "b1", "status": "running"}
    assert ann.ask("StartBacktest", config(backtestId="b1"), message_id="start") == again
    measured = link.core.counters.measured()
    starts = {outcome: count for (name, outcome), count in measured.requests.items() if name == "StartBacktest"}
    assert starts == {SUCCESS: 1, REPEATED: 2}
    assert sum(measured.latencies["StartBacktest"].counts) == 1
    link.core.check_invariants()


def test_a_request_takes_as_long_as_its_answer_takes_to_come(link: Link) -> None:
    ann = link.client("ann")
    link.worker("interactive-1").answers = False
    asked = ann.later("ListMarketData")
    link.advance(3.0)
    link.worker("interactive-1").finish(data={"series": []})
    assert ann.answer(asked) == {"series": []}
    ann.ask("Ping")
    taken = link.core.counters.measured().latencies["ListMarketData"]
    assert sum(taken.counts) == 1
    assert abs(taken.seconds - 3.0) < 1e-6


def test_requests_that_came_together_take_until_all_their_answers_are_sent(link: Link) -> None:
    ann = link.client("ann")
    link.tick()
    for number in range(2):
        request = RequestReceived(ann.peer, ann.requests.make("Ping", {}), link.wall_ms)
        link.core.handle(request, link.now, goes_on=number > 0)
    link.core.counters.settle(link.now + 0.5)
    taken = link.core.counters.measured().latencies["Ping"]
    assert sum(taken.counts) == 2
    assert abs(taken.seconds - 1.0) < 1e-6


def test_a_request_that_was_not_admitted_has_no_duration() -> None:
    link = Link(limits=msgspec.structs.replace(LIMITS, rates={"R": Rate(1, 3)}))
    ann = link.client("ann")  # a Hello counts as well
    ann.ask("Ping")
    ann.ask("Ping")
    assert ann.refused("Ping")["code"] == "RATE_LIMIT_EXCEEDED"
    link.worker("interactive-1").answers = False
    for number in range(MAX_PENDING):
        link.core._answers.begin("ann", f"waits-{number}", ann.peer, link.now)
    assert ann.refused("ListMarketData")["code"] == "BUSY"
    link.tick()
    measured = link.core.counters.measured()
    assert measured.requests["Ping", "RATE_LIMIT_EXCEEDED"] == measured.requests["ListMarketData", "BUSY"] == 1
    assert sum(measured.latencies["Ping"].counts) == 2
    assert "ListMarketData" not in measured.latencies
    refused = [(facts["clientId"], facts["code"]) for facts in link.signals("request_refused")]
    assert refused == [("ann", "RATE_LIMIT_EXCEEDED"), ("ann", "BUSY")]
    link.core.counters.check_invariants()


def test_a_copy_of_the_counters_does_not_change(link: Link) -> None:
    ann = link.client("ann")
    ann.ask("StartBacktest", config(backtestId="b1"))
    ann.ask("Ping")
    ann.ask("Ping")  # now the duration of the first request is counted
    copied = link.core.counters.measured()
    before = deepcopy(copied)
    link.worker("compute-1").publish("orders.b1", 1, 2)
    ann.ask("Ping")
    ann.ask("Ping")
    after = link.core.counters.measured()
    assert copied.requests == before.requests != after.requests
    assert copied.latencies["Ping"] == before.latencies["Ping"] != after.latencies["Ping"]
    assert copied.streams["orders"] == before.streams["orders"] != after.streams["orders"]
