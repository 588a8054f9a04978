"""Who listens, with a real broker: late joiners lose nothing, liars take nothing away, and the status counts."""

from __future__ import annotations

import uuid

from integration.conftest import QUICK
from integration.test_end_to_end import SYNTH
from support.broker.zmtp import RawSubscriber
from support.harness import RawClient, dense, running_broker, wait_until

CONFIG = {
    "broker.toml": QUICK + '[transport]\nkind = "tcp"\n[workers]\ncompute = 1\n',
    "engine.toml": "[worker]\nchunk_bars = 20\n",
}
BUSY = {**SYNTH, "parameters": {"fast": 2, "slow": 9}}


def subscriptions(raw_client: RawClient, socket: str) -> int:
    return int(raw_client.ask("GetSystemStatus", {})["streams"]["subscriptions"].get(socket, 0))


def listed(raw_client: RawClient, topic: str) -> dict[str, int]:
    """The status of one topic; nothing where others moved later."""
    topics = raw_client.ask("GetSystemStatus", {})["streams"]["perTopic"]
    return next((one for one in topics if one["topic"] == topic), {})


def test_who_joins_in_the_middle_of_a_flood_has_every_order_once_though_another_lies() -> None:
    with running_broker(CONFIG) as broker, RawClient(broker.connection_file) as raw_client:
        raw_client.hello()
        backtest_id = str(uuid.uuid4())
        topic = f"orders.{backtest_id}"
        raw_client.ask("StartBacktest", {**BUSY, "backtestId": backtest_id})
        wait_until(lambda: listed(raw_client, topic).get("messages", 0) > 50, 30.0)
        raw_client.ask("PauseBacktest", {"backtestId": backtest_id})
        before = listed(raw_client, topic)
        assert before["subscribers"] == 0
        assert raw_client.ask("GetSystemStatus", {})["streams"]["byClass"]["orders"]["unheard"] == before["messages"]
        endpoint = raw_client.connection["endpoints"]["orders"]
        with RawSubscriber(endpoint) as liar:
            late = raw_client.subscribe("orders", topic)
            raw_client.ask("ResumeBacktest", {"backtestId": backtest_id})
            lies = 0
            while raw_client.ask("GetBacktestStatus", {"backtestId": backtest_id})["status"] == "running":
                liar.say(topic.encode(), -1)
                lies += 1
            assert lies > 5
        last = raw_client.ask("FetchMissed", {"topic": topic, "fromSeq": 1})["toSeq"]
        assert last > before["messages"] + 50
        dense(raw_client, late, last)
        assert not late.socket.poll(0), "nor anything twice"
        # The lies made the count wrong until ZeroMQ was asked; when the last one has gone nothing is left.
        wait_until(lambda: subscriptions(raw_client, "orders") == 1, 10.0)
        late.socket.close()
        wait_until(lambda: subscriptions(raw_client, "orders") == 0, 10.0)


def test_counts_follow_those_who_come_change_their_mind_and_go() -> None:
    with running_broker(CONFIG) as broker, RawClient(broker.connection_file) as raw_client:
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
