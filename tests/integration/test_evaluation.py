"""A real broker evaluates algorithms as its backtests run them, and one that fails or loops costs nobody else."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import types
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr_engine.built_in import find_algorithm
from backtestr_engine.data.bars import Bars
from backtestr_protocol.errors import AlgorithmError, NotFound, TimedOut, ValidationError
from integration.conftest import ONE_WORKER, stopped_broker, with_algorithm
from support.engine.own_algorithms import FAILS_IN_EVERY_WAY, OWN
from support.harness import ROOT, RawClient, RunningBroker

PAGE = (ROOT / "docs" / "algorithms.md").read_text("utf-8")
SECTION = PAGE.partition("## Looking at signals\n")[2].partition("\n## ")[0]
AUTHORED, NOTEBOOK = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
(PRINTED,) = re.findall(r"```\n\n```\n(.*?)```", SECTION, re.DOTALL)

BUSY = """
import time

from backtestr_engine.authoring import Signals, algorithm


@algorithm("busy")
def busy(bars):
    print("evaluated " + "here")
    return Signals.of(bars.close > bars.open, show={"range": bars.high - bars.low})


@algorithm("sleeps")
def sleeps(bars):
    time.sleep(3600)
"""


@pytest.fixture(scope="module")
def evaluating_broker() -> Iterator[RunningBroker]:
    """Run a broker whose algorithms may take two seconds."""
    config = {"broker.toml": ONE_WORKER, "engine.toml": "[conventions]\ntime_limit_ms = 2000\n"}
    with stopped_broker(config) as broker:
        for name, source in (("own", OWN), ("fails", FAILS_IN_EVERY_WAY), ("busy", BUSY)):
            with_algorithm(broker, name, source)
        broker.start()
        yield broker


@pytest.fixture
def client(evaluating_broker: RunningBroker) -> Iterator[Client]:
    with Client(ConnectionFile(evaluating_broker.connection_file).read()) as client:
        yield client


def interactive_pids(client: Client) -> set[int]:
    return {one.pid for one in client.status().workers if one.worker_id.startswith("interactive")}


@pytest.mark.parametrize("warmup", [None, 0, 500])
def test_the_signals_are_those_that_a_backtest_trades(client: Client, warmup: int | None) -> None:
    start, parameters = "2024-01-03", {"fast": 8, "slow": 21}
    frame = client.evaluate("sma_cross", "SYNTH", timeframe="1m", start=start, parameters=parameters, warmup=warmup)
    run = client.backtest("sma_cross", "SYNTH", timeframe="1m", start=start, parameters=parameters, warmup=warmup)
    orders = run.result().orders.drop_nulls("signal_time")

    bars = client.market_data("SYNTH", "1m", start=start)
    assert frame.select(bars.columns).equals(bars)
    crossings = frame.filter(pl.col("entries") | pl.col("short_entries"))["timestamp"]
    assert len(crossings) > 100
    assert set(orders["signal_time"]) == set(crossings.filter(crossings < frame["timestamp"][-1]))

    # The algorithm itself, on the bars of the warm-up and those after it.
    before = {None: 21, 0: 0, 500: 500}[warmup]
    whole = client.market_data("SYNTH", "1m")
    seen = whole.tail(bars.height + before)
    time = seen["timestamp"].to_physical().to_numpy()
    found = find_algorithm("sma_cross")
    columns = [seen[name].to_numpy() for name in ("open", "high", "low", "close", "volume")]
    signals = found.signals(Bars("SYNTH", "1m", time, *columns), found.check(parameters))
    np.testing.assert_array_equal(signals.entries[before:], frame["entries"])
    np.testing.assert_array_equal(signals.short_exits[before:], frame["short_exits"])


def test_a_raw_client_gets_the_table_as_an_attachment(evaluating_broker: RunningBroker) -> None:
    with RawClient(evaluating_broker.connection_file) as raw_client:
        raw_client.hello()
        asked = {"algorithmId": "busy", "symbol": "SYNTH", "timeframe": "1d"}
        answer, attachments = raw_client.ask_with_attachments("EvaluateAlgorithm", asked)
        assert answer["algorithmId"].startswith("busy@")
        (table,) = answer["tables"]
        frame = pl.read_ipc_stream(attachments[table["frame"]])
        assert (frame.height, frame.columns[-1]) == (table["rows"], "range")
        assert frame["range"].to_list() == (frame["high"] - frame["low"]).to_list()
        listed = raw_client.ask("ListBacktests", {})["backtests"]
        assert not [one for one in listed if one["algorithmId"] == answer["algorithmId"]]
    evaluating_broker.wait_for_log("evaluated here")


def test_mistakes_have_the_errors_of_a_backtest(client: Client) -> None:
    with pytest.raises(NotFound, match="did you mean 'sma_cross'"):
        client.evaluate("sma_cros", "SYNTH", timeframe="1d")
    with pytest.raises(ValidationError, match="did you mean 'fast'") as caught:
        client.evaluate("sma_cross", "SYNTH", timeframe="1d", parameters={"fats": 3})
    assert caught.value.details is not None
    assert caught.value.details["path"] == "$.parameters.fats"
    with pytest.raises(AlgorithmError, match=r"^fails raised AttributeError") as failed:
        client.evaluate("fails", "SYNTH", timeframe="1d")
    assert failed.value.details is not None
    assert re.search(r'own\.py", line 16, in fails\n', failed.value.details["traceback"])


@pytest.mark.parametrize("way", [0, 2, 4, 6, 12, 14])
def test_whatever_an_algorithm_raises_its_worker_goes_on(client: Client, way: int) -> None:
    before = interactive_pids(client)
    with pytest.raises(AlgorithmError):
        client.evaluate("fails_in_every_way", "SYNTH", timeframe="1d", parameters={"way": way})
    assert client.evaluate("sma_cross", "SYNTH", timeframe="1d").height > 0
    assert interactive_pids(client) == before


def test_a_loop_is_interrupted_where_it_is_and_ends_no_worker(client: Client) -> None:
    before = interactive_pids(client)
    with pytest.raises(TimedOut, match=r"^evaluating endless took longer than 2 s; .* time_limit_ms under") as caught:
        client.evaluate("endless", "SYNTH", timeframe="1d")
    assert caught.value.details is not None
    assert "in endless" in caught.value.details["traceback"]
    assert interactive_pids(client) == before


def test_code_that_cannot_be_interrupted_ends_its_worker_and_fails_alone(client: Client) -> None:
    before = interactive_pids(client)
    with pytest.raises(TimedOut, match=r"^evaluating sleeps took longer than 2 s, could not be interrupted"):
        client.evaluate("sleeps", "SYNTH", timeframe="1d")
    assert client.evaluate("sma_cross", "SYNTH", timeframe="1d").height > 0
    assert not before & interactive_pids(client)


def test_the_example_of_the_page_prints_the_output_below_it(
    evaluating_broker: RunningBroker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.register_algorithm(AUTHORED)
    plotted: list[pl.Series] = []
    pyplot = types.ModuleType("matplotlib.pyplot")
    pyplot.plot = lambda *series: plotted.extend(series)  # type: ignore[attr-defined]
    package = types.ModuleType("matplotlib")
    package.pyplot = pyplot  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "matplotlib", package)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", pyplot)
    for name, value in evaluating_broker.environment.items():
        monkeypatch.setenv(name, value)

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(NOTEBOOK, "docs/algorithms.md", "exec"), {})

    assert printed.getvalue() == PRINTED
    time, close, _, upper = plotted
    assert (close.name, upper.name) == ("close", "upper")
    assert len(time) == len(upper) > 1000
    assert not upper.is_nan().any(), "the warm-up that it declares was seen"
