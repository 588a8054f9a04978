"""Prometheus' own parser reads the metrics of a real broker."""

from __future__ import annotations

import socket as sockets_of_the_system
import urllib.error
import urllib.request

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from backtestr_protocol.message_types import REQUESTS
from integration.conftest import QUICK
from integration.test_end_to_end import SYNTH, run_to_end
from support.harness import RawClient, RunningBroker, running_broker, short_directory, wait_until

Labels = frozenset[tuple[str, str]]


def free_port() -> int:
    with sockets_of_the_system.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def scraped(port: int) -> dict[tuple[str, Labels], float]:
    """Return every sample by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples: dict[tuple[str, Labels], float] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, f"{key} is there twice"
            samples[key] = sample.value
    return samples


def value(port: int, name: str, **labels: str) -> float:
    return scraped(port).get((name, frozenset(labels.items())), 0.0)


def test_a_scrape_counts_what_the_broker_did() -> None:
    port = free_port()
    config = {
        "broker.toml": f"{QUICK}[metrics]\nport = {port}\n",
        "engine.toml": "[worker]\nbeat_interval_ms = 50\n[compression]\nenabled = true\nfast_from_bytes = 1\n",
    }
    with running_broker(config) as broker:
        with RawClient(broker.connection_file) as raw_client:
            raw_client.hello()
            for _ in range(20):
                raw_client.ask("Ping", {})
            raw_client.refused("Nonsense", {})
            raw_client.refused("More nonsense", {})
            raw_client.refused("GetBacktestStatus", {"backtestId": "unknown"})
            raw_client.subscribe("orders", "orders.")  # without a subscriber a worker sends counts and no bodies
            wait_until(lambda: "orders" in raw_client.ask("GetSystemStatus", {})["streams"]["subscriptions"], 10.0)
            ended = run_to_end(raw_client, SYNTH, "b1")
            fetched = raw_client.ask("FetchMissed", {"topic": "orders.b1", "fromSeq": 1})["toSeq"]
            unheard = raw_client.ask("FetchMissed", {"topic": "positions.b1", "fromSeq": 1 << 40})["toSeq"]
            wait_until(lambda: value(port, "backtestr_repairs_total", **{"class": "orders"}) == 1, 10.0)
            wait_until(lambda: value(port, "backtestr_compression_in_bytes_total", worker="compute-1") > 0, 10.0)
            found = scraped(port)
        assert ended["status"] == "completed"

        def of(name: str, **labels: str) -> float:
            return found[name, frozenset(labels.items())]

        requests = "backtestr_requests_total"
        assert of(requests, type="Ping", outcome="success") == 20
        assert of(requests, type="Hello", outcome="success") == 1
        assert of(requests, type="unknown", outcome="UNSUPPORTED_COMMAND") == 2
        assert of(requests, type="GetBacktestStatus", outcome="NOT_FOUND") == 1
        assert of(requests, type="StartBacktest", outcome="success") == 1
        took = "backtestr_request_duration_seconds"
        assert of(f"{took}_count", type="Ping") == of(f"{took}_bucket", type="Ping", le="+Inf") == 20
        assert 0 < of(f"{took}_sum", type="StartBacktest") < 60
        assert of("backtestr_repaired_messages_total", **{"class": "orders"}) == fetched > 0
        assert of("backtestr_stream_messages_total", **{"class": "orders"}) == fetched
        assert of("backtestr_stream_unheard_messages_total", **{"class": "orders"}) == 0
        assert of("backtestr_stream_unheard_messages_total", **{"class": "positions"}) == unheard > 0
        assert of("backtestr_stream_bytes_total", **{"class": "orders"}) > 0
        assert of("backtestr_backtests", status="completed") == 1
        batches, sizes = "backtestr_batches_total", "backtestr_batch_size"
        assert 0 < of(batches, worker="compute-1", **{"class": "orders"}) < fetched
        assert of(sizes, worker="compute-1", **{"class": "orders"}) == 500
        packed = [of(f"backtestr_compression_{way}_bytes_total", worker="compute-1") for way in ("in", "out")]
        assert packed[0] > packed[1] > 0
        assert of("backtestr_workers", kind="interactive", state="idle") == 1
        assert of("backtestr_sessions") == 1
        assert of("backtestr_queue_length", queue="backtests") == 0
        assert of("backtestr_commit_failures_total") == 0
        assert of("backtestr_memory_bytes") > 10 << 20
        assert {dict(labels)["type"] for name, labels in found if name == requests} <= {*REQUESTS, "unknown"}
        assert len(found) < 1000
        assert listening(broker) == {("127.0.0.1", port)}
        assert broker.stop() == 0
    with pytest.raises(urllib.error.URLError):
        scraped(port)


def listening(broker: RunningBroker) -> set[tuple[str, int]]:
    """Return the addresses at which the broker's process takes connections from the network."""
    connections = psutil.Process(broker.process.pid).net_connections("inet")
    return {(one.laddr.ip, one.laddr.port) for one in connections if one.status == psutil.CONN_LISTEN}


def test_a_port_that_is_taken_or_none_is_an_error_at_the_start() -> None:
    with sockets_of_the_system.socket() as taken, short_directory() as home:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for given, said, code in ((port, f"cannot listen on 127.0.0.1:{port}", 1), (70_000, "metrics.port", 2)):
            broker = RunningBroker(home, {"broker.toml": f"[metrics]\nport = {given}\n"})
            assert said in broker.refused_start(code)
            assert not broker.connection_file.exists()
