"""A client has limits of rate, running requests, queue share and sessions, and the status shows its load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from backtestr_broker.core import status as status_module
from backtestr_broker.core.clients import admission, sessions
from backtestr_broker.core.clients.rate_limit import Rate
from backtestr_broker.core.settings import CoreSettings
from backtestr_protocol.message_types import Priority
from support.broker.clients import Client
from support.broker.link import LIMITS, Link, config
from support.broker.steps import MakeLink, start, status

RATES: Mapping[Priority, Rate] = {"R": Rate(100, 50), "I": Rate(10, 3), "B": Rate(4, 2), "K": Rate(1, 1)}


def limits(**changes: Any) -> CoreSettings:
    return msgspec.structs.replace(LIMITS, **changes)


@pytest.fixture
def throttled(make_link: MakeLink) -> Link:
    return make_link(limits=limits(rates=dict(RATES)))


def codes(client: Client, request_type: str, data: Any, count: int) -> list[str]:
    """Return the codes of the answers to so many requests at once."""
    found = []
    for _ in range(count):
        (envelope,) = client.send(request_type, data)
        payload = envelope["payload"]
        found.append(payload["type"] if payload["type"] == "Success" else payload["data"]["code"])
    return found


# --- rates ---


def test_beyond_burst_and_rate_a_request_is_refused_until_the_stated_time(throttled: Link) -> None:
    ann = throttled.client("ann")
    assert codes(ann, "ListBacktests", {}, 4) == ["Success"] * 3 + ["RATE_LIMIT_EXCEEDED"]
    refused = ann.refused("ListBacktests", message_id="again")
    assert refused["details"] == {"retryAfterMs": 100, "priority": "I"}
    throttled.now += 0.099
    assert ann.refused("ListBacktests", message_id="again")["details"]["retryAfterMs"] == 1
    throttled.now += 0.001
    assert ann.ask("ListBacktests", message_id="again") == {"backtests": []}, (
        "the same id is accepted: the request was not executed"
    )


def test_a_refused_request_is_not_executed(throttled: Link) -> None:
    ann = throttled.client("ann")
    start(ann, "b1", "b2")
    assert ann.refused("StartBacktest", config(backtestId="b3"))["code"] == "RATE_LIMIT_EXCEEDED"
    assert ann.refused("GetBacktestStatus", {"backtestId": "b3"})["code"] == "NOT_FOUND"


def test_clients_and_classes_do_not_take_each_others_tokens(throttled: Link) -> None:
    ann, bob = throttled.client("ann"), throttled.client("bob")
    assert codes(ann, "ListBacktests", {}, 5)[-1] == "RATE_LIMIT_EXCEEDED"
    assert ann.ask("Ping")
    start(ann, "b1")
    assert codes(bob, "ListBacktests", {}, 3) == ["Success"] * 3


def test_a_second_connection_of_a_client_has_no_tokens_of_its_own(throttled: Link) -> None:
    assert codes(throttled.client("ann"), "ListBacktests", {}, 3) == ["Success"] * 3
    assert codes(throttled.client("ann"), "ListBacktests", {}, 1) == ["RATE_LIMIT_EXCEEDED"]


def test_an_answer_from_memory_takes_no_token_and_is_never_refused(throttled: Link) -> None:
    """RATE_LIMIT_EXCEEDED says that nothing was executed; of an executed request that would be false."""
    ann = throttled.client("ann")
    first = ann.ask("ListBacktests", message_id="one")
    assert [ann.ask("ListBacktests", message_id="one") for _ in range(5)] == [first] * 5
    assert codes(ann, "ListBacktests", {}, 3) == ["Success", "Success", "RATE_LIMIT_EXCEEDED"]
    assert ann.ask("ListBacktests", message_id="one") == first


def test_a_running_request_that_is_sent_again_takes_no_token(throttled: Link) -> None:
    throttled.worker("interactive-1").answers = False
    ann = throttled.client("ann")
    ann.later("ListMarketData", message_id="one")
    for _ in range(5):
        ann.later("ListMarketData", message_id="one")
    ann.later("ListMarketData", message_id="two")
    ann.later("ListMarketData", message_id="three")
    assert ann.refused("ListMarketData")["code"] == "RATE_LIMIT_EXCEEDED"


def test_an_unknown_type_counts_as_bulk(throttled: Link) -> None:
    ann = throttled.client("ann")
    assert codes(ann, "Nonsense", {}, 2) == ["UNSUPPORTED_COMMAND", "RATE_LIMIT_EXCEEDED"]
    assert codes(ann, "Nothing", {}, 1) == ["RATE_LIMIT_EXCEEDED"]


def test_hello_takes_a_token_as_well(make_link: MakeLink) -> None:
    link = make_link(limits=limits(rates={"R": Rate(10, 2)}))
    raw_client = link.raw_client("ann")
    raw_client.hello()
    raw_client.hello()
    (refused,) = raw_client.send_frames(raw_client.requests.hello())
    assert refused["payload"]["data"]["code"] == "RATE_LIMIT_EXCEEDED"
    link.now += 0.1
    assert raw_client.hello()["sessionId"]


# --- running requests ---


def test_running_requests_of_a_client_are_bounded_and_a_stop_is_admitted(
    make_link: MakeLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MAX_PENDING", 3)
    monkeypatch.setattr(admission, "PENDING_RESERVE", 2)
    link = make_link()
    ann, bob = link.client("ann"), link.client("bob")
    start(ann, "b1")
    link.worker("interactive-1").answers = False
    asked = [ann.later("ListMarketData") for _ in range(3)]
    refused = ann.refused("ListMarketData", message_id="again")
    assert (refused["code"], refused["details"]) == ("BUSY", {"retryAfterMs": 1000})
    assert "3 requests of this client are running" in refused["message"]
    assert ann.ask("Ping")
    stop = ann.later("StopBacktest", {"backtestId": "b1"})
    pause = ann.later("StopBacktest", {"backtestId": "b1"})
    assert ann.refused("StopBacktest", {"backtestId": "b1"})["code"] == "BUSY", "the reserve is bounded as well"
    bob.later("ListMarketData")
    link.worker("compute-1").finish("b1", "stopped")
    assert ann.answer(stop) == ann.answer(pause) == {"backtestId": "b1", "status": "stopped"}
    link.worker("interactive-1").answers = True
    link.worker("interactive-1").finish(data={"series": []})
    assert all(ann.answers(one) for one in asked)
    assert ann.ask("ListMarketData", message_id="again")["series"], (
        "the same id is accepted: the request was not executed"
    )


# --- shares of the queues ---


def test_many_backtests_of_one_client_do_not_delay_the_backtest_of_another(link: Link) -> None:
    flood, ann = link.client("flood"), link.client("ann")
    start(flood, *(f"f{number}" for number in range(10)))
    start(ann, "mine")
    worker = link.worker("compute-1")
    order = []
    while (job := status(ann, "mine")) != "completed":
        order.append(worker.task_id)
        worker.finish()
        assert job in ("queued", "running")
    assert order == ["f0", "f1", "mine"], "one runs and one of the other's goes before it"


def test_many_interactive_tasks_of_one_client_do_not_delay_the_task_of_another(link: Link) -> None:
    flood, ann = link.client("flood"), link.client("ann")
    interactive = link.worker("interactive-1")
    interactive.answers = False
    asked = [flood.later("ListMarketData") for _ in range(10)]
    mine = ann.later("ListMarketData")
    for _ in range(3):
        interactive.finish(data={"series": []})
    assert ann.answers(mine)
    assert [bool(flood.answers(one)) for one in asked] == [True] * 2 + [False] * 8


def test_interactive_priority_goes_before_the_background_of_any_client(link: Link) -> None:
    flood, ann = link.client("flood"), link.client("ann")
    interactive = link.worker("interactive-1")
    interactive.answers = False
    for _ in range(10):
        flood.later("ImportMarketData", {"path": "/x", "symbol": "X"})
    ann.later("ListMarketData")
    interactive.finish(data={})
    assert [message.work for message in interactive.assigned] == ["ImportMarketData", "ListMarketData"]


def test_a_client_that_fills_its_share_leaves_room_for_others(link: Link) -> None:
    flood, ann = link.client("flood"), link.client("ann")
    start(flood, "runs", *(f"f{number}" for number in range(16)))
    refused = flood.refused("StartBacktest", config())
    assert refused["code"] == "BUSY"
    assert (
        "16 of the 16 queued tasks are this client's, and the 4 places left are kept for others" in refused["message"]
    )
    start(ann, "mine")


def test_backtests_on_their_way_to_disk_count_into_the_share(link: Link) -> None:
    flood, ann = link.client("flood"), link.client("ann")
    start(flood, "runs")
    with link.hold_commits():
        asked = [flood.later("StartBacktest", config(backtestId=f"f{number}")) for number in range(16)]
        assert flood.refused("StartBacktest", config())["code"] == "BUSY"
        mine = ann.later("StartBacktest", config(backtestId="mine"))
    assert [flood.answer(one)["status"] for one in asked] == ["queued"] * 16
    assert ann.answer(mine)["status"] == "queued"


# --- sessions ---


def test_a_full_table_of_sessions_drops_the_silent_session(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    ann, bob = link.client("ann"), link.client("bob")
    carl = link.raw_client("carl")
    (busy,) = carl.send_frames(carl.requests.hello())
    assert busy["payload"]["data"]["code"] == "BUSY"
    assert busy["payload"]["data"]["details"] == {"retryAfterMs": 3000}, "both sessions have just sent a message"
    link.now += 2.0
    ann.ask("Ping")
    link.now += 1.0
    carl.hello()
    assert link.signals("client_left")[-1]["clientId"] == "bob"
    assert ann.ask("Ping")
    assert bob.refused("Ping")["code"] == "SESSION_UNKNOWN"


# --- status ---


def test_the_status_has_the_connected_clients_and_their_load(throttled: Link) -> None:
    link = throttled
    ann, bob = link.client("ann"), link.client("bob")
    link.client("bob")
    gone = link.client("gone")
    gone.ask("Goodbye")
    start(ann, "b1", "b2")
    assert ann.refused("StartBacktest", config())["code"] == "RATE_LIMIT_EXCEEDED"
    link.worker("interactive-1").answers = False
    for _ in range(2):
        bob.later("ListMarketData")
    found = ann.ask("GetSystemStatus")
    assert found["connections"] == {
        "active": 3,
        "limit": 1024,
        "pendingLimit": 1024,
        "perClient": [
            {
                "clientId": "ann",
                "sessions": 1,
                "requests": 5,
                "byPriority": {"R": 2, "B": 3},
                "throttled": 1,
                "busy": 0,
                "pending": 1,
                "queued": 1,
            },
            {
                "clientId": "bob",
                "sessions": 2,
                "requests": 4,
                "byPriority": {"R": 2, "I": 2},
                "throttled": 0,
                "busy": 0,
                "pending": 2,
                "queued": 1,
            },
        ],
    }
    assert found["throttle"]["B"] == {"perSecond": 4, "burst": 2, "hits": 1}
    assert found["throttle"]["R"] == {"perSecond": 100, "burst": 50, "hits": 0}
    assert "reasons" not in found, "a throttled client is no reason for a warning"


def test_busy_answers_are_counted(link: Link) -> None:
    ann = link.client("ann")
    link.worker("interactive-1").answers = False
    for _ in range(17):
        ann.later("ListMarketData")
    for _ in range(3):
        assert ann.refused("ListMarketData")["code"] == "BUSY"
    (counted,) = ann.ask("GetSystemStatus")["connections"]["perClient"]
    assert (counted["busy"], counted["pending"], counted["queued"]) == (3, 18, 16)


def test_the_busiest_clients_are_listed(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "LISTED_CLIENTS", 2)
    for name, pings in (("ann", 3), ("bob", 9), ("carl", 6)):
        client = link.client(name)
        for _ in range(pings):
            client.ask("Ping")
    listed = client.ask("GetSystemStatus")["connections"]["perClient"]
    assert [(one["clientId"], one["requests"]) for one in listed] == [("bob", 10), ("carl", 8)]


def test_counted_clients_are_bounded_and_the_longest_quiet_one_is_forgotten(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backtestr_broker.core.clients.admission.MAX_COUNTED", 2)
    ann = link.client("ann")
    bob = link.client("bob")
    ann.ask("Ping")
    link.client("carl").ask("Ping")
    listed = {one["clientId"]: one["requests"] for one in ann.ask("GetSystemStatus")["connections"]["perClient"]}
    assert listed == {"ann": 3, "carl": 2}
    bob.ask("Ping")
    link.core.check_invariants()
