"""The metrics server answers from the latest snapshot of a core, on a thread of its own."""

from __future__ import annotations

import contextlib
import socket
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backtestr_broker.io.http_server import HOST
from backtestr_broker.io.prometheus import MetricsServer
from backtestr_protocol.errors import InvalidConfiguration
from support.broker.link import Link
from support.broker.steps import start


def free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server(port: int) -> Iterator[MetricsServer]:
    with contextlib.closing(MetricsServer(port)) as made:
        yield made


def samples(port: int) -> dict[tuple[str, tuple[str, ...]], float]:
    """Scrape; return every sample by its name and the values of its labels, in the order of the labels' names."""
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.usefixtures("server")
def test_before_the_first_snapshot_there_is_no_sample(port: int) -> None:
    assert samples(port) == {}


def test_a_snapshot_shows_requests_backtests_queues_and_workers(link: Link, server: MetricsServer, port: int) -> None:
    ann = link.client("ann")
    start(ann, "b1", "b2")
    ann.refused("GetBacktestStatus", {"backtestId": "absent"})
    link.lose_worker(link.worker("interactive-1"))
    link.core.counters.settle(link.now)  # as the event loop does after every event
    server.show(link.core, {"requests": 3, "prices": 4}, 250.0, {"prices": (7, 127, 9)})
    found = samples(port)
    assert found["backtestr_requests_total", ("success", "StartBacktest")] == 2
    assert found["backtestr_requests_total", ("NOT_FOUND", "GetBacktestStatus")] == 1
    assert found["backtestr_request_duration_seconds_count", ("StartBacktest",)] == 2
    assert found["backtestr_backtests", ("running",)] == 1
    assert found["backtestr_backtests", ("queued",)] == 1
    assert found["backtestr_queue_length", ("backtests",)] == 1
    assert found["backtestr_queue_limit", ("questions",)] == link.limits.max_queued_questions
    assert found["backtestr_workers", ("compute", "busy")] == 1
    assert found["backtestr_worker_restarts_total", ("interactive-1",)] == 1
    assert found["backtestr_dropped_messages_total", ("prices",)] == 4
    assert found["backtestr_loop_lag_seconds", ()] == 0.25
    assert found["backtestr_sessions", ()] == 1
    assert found["backtestr_connections", ("prices",)] == 7
    assert found["backtestr_connections_limit", ("prices",)] == 127
    assert found["backtestr_ended_connections_total", ("prices",)] == 9


def test_a_snapshot_does_not_change_until_the_next(link: Link, server: MetricsServer, port: int) -> None:
    dropped = {"requests": 1}
    server.show(link.core, dropped, 1.0)
    before = samples(port)
    dropped["requests"] = 2
    start(link.client("ann"), "b1")
    assert samples(port) == before
    server.show(link.core, dropped, 1.0)
    assert samples(port)["backtestr_dropped_messages_total", ("requests",)] == 2


def test_no_label_names_a_client_topic_or_backtest(link: Link, server: MetricsServer, port: int) -> None:
    start(link.client("client-of-ours"), "backtest-of-ours")
    link.core.counters.settle(link.now)
    server.show(link.core, {}, 0.0)
    assert not [labels for _, labels in samples(port) if any("of-ours" in label for label in labels)]


def test_a_port_in_use_is_refused_by_the_name_of_its_option() -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        with pytest.raises(InvalidConfiguration, match=r"metrics.port is \d+: cannot listen on 127.0.0.1"):
            MetricsServer(other.getsockname()[1])
