"""A real broker counts its listeners, and false subscription messages take nothing from the others."""

from __future__ import annotations

import uuid

from integration.test_end_to_end import SYNTH
from support.broker.zmtp import RawSubscriber
from support.harness import RawClient, RunningBroker, dense, wait_until

# With a pace, so that it cannot end before it is told to pause.
BUSY = {**SYNTH, "endDate": "2024-01-05", "parameters": {"fast": 2, "slow": 9}, "options": {"pace": 40_000.0}}


def subscriptions(raw_client: RawClient, socket: str) -> int:
    return int(raw_client.ask("GetSystemStatus", {})["streams"]["subscriptions"].get(socket, 0))


def listed(raw_client: RawClient, topic: str) -> dict[str, int]:
    """Return the status of one topic; it is empty if the status no longer lists the topic."""
    topics = raw_client.ask("GetSystemStatus", {})["streams"]["perTopic"]
    return next((one for one in topics if one["topic"] == topic), {})


def unheard_orders(raw_client: RawClient) -> int:
    return int(raw_client.ask("GetSystemStatus", {})["streams"]["byClass"].get("orders", {}).get("unheard", 0))


def test_a_late_listener_has_every_order_once_despite_false_subscription_messages(
    plain_tcp_broker: RunningBroker,
) -> None:
    with RawClient(plain_tcp_broker.connection_file) as raw_client:
        raw_client.hello()
        backtest_id = str(uuid.uuid4())
        topic = f"orders.{backtest_id}"
        unheard = unheard_orders(raw_client)
        raw_client.ask("StartBacktest", {**BUSY, "backtestId": backtest_id})
        wait_until(lambda: listed(raw_client, topic).get("messages", 0) > 50, 30.0)
        raw_client.ask("PauseBacktest", {"backtestId": backtest_id})
        before = listed(raw_client, topic)
        assert before["subscribers"] == 0
        assert unheard_orders(raw_client) == unheard + before["messages"]
        endpoint = raw_client.connection["endpoints"]["orders"]
        with RawSubscriber(endpoint) as hostile:
            late = raw_client.subscribe("orders", topic)
            raw_client.ask("ResumeBacktest", {"backtestId": backtest_id})
            sent = 0
            while raw_client.ask("GetBacktestStatus", {"backtestId": backtest_id})["status"] == "running":
                hostile.say(topic.encode(), -1)
                sent += 1
            assert sent > 5
        last = raw_client.ask("FetchMissed", {"topic": topic, "fromSeq": 1})["toSeq"]
        assert last > before["messages"] + 50
        dense(raw_client, late, last)
        assert not late.socket.poll(0), "no message came twice"
        # The false messages made the count wrong until ZeroMQ was asked; it is 0 when the last listener has gone.
        wait_until(lambda: subscriptions(raw_client, "orders") == 1, 10.0)
        late.socket.close()
        wait_until(lambda: subscriptions(raw_client, "orders") == 0, 10.0)


def test_counts_follow_listeners_that_join_change_their_prefix_and_leave(tcp_broker: RunningBroker) -> None:
    with RawClient(tcp_broker.connection_file) as raw_client:
        raw_client.hello()
        one, two = (raw_client.subscribe("system", "system.errors") for _ in range(2))
        for peer in (one, two):
            peer.socket.subscribe(b"system.status")
        wait_until(lambda: listed(raw_client, "system.status")["subscribers"] == 2, 10.0)
        one.socket.subscribe(b"system.")
        wait_until(lambda: listed(raw_client, "system.status")["subscribers"] == 3, 10.0)
        one.socket.unsubscribe(b"system.status")
        wait_until(lambda: listed(raw_client, "system.status")["subscribers"] == 2, 10.0)
        one.socket.close()
        wait_until(lambda: listed(raw_client, "system.status")["subscribers"] == 1, 10.0)
        two.socket.close()
        wait_until(lambda: subscriptions(raw_client, "system") == 0, 10.0)
        unheard = raw_client.ask("GetSystemStatus", {})["streams"]["byClass"]["system.status"]["unheard"]
        wait_until(
            lambda: raw_client.ask("GetSystemStatus", {})["streams"]["byClass"]["system.status"]["unheard"] > unheard,
            10.0,
        )
        assert raw_client.subscribe("system", "system.status").receive()[1]["seq"] > 1
