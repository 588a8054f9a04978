"""Real brokers run sweeps: whatever is killed, the rows are those of the engine, and no finished block is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from backtestr import sweep as sweep_module
from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr.sweep import Sweep
from backtestr_engine.built_in import find_algorithm
from backtestr_engine.config import load_config
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.research.sweeps import sweep
from backtestr_engine.worker.sweeping.sweep_store import SWEEPS, SweepStore
from backtestr_protocol.errors import (
    InvalidConfiguration,
    NotFound,
    StateConflict,
    TimedOut,
    ValidationError,
)
from integration.conftest import QUICK, running_again, stopped_broker, with_algorithm
from support.harness import RunningBroker, wait_until

TWO_WORKERS = QUICK + "[workers]\ncompute = 2\n"
SPACE = {"fast": range(5, 30), "slow": range(20, 200, 5)}
# A combination takes ten milliseconds, so that a sweep is long enough to be killed in its middle; one ends its worker.
SLOW = """
import os
import time

from backtestr_engine.authoring import Int, Signals, algorithm


@algorithm("unhurried", n=Int(10, 1, 100_000), worst=Int(0, 0, 100_000))
def unhurried(bars, n, worst):
    time.sleep(0.01)
    if n == worst:
        os._exit(3)
    if n % 50 == 49:
        raise ValueError(f"{n} is not for me")
    return Signals.of(bars.close > bars.open, bars.close < bars.open - n / 1000)
