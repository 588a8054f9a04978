"""A client's key decides what the broker does for it, and all clients with one key share its limits."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from backtestr_broker.core.clients import admission, idempotency, sessions
from backtestr_broker.core.clients.rate_limit import Rate
from backtestr_broker.core.scheduling import task_queue
from backtestr_protocol.message_types import REQUESTS
from backtestr_protocol.rights import RIGHTS, Right, includes
from support.broker.clients import failure
from support.broker.link import LIMITS, Link, config

MakeLink = Callable[..., Link]


@pytest.mark.parametrize("held", RIGHTS)
def test_a_key_may_do_what_its_right_includes_and_nothing_else(held: Right) -> None:
    link = Link()
    client = link.client("ann", ("laptop", held))
    refused = {}
    for name in REQUESTS:
        if name not in ("Hello", "Goodbye"):
            # Data that fit no request but those without fields: a permitted request goes on to be refused for them.
            codes = [failure(one)["code"] for one in client.send(name, {"unknown": 1}) if is_failure(one)]
            refused[name] = "AUTHENTICATION_ERROR" in codes
    assert refused == {name: not includes(held, REQUESTS[name].right) for name in refused}
    assert client.ask("Ping"), "the session stays"


def is_failure(envelope: dict[str, object]) -> bool:
    payload = envelope["payload"]
    return isinstance(payload, dict) and payload["type"] == "Failure"


def test_a_refused_request_changes_nothing_and_may_be_sent_again_with_a_greater_right() -> None:
    link = Link()
    ann = link.client("ann", ("laptop", "read"))
    error = ann.refused("UpdateState", {"key": "k", "value": 1}, message_id="once")
    assert error["code"] == "AUTHENTICATION_ERROR"
    assert error["details"] == {"key": "laptop", "right": "read", "needed": "all"}
    assert ann.refused("GetState", {"key": "k"})["code"] == "NOT_FOUND"
    link.keys[ann.peer] = ("laptop", "all")
    assert ann.ask("UpdateState", {"key": "k", "value": 1}, message_id="once")["version"] == 1


@pytest.mark.parametrize("owner", [("desk", "all"), None])
@pytest.mark.parametrize("thief", [("laptop", "all"), None])
def test_the_answers_to_a_client_belong_to_its_key(
    owner: tuple[str, Right] | None, thief: tuple[str, Right] | None
) -> None:
    link = Link()
    bob = link.client("bob", owner)
    first = bob.ask("UpdateState", {"key": "k", "value": "secret"}, message_id="m")
    same = link.raw_client("bob")
    if thief is not None:
        link.keys[same.peer] = thief
    (answer,) = same.send_frames(same.requests.hello())
    if owner == thief:
        assert not is_failure(answer), "the same client, on another connection"
    else:
        assert failure(answer)["details"] == {"path": "$.clientId"}
    assert bob.ask("UpdateState", {"key": "k", "value": "secret"}, message_id="m") == first


def test_a_client_comes_back_with_its_key_after_a_restart() -> None:
    link = Link()
    bob = link.client("bob", ("desk", "all"))
    first = bob.ask("UpdateState", {"key": "k", "value": 1}, message_id="m")
    link.restart_broker()
    again = link.client("bob", ("desk", "all"))
    assert again.ask("UpdateState", {"key": "k", "value": 1}, message_id="m") == first
    link.core.check_invariants()


def test_clients_without_a_key_of_the_list_may_do_everything() -> None:
    ann = Link().client()
    assert ann.ask("UpdateState", {"key": "k", "value": 1})["version"] == 1


def test_a_rate_is_shared_by_all_clients_with_one_key() -> None:
    link = Link(limits=msgspec.structs.replace(LIMITS, rates={"R": Rate(1, 4)}))
    one, two = link.client("one", ("laptop", "all")), link.client("two", ("laptop", "all"))  # a Hello counts as well
    one.ask("Ping")
    two.ask("Ping")
    assert two.refused("Ping")["code"] == "RATE_LIMIT_EXCEEDED"
    assert link.client("three", ("desk", "all")).ask("Ping")
    assert link.client("four").ask("Ping")


def test_running_requests_are_counted_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_PENDING", 3)
    link = Link()
    link.worker("interactive-1").answers = False
    for name in ("one", "two", "three"):
        link.client(name, ("laptop", "read")).later("ListMarketData")
    error = link.client("four", ("laptop", "read")).refused("ListMarketData")
    assert error["code"] == "BUSY"
    link.client("five", ("desk", "read")).later("ListMarketData")
    link.core.check_invariants()


def test_the_share_of_a_queue_goes_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_queue, "SHARE", 1)
    link = Link(limits=msgspec.structs.replace(LIMITS, max_queued_backtests=8))
    link.worker("compute-1").answers = False
    accepted = 0
    for number in range(8):
        client = link.client(f"client {number}", ("laptop", "run"))
        (answer,) = client.send("StartBacktest", config(backtestId=f"b{number}"))
        accepted += not is_failure(answer)
    assert 0 < accepted <= 5, "one runs, and with a share of 1 half of the queue is the key's"
    assert link.client("other", ("desk", "run")).ask("StartBacktest", config(backtestId="b-other"))
    link.core.check_invariants()


def test_the_sessions_of_a_key_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS_OF_KEY", 3)
    link = Link()
    clients = [link.client(f"client {number}", ("laptop", "read")) for number in range(3)]
    late = link.raw_client("late")
    link.keys[late.peer] = ("laptop", "read")
    (answer,) = late.send_frames(late.requests.hello())
    assert failure(answer)["code"] == "BUSY"
    assert "with the key 'laptop'" in failure(answer)["message"]
    assert link.client("other", ("desk", "read")).ask("Ping")
    link.advance(4.0)
    for client in clients[1:]:
        client.ask("Ping")
    late.hello()
    assert clients[0].refused("Ping")["code"] == "SESSION_UNKNOWN", "the one that was silent has made room"
    assert clients[1].ask("Ping")


def test_ever_new_client_ids_forget_no_answers_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MAX_CLIENTS_OF_KEY", 4)
    monkeypatch.setattr(idempotency, "MAX_CLIENTS", 10)
    link = Link()
    bob = link.client("bob", ("desk", "all"))
    first = bob.ask("UpdateState", {"key": "k", "value": 1}, message_id="m")
    for number in range(20):
        link.client(f"client {number}", ("laptop", "read")).ask("Ping")
    assert bob.ask("UpdateState", {"key": "k", "value": 1}, message_id="m") == first, "not executed again"
    link.core.check_invariants()


def test_the_key_is_in_the_notice_of_a_new_session() -> None:
    link = Link()
    link.client("ann", ("laptop", "read"))
    assert link.signals("client_joined") == [{"clientId": "ann", "clientName": None, "key": "laptop"}]
