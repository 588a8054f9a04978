"""The view of `backtestr top`: rates of counters that grew, none after a restart, and no more rows than fit."""

from __future__ import annotations

import io
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from backtestr.cli.top_view import MOST_ROWS, Sample, document, rates, view
from backtestr.core.connection_state import ConnectionState
from backtestr_protocol.messages import BacktestStatus
from backtestr_protocol.system_status import (
    ClassLoad,
    ClientLoad,
    Connections,
    MemoryUsage,
    RateStatus,
    Streams,
    SystemStatus,
    TopicLoad,
    WorkerStatus,
)

STARTED_MS = 1_790_000_000_000


def status(uptime_ms: int, messages: int = 0, **changes: Any) -> SystemStatus:
    """Return the status of a broker that started at `STARTED_MS`.

    It has one topic with so many messages, and one client with as many requests.
    """
    load = ClientLoad(
        client_id="[note]book",
        sessions=1,
        requests=messages,
        by_priority={},
        throttled=3,
        busy=0,
        pending=4,
        queued=5,
    )
    return SystemStatus(
        **{
            "status": "healthy",
            "uptime_ms": uptime_ms,
            "memory_usage": MemoryUsage(used=1 << 30, total=8 << 30, percentage=12.5),
            "cpu_usage": 4.0,
            "active_backtests": 1,
            "queued_requests": 17,
            "connected_clients": 2,
            "workers": [WorkerStatus(worker_id="compute-1", pid=42, state="busy", last_seen_ms=300, restarts=2)],
            "loop_lag_ms": 1.25,
            "last_heartbeat": STARTED_MS + uptime_ms,
            "connections": Connections(active=2, limit=1024, pending_limit=1024, per_client=[load]),
            "throttle": {"R": RateStatus(per_second=1, burst=1, hits=messages)},
            "streams": Streams(
                topics=1,
                subscriptions={"orders": 2},
                by_class={"orders": ClassLoad(messages=messages, bytes=1000 * messages, unheard=1, fetched=2)},
                per_topic=[TopicLoad(topic="orders.b1", messages=messages, subscribers=2)],
            ),
            **changes,
        }
    )


RUNNING = BacktestStatus(
    backtest_id="b1", status="running", algorithm_id="sma_cross@1", symbol="X", progress_percent=42.0, submit_time=0
)


def lines(earlier: Sample | None, later: Sample | None, state: ConnectionState = "ready", note: str = "") -> list[str]:
    console = Console(file=io.StringIO(), width=160)
    console.print(view(earlier, later, state, note))
    assert isinstance(console.file, io.StringIO)
    return [" ".join(line.replace("│", " ").split()) for line in console.file.getvalue().splitlines()]


def test_two_samples_have_rates() -> None:
    shown = lines(Sample(status(60_000, 100)), Sample(status(62_000, 400), [RUNNING]))
    assert "status healthy up 1 min 2 s" in shown
    assert "loop lag 1.2 ms work 1 under way, 17 waiting" in shown
    assert "clients 2 throttled 400 (150.0/s)" in shown
    assert "compute-1 busy 0.3 s ago 2" in shown
    assert "orders.b1 150.0 400 2" in shown
    assert "orders 150.0 150.0 400 1 2" in shown
    assert "[note]book 150.0 400 4 5 3" in shown
    (running,) = (line for line in shown if line.startswith("b1"))
    assert running.startswith("b1 running sma_cross@1")
    assert running.endswith("42 %")


def test_one_sample_or_samples_of_two_brokers_have_no_rates() -> None:
    before = STARTED_MS - 60_000
    for earlier in (
        None,
        Sample(status(90_000, 10)),
        Sample(status(30_000, 10, last_heartbeat=before + 30_000)),  # of an earlier start, which was up for less time
    ):
        shown = lines(earlier, Sample(status(60_000, 400)))
        assert "orders.b1 400 2" in shown
        assert "clients 2 throttled 400" in shown


def test_a_clock_that_is_adjusted_is_no_restart() -> None:
    slewed = status(62_000, 400, last_heartbeat=STARTED_MS + 62_000 + 40)
    assert rates(Sample(status(60_000, 100)), Sample(slewed)).topics == {"orders.b1": 150.0}


def test_without_a_broker_the_view_shows_the_connection_state() -> None:
    assert lines(None, None, "reconnecting") == ["reconnecting: what is shown is from before"]
    assert lines(None, Sample(status(1)), "ready", "no answer: it took too long")[0] == "no answer: it took too long"


def test_a_status_of_an_earlier_version_is_shown() -> None:
    bare = status(1000, connections=None, throttle={}, streams=None)
    shown = lines(Sample(bare), Sample(bare))
    assert "clients 2 throttled 0" in shown
    assert not any("topic" in line for line in shown)


def test_no_table_is_longer_than_a_screen() -> None:
    many = [TopicLoad(topic=f"orders.{number}", messages=1, subscribers=0) for number in range(20)]
    streams = Streams(topics=20, subscriptions={}, by_class={}, per_topic=many)
    shown = lines(None, Sample(status(1000, streams=streams), [RUNNING] * 30))
    assert sum(line.startswith("orders.") for line in shown) == MOST_ROWS
    assert f"and {20 - MOST_ROWS} more" in shown
    assert f"and {30 - MOST_ROWS} more" in shown


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**7), st.integers(1, 10**7))
def test_a_rate_times_the_time_is_the_growth(before: int, now: int, began: int, ended: int) -> None:
    found = rates(Sample(status(began, before)), Sample(status(ended, now)))
    if ended <= began or now < before:
        assert not found.topics
    else:
        assert abs(found.topics["orders.b1"] * (ended - began) / 1000 - (now - before)) < 1e-6 * max(1, now)
        assert found.topics["orders.b1"] == found.clients["[note]book"] == found.classes["orders"]


def test_a_document_has_the_protocol_s_structs_and_rates() -> None:
    later = Sample(status(62_000, 400), [RUNNING])
    said = msgspec.json.decode(msgspec.json.encode(document(Sample(status(60_000, 100)), later, "ready")))
    assert said["status"] == msgspec.to_builtins(later.status)
    assert said["backtests"][0]["backtestId"] == "b1"
    assert said["rates"]["topics"] == {"orders.b1": 150.0}
    assert said["rates"]["classBytes"] == {"orders": 150_000.0}
    assert document(None, None, "reconnecting") == {"state": "reconnecting"}
