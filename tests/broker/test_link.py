"""The fake link has clients, workers and faults that do what their names say."""

from __future__ import annotations

import msgspec

from backtestr_protocol.messages import BacktestConfig, Nothing, Pong
from support.broker.link import Link, config


def test_a_raw_client_a_worker_and_the_core_run_a_backtest(link: Link) -> None:
    ann = link.client()
    assert ann.ask("StartBacktest", config(backtestId="b1")) == {"backtestId": "b1", "status": "queued"}
    link.worker("compute-1").publish("orders.b1", 1, 2)
    link.worker("compute-1").finish()
    assert link.states("b1") == ["queued", "running", "completed"]
    assert [seq for seq, _ in link.streams["orders.b1"]] == [1]


def test_a_lost_answer_is_given_again_to_the_same_request(link: Link) -> None:
    """Client session and core together: the answer to StartBacktest is lost, the ping fails, the session resends."""
    ann = link.session()
    with link.drop_replies(1):
        started = ann.ask("StartBacktest", msgspec.convert(config(backtestId="b1"), BacktestConfig), timeout=300.0)
    assert started not in ann.answered
    ann.disconnect()
    ann.connect()
    assert ann.answered[started].backtest_id == "b1"
    assert link.states("b1") == ["queued", "running"]


def test_a_lost_request_is_sent_on_the_next_connection(link: Link) -> None:
    ann = link.session()
    with link.drop_requests(1):
        asked = ann.ask("Ping", Nothing())
    ann.disconnect()
    ann.connect()
    assert isinstance(ann.answered[asked], Pong)


def test_a_request_that_arrives_twice_is_a_message_replay(link: Link) -> None:
    ann = link.client()
    with link.duplicate_requests():
        first, second = ann.send("Ping", {})
    assert first["payload"]["type"] == "Success"
    assert second["payload"]["data"]["code"] == "REPLAY_DETECTED"
    assert first["correlationId"] == second["correlationId"]


def test_a_session_survives_requests_that_arrive_twice(link: Link) -> None:
    """The refusal of the message replay has the id of an answered request, and the session ignores it."""
    ann = link.session()
    with link.duplicate_requests():
        started = ann.ask("StartBacktest", msgspec.convert(config(backtestId="b1"), BacktestConfig))
    assert ann.answered[started].backtest_id == "b1"
    assert not ann.failed
    assert link.states("b1") == ["queued", "running"]


def test_a_session_continues_with_a_restarted_broker(link: Link) -> None:
    ann = link.session()
    with link.drop_replies(1):
        asked = ann.ask("Ping", Nothing())
    first = ann.session.welcome
    link.restart_broker()
    assert first is not None
    assert ann.session.welcome is not None
    assert ann.session.welcome.instance_id != first.instance_id
    assert isinstance(ann.answered[asked], Pong)


def test_a_quiet_session_is_kept_by_its_pings(link: Link) -> None:
    ann = link.session()
    link.advance(100.0)
    assert {payload["data"]["connectedClients"] for _, payload in link.streams["system.status"][1:]} == {1}
    assert isinstance(ann.answered.get(ann.ask("Ping", Nothing())), Pong)
    assert not link.signals("client_left")


def test_a_dropped_session_sends_hello_again(link: Link) -> None:
    ann = link.session()
    with link.drop_requests(0):
        peer, ann.peer = ann.peer, link.attach(ann)  # the connection was made again without the session
    asked = ann.ask("Ping", Nothing())
    assert isinstance(ann.answered[asked], Pong)
    assert peer != ann.peer
    assert len(link.signals("client_joined")) == 2


def test_a_lost_worker_is_replaced_by_one_of_its_name(link: Link) -> None:
    first = link.worker("compute-1")
    second = link.lose_worker(first)
    assert second is link.worker("compute-1")
    assert second.peer != first.peer
    assert [facts["workerId"] for facts in link.signals("worker_lost")] == ["compute-1"]