"""
BLOCK = 10


@pytest.fixture(scope="module")
def sweeping_broker() -> Iterator[RunningBroker]:
    with stopped_broker({"broker.toml": TWO_WORKERS}) as broker:
        with_algorithm(broker, "unhurried", SLOW)
        broker.start()
        yield broker


@pytest.fixture
def running(sweeping_broker: RunningBroker) -> RunningBroker:
    return running_again(sweeping_broker)


@pytest.fixture
def client(running: RunningBroker) -> Iterator[Client]:
    with Client(ConnectionFile(running.connection_file).read()) as connected:
        yield connected


def unhurried(client: Client, sweep_id: str, last: int = 300, **how: int) -> Sweep:
    return client.sweep(
        "unhurried",
        "SYNTH",
        timeframe="1d",
        space={"n": range(1, last)},
        objective="total_return",
        sweep_id=sweep_id,
        block_size=BLOCK,
        parameters=how,
    )


def until_done(found: Sweep, rows: int) -> None:
    wait_until(lambda: found.status().done >= rows, 60.0)


def stored_rows(broker: RunningBroker, sweep_id: str) -> int:
    """Return the number of rows in the files of a sweep, those that were computed twice counted twice."""
    folder = broker.data_dir / SWEEPS / sweep_id
    store = SweepStore(folder.parent)
    return sum(block.facts.rows for path in sorted(folder.glob("*.rows")) for block in store._checked(path))


def test_rows_that_are_read_in_pages_are_those_of_one_page(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {"fast": range(2, 7), "slow": range(5, 11)}
    found = client.sweep("sma_cross", "SYNTH", timeframe="1d", space=space, objective="sharpe_ratio")
    found.wait(60.0)
    asked: tuple[dict[str, Any], ...] = (
        {},
        {"limit": 15},
        {"where": "fast > 3 or slow < 7", "columns": ["total_trades"]},
        {"sort": "total_trades", "descending": True, "limit": 15, "columns": ["slow"]},
        {"sort": "sharpe_ratio", "where": "slow > 6"},
    )
    whole = [found.results(**{"limit": 100, **how}) for how in asked]
    assert len(whole[0]) == len(set(whole[0]["cell"])) > 20
    monkeypatch.setattr(sweep_module, "MAX_ROWS", 4)
    for how, rows in zip(asked, whole, strict=True):
        assert_frame_equal(found.results(**how), rows)


def test_a_sweep_of_the_client_is_the_sweep_of_the_engine(client: Client, running: RunningBroker) -> None:
    found = client.sweep(
        "sma_cross",
        "SYNTH",
        timeframe="1h",
        space=SPACE,
        where="fast < slow",
        objective="sharpe_ratio",
        capital=10_000.0,
        commission=0.001,
    )
    assert found.accepted is not None
    assert found.accepted.combinations == 25 * 36 - sum(
        slow <= fast for fast in range(5, 30) for slow in range(20, 200, 5)
    )
    assert found.accepted.estimated_ms >= 0
    status = found.wait(60.0)
    assert (status.status, status.done) == ("completed", found.accepted.combinations)
    rows = found.results()
    bars = Catalog(running.data_dir / "catalog", cache_bytes=0).load("SYNTH", "1h")
    own = sweep(
        bars,
        find_algorithm("sma_cross"),
        SPACE,
        where="fast < slow",
        conventions=load_config(None).conventions,
        initial_capital=10_000.0,
        commission=0.001,
    )
    assert_frame_equal(rows, own.frame, check_exact=True)
    assert status.best is not None
    assert found.best(1)["cell"].to_list() == [status.best.cell] == own.best(1, "sharpe_ratio")["cell"].to_list()


def test_a_row_opened_as_a_backtest_has_the_same_figures(client: Client) -> None:
    found = client.sweep("ema_cross", "SYNTH", timeframe="1h", space={"fast": [5, 8, 13]}, metrics=["all"])
    found.wait(60.0)
    [row] = found.best(1).iter_rows(named=True)
    result = found.run(row["cell"]).result()
    assert result.metrics is not None
    assert result.config["parameters"]["fast"] == row["fast"]
    for name in ("final_equity", "total_return", "max_drawdown", "total_fees", "total_trades", "sharpe_ratio", "alpha"):
        assert getattr(result.metrics, name) == row[name], name
    assert result.trades.height == row["total_trades"]


@pytest.mark.timeout(180)
def test_a_worker_that_is_killed_costs_its_block(client: Client, running: RunningBroker) -> None:
    found = unhurried(client, "killed-worker")
    until_done(found, 2 * BLOCK)
    victim = next(one for one in client.status().workers if one.worker_id.startswith("compute") and one.state == "busy")
    os.kill(victim.pid, signal.SIGKILL)
    status = found.wait(120.0)
    assert (status.status, status.done) == ("completed", 299)
    rows = found.results()
    assert rows["cell"].to_list() == list(range(299))
    assert stored_rows(running, "killed-worker") <= 299 + BLOCK


@pytest.mark.timeout(240)
def test_a_broker_that_is_killed_goes_on_where_it_was(running: RunningBroker) -> None:
    with Client(ConnectionFile(running.connection_file).read()) as client:
        found = unhurried(client, "killed-broker")
        until_done(found, 3 * BLOCK)
        before = found.status().done
        running.kill()
    assert stored_rows(running, "killed-broker") >= before, "what was counted is on disk"
    running.start()
    with Client(ConnectionFile(running.connection_file).read()) as client:
        again = client.find_sweep("killed-broker")
        assert again.status().status in ("queued", "running")
        status = again.wait(120.0)
        assert (status.status, status.done, status.failed) == ("completed", 299, 6)
        rows = again.results()
        assert rows["cell"].to_list() == list(range(299))
        assert stored_rows(running, "killed-broker") <= 299 + 2 * BLOCK, "blocks that were not finished, and no other"
        whole = unhurried(client, "not-killed")
        whole.wait(120.0)
        assert_frame_equal(rows, whole.results(), check_exact=True)
        assert unhurried(client, "not-killed").status().status == "completed", "the same request is the same sweep"


@pytest.mark.timeout(300)
def test_a_combination_that_ends_its_worker_is_a_row_with_its_reason(client: Client) -> None:
    found = unhurried(client, "worst", last=30, worst=17)
    status = found.wait(240.0)
    assert (status.status, status.done, status.failed) == ("completed", 29, 1)
    failed = found.results().filter(pl.col("failure").is_not_null())
    assert failed["n"].to_list() == [17]
    assert "ended the worker" in failed["failure"][0]


def test_a_backtest_of_a_person_goes_ahead_of_a_sweep(client: Client) -> None:
    found = unhurried(client, "bulk", last=2_000)
    until_done(found, 2 * BLOCK)
    result = client.backtest("sma_cross", "SYNTH", timeframe="1h").result(30.0)
    assert result.metrics is not None
    status = found.status()
    assert status.status == "running"
    assert status.done < status.of
    assert found.pause() == "paused"
    with pytest.raises(TimedOut, match=r"paused at [\d,]+ of 1,999"):
        found.wait(0.2)
    assert found.resume() in ("queued", "running")
    assert found.stop() == "stopped"
    with pytest.raises(StateConflict):
        found.resume()
    assert found.wait(10.0).status == "stopped"
    wait_until(lambda: found.status().blocks == 0, 30.0)
    assert found.results().height == found.status().done
    assert found.delete() > 0
    with pytest.raises(NotFound):
        client.find_sweep("bulk")


def test_progress_names_every_cell_once(client: Client) -> None:
    found = unhurried(client, "watched", last=100)
    updates = list(found.updates())
    assert updates[-1].status == "completed"
    cells = [cell for one in updates if one.cells_done for cell in memoryview(one.cells_done["cell"].data).cast("q")]
    assert sorted(cells) == list(range(99))
    assert [one.done for one in updates] == sorted(one.done for one in updates)
    found.progress()
    figure = found.best(3)
    assert figure.height == 3
    assert [one.sweep_id for one in client.list_sweeps("completed", 1)] == ["watched"]


def test_a_heat_map_has_a_field_for_each_combination(client: Client) -> None:
    pytest.importorskip("plotly")
    found = client.sweep("sma_cross", "SYNTH", timeframe="1d", space={"fast": [3, 5, 8], "slow": [10, 20]})
    found.wait(60.0)
    [heat] = found.heatmap("fast", "slow").data
    assert list(heat.x) == [3, 5, 8]
    assert list(heat.y) == [10, 20]
    assert [len(row) for row in heat.z] == [3, 3]


def test_an_objective_that_no_row_has_is_said(client: Client) -> None:
    never = client.sweep(
        "sma_cross",
        "SYNTH",
        timeframe="1d",
        start="2024-01-10",
        end="2024-01-12",
        warmup=0,
        space={"fast": [3, 5], "slow": [40, 50]},
        objective="win_rate",
    )
    never.wait(60.0)
    with pytest.raises(InvalidConfiguration, match="undefined for each of the 4 finished rows"):
        never.best()


def test_what_cannot_be_swept_is_refused_at_once(client: Client) -> None:
    ask: dict[str, Any] = {"timeframe": "1d", "space": {"fast": [3, 5]}}
    with pytest.raises(ValidationError, match="did you mean 'sharpe_ratio'"):
        client.sweep("sma_cross", "SYNTH", objective="sharp_ratio", **ask)
    with pytest.raises(ValidationError, match="did you mean 'fast'"):
        client.sweep("sma_cross", "SYNTH", timeframe="1d", space={"fats": [3]})
    with pytest.raises(ValueError, match="has no value"):
        client.sweep("sma_cross", "SYNTH", timeframe="1d", space={"fast": range(5, 5)})
    with pytest.raises(InvalidConfiguration, match="leaves no combination"):
        client.sweep("sma_cross", "SYNTH", where="fast > 400", **ask)
    counted = client.count_sweep("sma_cross", "SYNTH", **ask)
    assert (counted.combinations, counted.sweep_id) == (2, None)
    with pytest.raises(NotFound, match="unknown sweep"):
        client.find_sweep("nowhere")
