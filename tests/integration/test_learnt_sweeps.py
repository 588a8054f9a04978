"""Sweeps that learn from their rows: the same trials on any number of workers, and whatever is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr.sweep import Sweep
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.sweep_messages import SweepMethod
from integration.conftest import QUICK, running_again, stopped_broker, with_algorithm
from support.harness import RunningBroker, wait_until

# A combination takes thirty milliseconds, so that a sweep is long enough to be killed in its middle, and some fail.
SLOW = """
import time

from backtestr_engine.authoring import Float, Int, Signals, algorithm


@algorithm("unhurried", level=Float(0.5, 0.0, 1.0), n=Int(10, 1, 100_000))
def unhurried(bars, level, n):
    time.sleep(0.03)
    if n % 10 == 9:
        raise ValueError(f"{n} is not for me")
    return Signals.of(bars.close > bars.open * (1 + level / 100), bars.close < bars.open * (1 - n / 1e6))
"""
SPACE = {
    "level": {"low": 0.0, "high": 1.0, "distribution": "uniform"},
    "n": {"low": 1, "high": 10_000, "distribution": "log_uniform"},
}
TRIALS = 72
METHODS: list[SweepMethod] = ["tpe", "cmaes"]


def _broker(compute: int) -> Iterator[RunningBroker]:
    with stopped_broker({"broker.toml": QUICK + f"[workers]\ncompute = {compute}\n"}) as broker:
        with_algorithm(broker, "unhurried", SLOW)
        yield broker


@pytest.fixture(scope="module")
def of_two_workers() -> Iterator[RunningBroker]:
    yield from _broker(2)


@pytest.fixture(scope="module")
def of_one_worker() -> Iterator[RunningBroker]:
    yield from _broker(1)


def connected(broker: RunningBroker) -> Client:
    return Client(ConnectionFile(running_again(broker).connection_file).read())


def started(client: Client, sweep_id: str, method: SweepMethod, **changes: Any) -> Sweep:
    asked = {"space": SPACE, "trials": TRIALS, "seed": 5, "batch_size": 12, **changes}
    return client.sweep(
        "unhurried", "SYNTH", timeframe="1d", objective="total_return", sweep_id=sweep_id, method=method, **asked
    )


def whole(found: Sweep) -> pl.DataFrame:
    status = found.wait(120.0)
    assert (status.status, status.done) == ("completed", TRIALS), status.error
    return found.results(sort="trial")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("method", METHODS)
def test_trials_are_the_same_on_any_number_of_workers_and_after_kills(
    of_one_worker: RunningBroker, of_two_workers: RunningBroker, method: SweepMethod
) -> None:
    with connected(of_one_worker) as client:
        alone = whole(started(client, f"alone-{method}", method))
    with connected(of_two_workers) as client:
        found = started(client, f"killed-{method}", method)
        assert found.accepted is not None
        assert (found.accepted.combinations, found.accepted.batch_size, found.accepted.notes) == (TRIALS, 12, [])
        wait_until(lambda: found.status().done >= 12, 60.0)
        wait_until(lambda: kill_a_worker(client), 60.0)
        wait_until(lambda: found.status().done >= 30, 60.0)
        of_two_workers.kill()
    with connected(of_two_workers) as client:
        assert client.find_sweep(f"killed-{method}").status().status in ("queued", "running")
        killed = whole(client.find_sweep(f"killed-{method}"))
        undisturbed = whole(started(client, f"undisturbed-{method}", method))
    assert_frame_equal(undisturbed, alone, check_exact=True)
    assert_frame_equal(killed, alone, check_exact=True)
    assert alone["trial"].to_list() == list(range(TRIALS))
    assert alone["cell"].n_unique() == TRIALS
    assert 0 < alone["failure"].count() < TRIALS


def test_pause_resume_and_stop_between_and_within_batches(of_two_workers: RunningBroker) -> None:
    with connected(of_two_workers) as client:
        found = started(client, "steered", "tpe")
        wait_until(lambda: found.status().done >= 20, 60.0)
        assert found.pause() == "paused"
        wait_until(lambda: found.status().blocks == 0, 30.0)
        paused = found.status().done
        assert found.resume() in ("queued", "running")
        wait_until(lambda: found.status().done > paused, 60.0)
        assert found.stop() == "stopped"
        wait_until(lambda: found.status().blocks == 0, 30.0)
        rows = found.results(sort="trial")
        assert rows.height == found.status().done < TRIALS
        assert found.best(1)["cell"][0] == found.status().best.cell  # type: ignore[union-attr]  # rows have values
        assert found.delete() > 0


def test_progress_tells_the_trials_and_a_row_opens_as_a_backtest(of_two_workers: RunningBroker) -> None:
    with connected(of_two_workers) as client:
        found = started(client, "watched", "cmaes", trials=30, where="n < 5000")
        updates = list(found.updates())
        trials = [one for each in updates if each.cells_done for one in _whole_numbers(each, "trial")]
        assert sorted(trials) == list(range(30))
        best = found.best(1).row(0, named=True)
        assert best["n"] < 5_000
        result = found.run(best["cell"]).result(60.0)
        assert result.metrics is not None
        assert result.metrics.total_return == best["total_return"]


def test_a_small_space_is_run_as_a_grid_and_says_so(of_two_workers: RunningBroker) -> None:
    with connected(of_two_workers) as client:
        counted = client.count_sweep(
            "unhurried", "SYNTH", timeframe="1d", space={"n": range(1, 40)}, method="tpe", trials=30
        )
        assert (counted.combinations, counted.batch_size) == (39, None)
        assert "all 39 combinations are run: that takes some" in counted.notes[0]
        with pytest.raises(InvalidConfiguration, match="up to 10,000 trials"):
            started(client, "too-many", "tpe", trials=10_001)


def kill_a_worker(client: Client) -> bool:
    """Kill a worker at a task, if there is one at this moment."""
    for worker in client.status().workers:
        if worker.worker_id.startswith("compute") and worker.state == "busy":
            os.kill(worker.pid, signal.SIGKILL)
            return True
    return False


def _whole_numbers(update: Any, name: str) -> list[int]:
    return memoryview(update.cells_done[name].data).cast("q").tolist()
