"""The plan of a sweep: its checks, the path that its rows take, and that it can be sent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backtestr_engine.algorithms.algorithm import Algorithm, algorithm
from backtestr_engine.algorithms.parameters import Int
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.bars import Bars
from backtestr_engine.research.sweep_plan import (
    ALL_METRICS,
    USUAL_METRICS,
    SweepPlan,
    checked_metrics,
    choose_path,
    plan_sweep,
)
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.errors import BacktestrError, InvalidConfiguration, ValidationError
from backtestr_protocol.messages import BacktestConfig
from support.engine.sweep_cases import guarded, leaders

CONFIG = BacktestConfig(
    algorithm_id="sma_cross",
    symbol="S",
    initial_capital=1000.0,
    timeframe="1m",
    commission=0.001,
    slippage=0.0,
    parameters={"slow": 40},
)


def planned(conventions: Conventions, space: dict[str, Any], **changes: Any) -> SweepPlan:
    config = msgspec.structs.replace(CONFIG, **changes)
    return plan_sweep(config, BUILT_IN["sma_cross"], space, conventions, where="slow > 2 * fast")


def test_a_plan_has_all_that_is_not_swept_and_can_be_sent(conventions: Conventions) -> None:
    plan = planned(conventions, {"fast": range(5, 30)}, options={"fillAt": "close"})
    assert plan.config.algorithm_id == BUILT_IN["sma_cross"].algorithm_id
    assert plan.config.parameters == plan.space.fixed == {"slow": 40}
    assert plan.options.conventions.fill_at == "close"
    assert plan.space.where == ("slow > 2 * fast", "fast < slow")
    assert plan.space.count().admissible == 15
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=SweepPlan) == plan


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"initial_capital": 0.0}, InvalidConfiguration, "initialCapital must be above 0"),
        ({"commission": 1.5}, ValidationError, "commission is a fraction"),
        ({"options": {"fees": 1}}, ValidationError, "did you mean 'commission'"),
        ({"parameters": {"slwo": 3}}, ValidationError, "did you mean 'slow'"),
        ({"symbols": ["S", "T"], "options": {"leverage": 2}}, InvalidConfiguration, "leverage as given is for"),
    ],
)
def test_what_a_single_run_refuses_a_sweep_refuses(
    changes: dict[str, Any], kind: type[BacktestrError], said: str, conventions: Conventions
) -> None:
    with pytest.raises(kind, match=said):
        planned(conventions, {"fast": [5]}, **changes)


@pytest.mark.parametrize(
    ("one", "changes", "symbols", "expected", "reason"),
    [
        (BUILT_IN["sma_cross"], {}, 1, "fused", "share its lines"),
        (BUILT_IN["ema_cross"], {"stop_loss": 0.1}, 1, "fused", "share its lines"),
        (BUILT_IN["donchian_breakout"], {}, 1, "fused", "share its lines"),
        (BUILT_IN["sma_cross"], {"order_type": "limit"}, 1, "general", "orderType limit"),
        (BUILT_IN["macd"], {}, 1, "general", "has to be called"),
        (msgspec.structs.replace(BUILT_IN["sma_cross"], version="0"), {}, 1, "general", "has to be called"),
        (guarded, {}, 1, "general", "has to be called"),
        (BUILT_IN["sma_cross"], {}, 2, "single_runs", "2 symbols share the account"),
        (BUILT_IN["sma_cross"], {"statistics": "daily_geometric"}, 1, "single_runs", "need the days of each run"),
        (leaders, {}, 1, "single_runs", "leaders compares symbols"),
    ],
)
def test_the_path_follows_from_algorithm_and_conventions(
    one: Algorithm, changes: dict[str, Any], symbols: int, expected: str, reason: str, conventions: Conventions
) -> None:
    path = choose_path(one, msgspec.structs.replace(conventions, **changes), symbols)
    assert path.name == expected
    assert reason in path.reason


def test_metrics_go_by_both_of_their_names() -> None:
    assert checked_metrics(None) == USUAL_METRICS
    assert checked_metrics("all") == ALL_METRICS
    assert set(ALL_METRICS) - set(USUAL_METRICS) == {
        *("alpha", "beta", "value_at_risk_95", "conditional_value_at_risk_95", "tail_ratio"),
        *("average_mae", "average_mfe"),
    }
    assert checked_metrics(["sharpeRatio", "sqn", "sharpe_ratio"]) == ("sharpe_ratio", "sqn")
    assert checked_metrics("beta") == ("beta",)


@pytest.mark.parametrize(
    ("given", "said"),
    [(["sharp_ratio"], "did you mean 'sharpe_ratio'"), ([], "metrics is empty"), ([3], "unknown metric 3")],
)
def test_metrics_that_do_not_exist_are_refused(given: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        checked_metrics(given)


def test_a_parameter_with_the_name_of_another_column_is_refused_where_it_is_swept(conventions: Conventions) -> None:
    @algorithm("numbered", trial=Int(1, low=1, high=9), total_trades=Int(1, low=1, high=9))
    def numbered(bars: Bars, trial: int, total_trades: int) -> Signals:
        """Nothing."""
        return Signals.of(entries=bars.close > trial + total_trades)

    config = msgspec.structs.replace(CONFIG, parameters={})
    for name in ("trial", "total_trades"):
        with pytest.raises(ValidationError, match=f"{name} of numbered cannot be swept.*rename the parameter"):
            plan_sweep(config, numbered, {name: [1, 2]}, conventions)
