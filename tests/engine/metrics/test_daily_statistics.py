"""Daily statistics by the rules of backtesting.py: days count, not bars, and undefined figures have a reason."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from backtestr_engine.backtest.plan import prepare
from backtestr_engine.backtest.run import Run
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.metrics.daily_statistics import with_daily_statistics
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.metrics import Metrics


@pytest.fixture
def metrics(catalog: Catalog, conventions: Conventions) -> Metrics:
    catalog.write(synthetic_bars("1h", 500))
    config = BacktestConfig(
        algorithm_id="buy_and_hold",
        symbol="SYNTH",
        start_date="2024-01-01",
        end_date="2025-01-01",
        initial_capital=10_000.0,
        timeframe="1h",
        commission=0.0,
        slippage=0.0,
        parameters={},
    )
    run = Run(prepare(config, catalog, conventions), "daily")
    run.advance(500)
    return run.finish().metrics


def test_days_count_and_not_bars(metrics: Metrics) -> None:
    bars = synthetic_bars("1h", 72)
    equity = np.repeat([100.0, 110.0, 99.0], 24)
    daily = with_daily_statistics(metrics, bars.timestamp, bars.timeframe, equity, 0.0)

    # Three days from a Monday on; returns of +10 % and −10 %.
    assert daily.annual_return == pytest.approx((0.99**0.5) ** 252 - 1)
    variance, growth = 0.02, 0.99**0.5
    assert daily.volatility == pytest.approx(((variance + growth**2) ** 252 - growth**504) ** 0.5)
    assert daily.annual_return is not None
    assert daily.volatility is not None
    assert daily.sharpe_ratio == pytest.approx(daily.annual_return / daily.volatility)
    assert daily.sortino_ratio == pytest.approx(daily.annual_return / (0.005 * 252) ** 0.5)


def test_weekends_that_trade_make_longer_years(metrics: Metrics) -> None:
    bars = synthetic_bars("1d", 14)
    equity = np.array([100.0 * 1.001**day for day in range(14)])

    assert with_daily_statistics(metrics, bars.timestamp, bars.timeframe, equity, 0.0).annual_return == pytest.approx(
        1.001**365 - 1
    )


@pytest.mark.parametrize(
    ("equity", "reasons"),
    [
        ([100.0], {"sharpeRatio": "it needs at least two days", "volatility": "it needs at least two days"}),
        ([100.0, 101.0], {"volatility": "it needs at least three days", "sortinoRatio": "no day lost"}),
        ([100.0, -1.0, 3.0], {"annualReturn": "equity fell to zero or below"}),
        (
            [100.0, 1e5, 9e9],
            dict.fromkeys(("annualReturn", "volatility", "sharpeRatio"), "beyond the range of a number"),
        ),
    ],
)
def test_an_undefined_figure_has_a_reason(metrics: Metrics, equity: list[float], reasons: dict[str, str]) -> None:
    bars = synthetic_bars("1d", len(equity))
    made = with_daily_statistics(metrics, bars.timestamp, bars.timeframe, np.array(equity), 0.0)
    daily = msgspec.to_builtins(made)

    assert {name: daily["undefined"][name] for name in reasons} == reasons
    assert all(daily[name] is None for name in reasons)


@pytest.mark.parametrize(("timeframe", "periods"), [("1M", 12), ("3M", 4), ("12M", 1), ("1w", 52), ("2w", 26)])
def test_weeks_and_months_have_their_own_years(timeframe: str, periods: int, metrics: Metrics) -> None:
    bars = synthetic_bars(timeframe, 10)
    equity = np.array([100.0 * 1.01**number for number in range(10)])
    annual = with_daily_statistics(metrics, bars.timestamp, timeframe, equity, 0.0).annual_return
    assert annual == pytest.approx(1.01**periods - 1)


def test_days_are_those_of_the_zone(metrics: Metrics) -> None:
    bars = synthetic_bars("1h", 24 * 4)  # Monday to Thursday
    equity = np.repeat([100.0, 110.0, 99.0, 120.0], 24)
    in_utc = with_daily_statistics(metrics, bars.timestamp, "1h", equity, 0.0)
    later = bars.timestamp + 5 * 3_600_000_000
    assert with_daily_statistics(metrics, later, "1h", equity, 0.0, "Etc/GMT+5") == in_utc
    assert with_daily_statistics(metrics, later, "1h", equity, 0.0, "UTC") != in_utc
