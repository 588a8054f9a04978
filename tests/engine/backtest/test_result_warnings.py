"""A verdict of look-ahead follows the result into its metrics."""

from __future__ import annotations

import msgspec
import pytest

from backtestr_engine.backtest.plan import prepare
from backtestr_engine.backtest.run import Run
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.messages import BacktestConfig, Finding, LookAhead

CONFIG = BacktestConfig(
    algorithm_id="buy_and_hold",
    symbol="SYNTH",
    initial_capital=10_000.0,
    timeframe="1m",
    commission=0.0,
    slippage=0.0,
    parameters={},
)
FINDING = Finding(signal="entries", bar=4, cut=5, explanation="entries of bar 4 changes", sample="1m random walk")


@pytest.mark.parametrize(
    ("verdict", "warned"),
    [
        (None, []),
        (LookAhead(passed=True, bars=10, cuts=3), []),
        (LookAhead(passed=False, bars=10, cuts=0, problem="it raised"), []),
        (
            LookAhead(passed=False, bars=10, cuts=3, finding=FINDING),
            ["looks ahead, so these figures cannot be had in trading: entries of bar 4 changes on the sample"],
        ),
    ],
)
def test_a_finding_is_a_warning_of_the_result(
    verdict: LookAhead | None, warned: list[str], catalog: Catalog, conventions: Conventions
) -> None:
    catalog.write(synthetic_bars("1m", 100))
    run = Run(prepare(CONFIG, catalog, conventions), "a", verdict)
    run.advance(60)
    warnings = run.finish().metrics.warnings

    assert len(warnings) == len(warned)
    for ours, theirs in zip(warnings, warned, strict=True):
        assert theirs in ours
        assert ours.startswith("buy_and_hold@")


def test_a_take_profit_of_more_than_the_price_is_said(catalog: Catalog, conventions: Conventions) -> None:
    catalog.write(synthetic_bars("1m", 100))
    for profit, warned in ((0.5, []), (2.0, ["takeProfit 2 is 200% of the price; 2 % is 0.02"])):
        run = Run(prepare(msgspec.structs.replace(CONFIG, options={"takeProfit": profit}), catalog, conventions), "a")
        run.advance(100)
        assert run.finish().metrics.warnings == warned


def test_a_backtest_that_is_stopped_before_its_first_bar_warns_too(catalog: Catalog, conventions: Conventions) -> None:
    catalog.write(synthetic_bars("1m", 100))
    run = Run(prepare(CONFIG, catalog, conventions), "a", LookAhead(passed=False, bars=10, cuts=3, finding=FINDING))
    run.start()
    (warning,) = run.finish().metrics.warnings
    assert "looks ahead" in warning
