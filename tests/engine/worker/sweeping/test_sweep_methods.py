"""The method of a sweep is the one that was asked for, unless all combinations take less time, and says so."""

from __future__ import annotations

from typing import Any

import pytest

from backtestr_engine.algorithms.algorithm import algorithm
from backtestr_engine.algorithms.parameters import Bool, Float, Int
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.data.bars import Bars
from backtestr_engine.research.sweep_plan import SweepPath, SweepPlan
from backtestr_engine.research.sweep_space import space_of
from backtestr_engine.simulation.conventions import Conventions, resolve_options
from backtestr_engine.worker.sweeping import sweep_methods
from backtestr_engine.worker.sweeping.sweep_methods import Chosen, choose_method
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.sweep_messages import DEFAULT_TRIALS, StartSweep, SweepMethod

CONFIG = BacktestConfig(
    algorithm_id="varied",
    symbol="SYNTH",
    initial_capital=1.0,
    timeframe="1d",
    commission=0.0,
    slippage=0.0,
    parameters={},
)
WIDE = {
    "level": {"low": 0.0, "high": 1.0, "distribution": "uniform"},
    "length": {"low": 1, "high": 100_000, "distribution": "uniform"},
}


@algorithm("varied", level=Float(0.5, low=0.0, high=1.0), length=Int(5, low=1, high=1_000_000), on=Bool(True))
def varied(bars: Bars, level: float, length: int, on: bool) -> Signals:
    """Nothing."""
    return Signals.of(entries=bars.close > length * level)


@pytest.fixture
def choose(conventions: Conventions) -> Any:
    def choose(space: dict[str, Any], bars: int = 1_000, where: str | None = None, **asked: Any) -> Chosen:
        plan = SweepPlan(
            config=CONFIG,
            options=resolve_options({}, conventions),
            space=space_of(varied, space, None, where),
            metrics=("total_return",),
            path=SweepPath("single_runs", "it is a test"),
        )
        request = StartSweep(config=CONFIG, space=space, where=where, **asked)
        return choose_method(request, plan, plan.space.count(), bars)

    return choose


def test_a_grid_is_all_cells(choose: Any) -> None:
    assert choose({"length": [1, 2, 3]}) == Chosen(method="grid", units=3, notes=[])


@pytest.mark.parametrize(("method", "trials", "size"), [("tpe", 200, 16), ("cmaes", 200, 8)])
def test_what_is_left_out_is_filled_in(choose: Any, method: SweepMethod, trials: int, size: int) -> None:
    assert choose(WIDE, method=method) == Chosen(
        method=method, trials=trials, batch_size=size, units=trials, notes=[], scheduler=""
    )
    chosen = choose(WIDE, method=method, trials=50, batch_size=5, seed=9)
    assert (chosen.trials, chosen.batch_size, chosen.units) == (50, 5, 50)
    drawn = choose(WIDE, method="random")
    assert (drawn.trials, drawn.batch_size, drawn.units) == (DEFAULT_TRIALS, None, DEFAULT_TRIALS)


@pytest.mark.parametrize("method", ["random", "tpe", "cmaes"])
def test_no_more_combinations_than_trials_are_a_grid(choose: Any, method: str) -> None:
    chosen = choose({"length": list(range(1, 31))}, method=method, trials=30)
    assert (chosen.method, chosen.trials, chosen.units) == ("grid", None, 30)
    assert chosen.notes == ["all 30 combinations are run: there are no more than the trials"]


def test_a_small_grid_is_exhausted_when_that_is_quicker(choose: Any) -> None:
    """A row takes 0.4 ms by its path and bars, and a proposal of tpe some 3 ms: 100 trials are 800 rows."""
    space = {"length": {"low": 1, "high": 790, "step": 1}}
    quick = choose(space, method="tpe", trials=100)
    assert (quick.method, quick.batch_size) == ("grid", None)
    assert quick.notes == [
        "all 790 combinations are run: that takes some 0.32 s of a worker, and 100 trials of tpe 0.32 s"
    ]
    assert choose({"length": {"low": 1, "high": 810, "step": 1}}, method="tpe", trials=100).method == "tpe"
    assert choose(space, method="tpe", trials=100, bars=10_000).method == "tpe"
    assert choose(space, method="cmaes", trials=100).method == "cmaes"


def test_a_cluster_does_not_compute_what_is_learnt_from(choose: Any) -> None:
    chosen = choose(WIDE, method="tpe", scheduler="tcp://127.0.0.1:8786")
    assert (chosen.scheduler, len(chosen.notes)) == ("", 1)
    assert "own workers" in chosen.notes[0]
    assert choose(WIDE, method="random", scheduler="tcp://127.0.0.1:8786").scheduler == "tcp://127.0.0.1:8786"


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"method": "grid", "trials": 5}, "a grid runs every combination"),
        ({"method": "grid", "batch_size": 5}, "that of methods tpe and cmaes"),
        ({"method": "random", "batch_size": 5}, "that of methods tpe and cmaes"),
        ({"method": "tpe", "trials": 10_001}, "up to 10,000 trials"),
        ({"method": "grid"}, 'with method "random" or "tpe"'),
        ({"method": "tpe", "where": "length < 2 and level < 0.01"}, "fewer than the 200 trials"),
    ],
)
def test_what_does_not_go_together_is_refused(choose: Any, asked: dict[str, Any], match: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(sweep_methods, "MAX_DRAWS", 1 << 17)
    with pytest.raises(InvalidConfiguration, match=match):
        choose(WIDE, **asked)


def test_cmaes_refuses_what_is_true_or_false(choose: Any) -> None:
    with pytest.raises(InvalidConfiguration, match="and not on, which can be true or false: use method tpe") as refused:
        choose({**WIDE, "on": [True, False]}, method="cmaes")
    assert refused.value.details is not None
    assert refused.value.details["paths"] == ["$.space.on", "$.method"]
    assert choose({**WIDE, "on": [True]}, method="cmaes").method == "cmaes"


def test_a_method_whose_packages_are_missing_says_how_to_get_them(choose: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_methods, "missing_packages", lambda method: ["optuna"] if method == "tpe" else [])
    with pytest.raises(InvalidConfiguration, match=r"needs optuna.*pip install 'backtestr\[optimise\]'"):
        choose(WIDE, method="tpe")
    assert choose(WIDE, method="cmaes").method == "cmaes"
