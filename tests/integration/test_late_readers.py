"""A reader that comes late gets every message of a backtest from number 1: in the run, in a pause, and ever after."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import backtestr
from integration.test_end_to_end import SYNTH, tables
from integration.test_steering import wait_for
from support.harness import RawClient, RunningBroker, messages
from support.protocol.independent import Fields

BUSY = {
    **SYNTH,
    "parameters": {"fast": 2, "slow": 3},
    "options": {"pace": 10_000.0, "streams": {"progressIntervalMs": 5}},
}
RETAINED = 5_000


def everything(raw_client: RawClient, topic: str) -> list[Fields]:
    """Fetch a topic page by page, as PROTOCOL.md has a late reader do it."""
    found: dict[int, Fields] = {}
    while True:
        page = raw_client.ask("FetchMissed", {"topic": topic, "fromSeq": len(found) + 1})
        if page["toSeq"] <= len(found):
            return [found[seq]["data"] for seq in range(1, len(found) + 1)]
        assert page["oldestSeq"] == 1
        for one in page["messages"]:
            found.update(messages(one))
        assert page["toSeq"] == len(found)


@pytest.fixture
def paced(own_broker: RunningBroker) -> Iterator[RawClient]:
    with RawClient(own_broker.connection_file) as raw_client:
        raw_client.hello()
        yield raw_client


def test_a_late_reader_has_all_from_the_first_message(paced: RawClient, own_broker: RunningBroker) -> None:
    progress = paced.subscribe("progress", "progress.late")
    paced.ask("StartBacktest", {**BUSY, "backtestId": "late"})
    progress.until(lambda data: data["progressPercent"] > 2)
    running = {topic: everything(paced, f"{topic}.late") for topic in ("orders", "positions", "progress")}
    assert running["orders"]
    progress.until(lambda data: data["ordersExecuted"] > RETAINED + 100)
    assert paced.ask("PauseBacktest", {"backtestId": "late"})["status"] == "paused"
    orders = paced.subscribe("orders", "orders.late")
    paused = {topic: everything(paced, f"{topic}.late") for topic in running}
    assert len(paused["orders"]) > RETAINED, "more than a ring retains"
    paced.ask("ResumeBacktest", {"backtestId": "late"})
    live = messages(orders.receive()[1])
    paced.ask("StopBacktest", {"backtestId": "late"})
    ended = {topic: everything(paced, f"{topic}.late") for topic in running}
    for topic, found in ended.items():
        assert found[: len(running[topic])] == running[topic]
        assert found[: len(paused[topic])] == paused[topic]
    assert [ended["orders"][seq - 1] for seq, _ in live] == [one["data"] for _, one in live]
    assert any("mark" in one for one in ended["positions"])
    _, stored = tables(paced, "late", ["orders"])
    assert len(ended["orders"]) == stored["orders"].height, "each market order has one state"

    own_broker.kill()
    own_broker.start()
    with RawClient(own_broker.connection_file) as raw_client:
        raw_client.hello()
        assert {topic: everything(raw_client, f"{topic}.late") for topic in ended} == ended
    with backtestr.connect(connection_file=own_broker.connection_file) as client:
        numbers = list(range(1, len(ended["orders"]) + 1))
        fetched = [one for one in client.fetch_missed("orders.late") if isinstance(one, backtestr.Update)]
        assert [one.seq for one in fetched] == numbers
        with client.subscribe("orders.late", history=True) as read:
            again = [one for one in (read.next(20.0) for _ in numbers) if isinstance(one, backtestr.Update)]
        assert [one.seq for one in again] == numbers


def test_the_topics_of_a_deleted_backtest_are_gone(paced: RawClient) -> None:
    paced.ask("StartBacktest", {**BUSY, "backtestId": "gone", "endDate": "2024-01-02"})
    wait_for(paced, "gone", "completed")
    assert everything(paced, "orders.gone")
    paced.ask("DeleteBacktest", {"backtestId": "gone"})
    assert paced.refused("FetchMissed", {"topic": "orders.gone", "fromSeq": 1})["code"] == "NOT_FOUND"
