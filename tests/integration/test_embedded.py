"""Broker and engine in threads of this process, over inproc, give the same results as processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import backtestr
from backtestr.embedded_broker import EmbeddedBroker
from backtestr_broker import broker as broker_module
from backtestr_broker.core.core import Core
from backtestr_protocol.errors import NotFound
from integration.test_end_to_end import SYNTH, run_to_end
from support.harness import RawClient, RunningBroker


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path_factory.mktemp("data")) as broker:
        yield broker


def test_a_script_needs_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    threads = threading.active_count()
    children = psutil.Process().children()
    with backtestr.embedded(tmp_path) as client:
        run = client.backtest("buy_and_hold", "SYNTH", timeframe="1d")
        assert run.wait().status == "completed"
        assert client.status().status == "healthy"
    assert threading.active_count() == threads
    assert psutil.Process().children() == children


def test_the_process_of_an_embedded_broker_is_not_limited(tmp_path: Path) -> None:
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_CORE)
    before = [resource.getrlimit(kind) for kind in kinds]
    with backtestr.embedded(tmp_path) as client:
        assert client.backtest("buy_and_hold", "SYNTH", timeframe="1d").wait().status == "completed"
        assert [resource.getrlimit(kind) for kind in kinds] == before


def test_an_embedded_run_equals_one_of_a_broker_process(embedded: EmbeddedBroker, raw_client: RawClient) -> None:
    with embedded.connect() as client:
        run = client.backtest(
            SYNTH["algorithmId"],
            SYNTH["symbol"],
            timeframe=SYNTH["timeframe"],
            start=SYNTH["startDate"],
            end=SYNTH["endDate"],
            capital=SYNTH["initialCapital"],
            commission=SYNTH["commission"],
            slippage=SYNTH["slippage"],
            parameters=SYNTH["parameters"],
        )
        orders = list(run.orders())
        metrics = run.result().metrics
        assert metrics is not None
        assert len(orders) == run.result().orders.height
    other = run_to_end(raw_client, SYNTH)
    expected = raw_client.ask("GetPerformanceMetrics", {"backtestId": other["backtestId"]})["metrics"]
    assert metrics.final_equity == expected["finalEquity"]
    assert metrics.sharpe_ratio == expected["sharpeRatio"]


def test_several_clients_share_one_embedded_broker(embedded: EmbeddedBroker) -> None:
    with embedded.connect("first") as first, embedded.connect("second") as second:
        run = first.backtest("buy_and_hold", "SYNTH", timeframe="1d")
        assert second.run(run.id).wait().status == "completed"
        with pytest.raises(NotFound, match="did you mean 'sma_cross'"):
            second.backtest("sma_cros", "SYNTH", timeframe="1d")


def test_an_embedded_broker_beside_a_process_is_another(embedded: EmbeddedBroker, broker: RunningBroker) -> None:
    assert embedded.connection.endpoints.requests.startswith("inproc://")
    with embedded.connect() as client, RawClient(broker.connection_file) as raw_client:
        assert client.welcome.instance_id != raw_client.hello()["instanceId"]


def test_a_broker_that_cannot_be_made_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("the last of what it needs is missing")

    with monkeypatch.context() as patched:
        patched.setattr(broker_module, "Core", fail)
        with pytest.raises(RuntimeError, match="the last of what"):  # and no end of the context is waited for
            EmbeddedBroker(tmp_path)
    with EmbeddedBroker(tmp_path) as again, again.connect() as client:
        assert client.status().status == "healthy"


def test_ctrl_c_while_a_broker_is_made_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press_and_make(**arguments: Any) -> Core:
        os.kill(os.getpid(), signal.SIGINT)
        return Core(**arguments)

    with monkeypatch.context() as patched:
        patched.setattr(broker_module, "Core", press_and_make)
        with pytest.raises(KeyboardInterrupt):
            EmbeddedBroker(tmp_path)
    with EmbeddedBroker(tmp_path) as again, again.connect() as client:
        assert client.status().status == "healthy"


# Should it hang, the traces of its threads say where.
INTERRUPTED = """
import faulthandler, os, signal, sys, threading
faulthandler.dump_traceback_later(80, exit=True)
import backtestr

folder = sys.argv[1]
for seconds in (0.02, 0.3, 0.8, 1.5):
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with backtestr.embedded(folder) as client:
            client.subscribe("prices.").next()
    except KeyboardInterrupt:
        timer.join()
        left = [one for one in threading.enumerate() if one is not threading.main_thread()]
        for one in left:
            one.join(0.5)  # it may be about to end
        left = [one.name for one in left if one.is_alive()]
        print(f"interrupted; left: {[one for one in left if 'compute' not in one]}", flush=True)
with backtestr.embedded(folder) as client:
    print(client.backtest("buy_and_hold", "SYNTH", timeframe="1d").result().status)
"""


def test_ctrl_c_at_any_moment_leaves_nothing_and_the_directory_can_be_used_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["interrupted; left: []"] * 4 + ["completed"], done.stderr
