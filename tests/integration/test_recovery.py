"""Clients of a broker that is killed lose nothing, repeat nothing, and agree afterwards."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import backtestr
from backtestr_protocol.errors import NetworkError, StateConflict
from support.harness import RunningBroker, wait_until


def connect(broker: RunningBroker, request_timeout: float = 60.0) -> backtestr.Client:
    return backtestr.connect(connection_file=broker.connection_file, request_timeout=request_timeout)


def add_one(value: int | None) -> int:
    return (value or 0) + 1


def test_requests_made_while_no_broker_runs_are_executed_once_after_its_start(own_broker: RunningBroker) -> None:
    states: list[str] = []

    def on_change(_: object, *, state: str, previous: str) -> None:
        states.append(state)

    with connect(own_broker) as client, ThreadPoolExecutor(8) as pool:
        client.connection_changed.connect(on_change)
        client.update_state("asked.n", 0)
        known = len(client.list_backtests())
        own_broker.kill()
        wait_until(lambda: client.state == "reconnecting", 10)
        waiting = [pool.submit(client.update_state, "asked.n", number) for number in range(1, 8)]
        run = pool.submit(
            client.backtest, "buy_and_hold", "SYNTH", timeframe="1d", start="2024-01-01", end="2024-06-01"
        )
        wait_until(lambda: client.statistics.queued == 8, 10)
        own_broker.start()
        assert sorted(one.result(timeout=30).version for one in waiting) == [2, 3, 4, 5, 6, 7, 8]
        assert client.get_state("asked.n").version == 8, "an update was executed twice"
        assert run.result(timeout=30).wait(timeout=30).status == "completed"
        assert len(client.list_backtests()) == known + 1
        wait_until(lambda: states == ["reconnecting", "ready"], 10)
        counted = client.statistics
        assert (counted.sessions, counted.queued, counted.dropped) == (2, 0, 0)
        assert [report.about for report in client.errors] == ["connection"]


def test_a_request_under_way_when_the_broker_is_killed_is_executed_once(own_broker: RunningBroker) -> None:
    with connect(own_broker) as client, ThreadPoolExecutor(4) as pool:
        client.update_state("adding.n", 0)
        enough = threading.Event()

        def keep_adding(_: int) -> int:
            done = 0
            while not enough.is_set():
                client.update_state("adding.n", done)
                done += 1
            return done

        adding = [pool.submit(keep_adding, number) for number in range(4)]
        for _ in range(2):
            before = client.get_state("adding.n").version
            wait_until(lambda before=before: client.get_state("adding.n").version > before + 20, 30)  # type: ignore[misc]
            own_broker.kill()
            own_broker.start()
        enough.set()
        done = sum(one.result(timeout=60) for one in adding)
        assert client.get_state("adding.n").version == 1 + done


def test_a_pipeline_of_ten_thousand_pings_survives_a_broker_that_is_killed(own_broker: RunningBroker) -> None:
    with connect(own_broker) as client, ThreadPoolExecutor(1) as pool:

        def ping() -> list[int]:
            with client.pipeline() as pipe:
                replies = [pipe.ping() for _ in range(10_000)]
            return [reply.result() for reply in replies]

        pinging = pool.submit(ping)
        wait_until(lambda: client.statistics.answered > 1_000, 30)
        own_broker.kill()
        assert not pinging.done(), "the broker was killed too late for this test"
        own_broker.start()
        clocks = pinging.result(timeout=60)
        assert len(clocks) == 10_000
        assert clocks[:1_000] == sorted(clocks[:1_000])
        counted = client.statistics
        assert (counted.sessions, counted.failed, counted.dropped) == (2, 0, 0)
        assert counted.answered >= 10_000


def test_a_pipeline_changes_everything_once_though_the_broker_is_killed(own_broker: RunningBroker) -> None:
    """Two changes of each key: a version of 3 would mean that one was executed twice."""
    keys = [f"piped.n{number}" for number in range(300)]
    with connect(own_broker) as client, ThreadPoolExecutor(1) as pool:

        def change() -> list[int]:
            with client.pipeline(window=100) as pipe:
                replies = [pipe.update_state(key, number) for key in keys for number in (1, 2)]
            return [reply.result().version for reply in replies]

        before = client.statistics.answered
        changing = pool.submit(change)
        wait_until(lambda: client.statistics.answered > before + 100, 30)
        own_broker.kill()
        assert not changing.done(), "the broker was killed too late for this test"
        own_broker.start()
        versions = changing.result(timeout=60)
        assert sorted(versions) == [1] * 300 + [2] * 300
        entries = {entry.key: entry.version for entry in client.snapshot_state("piped.").entries}
        assert entries == dict.fromkeys(keys, 2)


def test_a_pipeline_that_is_faster_than_the_rate_limit_waits_and_fails_nothing(own_broker: RunningBroker) -> None:
    """The limit is 2,000 requests of this kind a second, and 2,000 at once."""
    with connect(own_broker) as client:
        with client.pipeline() as pipe:
            replies = [pipe.update_state("piped.limited", number) for number in range(6_000)]
        assert sorted(reply.result().version for reply in replies) == list(range(1, 6_001))
        assert client.statistics.resent > 0, "the limit was not reached, so this test shows nothing"


def test_programs_that_count_together_agree_whenever_they_join(broker: RunningBroker) -> None:
    """Two programs increment the same keys, and others join at random moments.

    Every replica ends as the broker's snapshot, and the sum of the counts is the number of increments.
    """
    generator = random.Random(4)
    each, keys = 60, [f"counter.{name}" for name in "abc"]

    def count(client: backtestr.Client, seed: int) -> int:
        order = random.Random(seed)
        conflicts = 0
        with client.shared_state("counter.") as shared:
            for _ in range(each):
                key = order.choice(keys)
                while True:
                    try:
                        shared.update(key, add_one)
                        break
                    except StateConflict:
                        conflicts += 1
        return conflicts

    with connect(broker) as one, connect(broker) as two, ThreadPoolExecutor(2) as pool:
        counting = [pool.submit(count, client, seed) for seed, client in enumerate((one, two))]
        watching: list[tuple[backtestr.Client, backtestr.SharedState]] = []
        for _ in range(5):
            seen = sum(entry.value for entry in one.snapshot_state("counter.").entries)
            later = min(2 * each, seen + generator.randrange(1, 20))
            wait_until(
                lambda later=later: sum(entry.value for entry in one.snapshot_state("counter.").entries) >= later,  # type: ignore[misc]
                60,
            )
            client = connect(broker)
            watching.append((client, client.shared_state("counter.")))
        for counter in counting:
            counter.result(timeout=100)
        truth = {entry.key: (entry.value, entry.version) for entry in one.snapshot_state("counter.").entries}
        assert sum(value for value, _ in truth.values()) == 2 * each
        for client, shared in watching:
            wait_until(
                lambda shared=shared: {key: (shared[key], shared.version(key)) for key in shared} == truth,  # type: ignore[misc]
                30,
            )
            client.close()


def test_shared_state_continues_after_the_broker_was_killed(own_broker: RunningBroker) -> None:
    changes: list[backtestr.StateChange] = []
    with connect(own_broker) as one, connect(own_broker) as two:
        mine, theirs = one.shared_state("ui."), two.shared_state("ui.")
        theirs.on_change(changes.append)
        mine.update("ui.theme", "dark")
        wait_until(lambda: theirs.get("ui.theme") == "dark", 10)
        own_broker.kill()
        assert theirs["ui.theme"] == "dark", "the last values can be read meanwhile"
        own_broker.start()
        mine.update("ui.theme", "light")
        mine.update("ui.size", 12)
        mine.delete("ui.theme")
        wait_until(lambda: dict(theirs) == {"ui.size": 12}, 10)
        wait_until(lambda: len(changes) >= 3, 10)
        versions = [change.version for change in changes if change.key == "ui.theme" and change.version]
        assert versions == sorted(versions)


def test_an_update_that_no_broker_takes_is_taken_back(own_broker: RunningBroker) -> None:
    with connect(own_broker, request_timeout=1.0) as client, client.shared_state() as shared:
        shared.update("taken.theme", "dark")
        own_broker.kill()
        wait_until(lambda: client.state == "reconnecting", 10)
        with pytest.raises(NetworkError, match="never sent"):
            shared.update("taken.theme", "light")
        assert shared["taken.theme"] == "dark"


def test_an_embedded_broker_s_state_is_shared_too(tmp_path: Path) -> None:
    with backtestr.embedded(tmp_path) as client, client.shared_state("a.") as shared:
        shared.update("a.b", [1])
        assert shared["a.b"] == client.get_state("a.b").value == [1]
        assert client.state == "ready"
