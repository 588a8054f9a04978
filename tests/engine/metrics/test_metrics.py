"""Every metric against a second way of computing it, and a reason wherever there is no number."""

from __future__ import annotations

import math
import statistics
from typing import Any, Literal

import msgspec
import numpy as np
import pytest

from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.timeframes import DAY_US
from backtestr_engine.metrics.annualisation import Annualisation
from backtestr_engine.metrics.metrics import Simulated, compute_metrics
from backtestr_engine.simulation.account import ACCOUNT, totals
from backtestr_engine.simulation.records import TRADE
from backtestr_protocol.metrics import WIRE_NAMES, Metrics

CAPITAL = 1_000.0
DAY = DAY_US
DAILY = Annualisation(365.0, 0.0)

OF_TRADES = (
    *("winRate", "bestTrade", "worstTrade", "averageTrade", "profitFactor", "payoffRatio", "expectancy", "sqn"),
    *("kelly", "averageTradeDurationMs", "maxTradeDurationMs", "averageMae", "averageMfe"),
)
OF_RETURNS = (
    *("volatility", "sharpeRatio", "sortinoRatio", "omegaRatio", "skew", "kurtosis"),
    *("valueAtRisk95", "conditionalValueAtRisk95", "tailRatio"),
)
OF_DRAWDOWNS = ("calmarRatio", "averageDrawdown", "averageDrawdownDurationMs", "recoveryFactor")
NO_DRAWDOWN = dict.fromkeys(OF_DRAWDOWNS, "there is no drawdown")


def measured(
    equity: Floats,
    *,
    pnl: Any = (),
    returns: Any = (),
    rule: Annualisation = DAILY,
    close: Floats | None = None,
    drawdown_from: Literal["capital", "first_close"] = "capital",
    **account: float,
) -> Metrics:
    trades = np.zeros(len(pnl), dtype=TRADE)
    trades["pnl"], trades["return"] = pnl, returns if len(returns) else pnl
    trades["entry_price"] = trades["exit_price"] = 10.0
    trades["exit_time"] = DAY
    state = np.zeros(1, dtype=ACCOUNT)
    for name, value in account.items():
        state[name] = value
    prices = np.linspace(10.0, 12.0, len(equity)) if close is None else close
    times = np.arange(len(equity), dtype=np.int64) * DAY
    return compute_metrics(
        Simulated(
            initial_capital=CAPITAL,
            timestamp=times,
            closed_at=int(times[-1]) + DAY,
            market=prices,
            equity=equity,
            trades=trades,
            totals=totals(state),
            drawdown_from=drawdown_from,
            rejected_orders={"not enough cash": 7},
        ),
        rule,
    )


def random_equity(generator: np.random.Generator, bars: int = 400) -> Floats:
    equity: Floats = CAPITAL * np.exp(np.cumsum(generator.normal(0.0005, 0.02, size=bars)))
    return equity


def test_return_metrics_against_numpy(generator: np.random.Generator) -> None:
    for risk_free in (0.0, 0.03):
        rule = Annualisation(252.0, risk_free)
        equity = random_equity(generator)
        metrics = measured(equity, rule=rule)
        returns = np.diff(np.concatenate(([CAPITAL], equity))) / np.concatenate(([CAPITAL], equity[:-1]))
        excess = returns - ((1 + risk_free) ** (1 / 252) - 1)

        assert metrics.total_return == pytest.approx(np.prod(1 + returns) - 1)
        assert metrics.annual_return == pytest.approx(np.prod(1 + returns) ** (252 / 400) - 1)
        assert metrics.cagr == pytest.approx(np.prod(1 + returns) ** (365.25 / 400) - 1)
        assert metrics.volatility == pytest.approx(np.std(returns, ddof=1) * math.sqrt(252))
        assert metrics.sharpe_ratio == pytest.approx(np.mean(excess) / np.std(excess, ddof=1) * math.sqrt(252))
        downside = math.sqrt(np.mean(np.where(excess < 0, excess, 0.0) ** 2)) * math.sqrt(252)
        assert metrics.sortino_ratio == pytest.approx(np.mean(excess) * 252 / downside)
        assert metrics.annual_return is not None
        assert metrics.max_drawdown is not None
        assert metrics.calmar_ratio == pytest.approx(metrics.annual_return / metrics.max_drawdown)
        assert metrics.reasons == dict.fromkeys(OF_TRADES, "there is no closed trade")


def test_drawdowns_against_a_loop_from_peak_to_peak(generator: np.random.Generator) -> None:
    for _ in range(50):
        equity = random_equity(generator, 60)
        episodes: list[float] = []
        longest = peak_bar = 0
        durations: list[int] = []
        curve = np.concatenate(([CAPITAL], equity))
        for bar in range(len(curve)):
            if curve[bar] == curve[: bar + 1].max():
                if bar > peak_bar + 1:
                    longest = max(longest, bar - peak_bar)
                    durations.append(bar - peak_bar)
                peak_bar = bar
                episodes.append(0.0)
            else:
                episodes[-1] = max(episodes[-1], 1 - curve[bar] / curve[peak_bar])
        if peak_bar < len(equity):
            longest = max(longest, len(equity) - peak_bar)
            durations.append(len(equity) - peak_bar)
        depths = [depth for depth in episodes if depth > 0]

        metrics = measured(equity)

        assert metrics.max_drawdown == pytest.approx(max(depths))
        assert metrics.average_drawdown == pytest.approx(np.mean(depths))
        assert metrics.max_drawdown_duration_ms == longest * 86_400_000
        assert metrics.average_drawdown_duration_ms == pytest.approx(statistics.mean(durations) * 86_400_000)
        falls = (1 - curve / np.maximum.accumulate(curve))[1:]
        assert metrics.ulcer_index == pytest.approx(math.sqrt(np.mean(falls**2)))
        assert metrics.total_return is not None
        assert metrics.recovery_factor == pytest.approx(metrics.total_return / max(depths))
        assert metrics.peak_equity == curve.max()


def test_a_loss_on_the_first_bar_is_a_drawdown_from_the_capital() -> None:
    """The capital is there at the open of the first bar: five bars later it is not regained."""
    metrics = measured(np.full(5, 0.95 * CAPITAL))

    assert metrics.peak_equity == CAPITAL
    assert metrics.max_drawdown == pytest.approx(0.05)
    assert metrics.max_drawdown_duration_ms == metrics.average_drawdown_duration_ms == 5 * 86_400_000
    assert metrics.ulcer_index == pytest.approx(0.05)
    assert metrics.average_drawdown == pytest.approx(0.05)
    assert metrics.recovery_factor == pytest.approx(-1)
    assert metrics.annual_return is not None
    assert metrics.calmar_ratio == pytest.approx(metrics.annual_return / 0.05)


def test_a_loss_on_the_first_bar_is_no_drawdown_from_its_close_by_convention() -> None:
    metrics = measured(np.full(5, 0.95 * CAPITAL), drawdown_from="first_close")

    assert (metrics.peak_equity, metrics.max_drawdown) == (0.95 * CAPITAL, 0.0)
    assert metrics.undefined["recovery_factor"] == "there is no drawdown"


def test_trade_metrics() -> None:
    metrics = measured(
        np.array([1000.0, 1100.0, 1050.0]),
        pnl=[100.0, -20.0, -30.0, 0.0],
        returns=[0.1, -0.02, -0.03, 0.0],
        quantity=2.0,
        bars_exposed=2,
        fees=3.5,
        slippage=1.5,
        traded_value=2100.0,
    )

    assert (metrics.total_trades, metrics.open_trades) == (5, 1)
    assert metrics.win_rate == 0.25
    assert (metrics.best_trade, metrics.worst_trade) == (0.1, -0.03)
    assert metrics.average_trade == pytest.approx(0.0125)
    assert metrics.profit_factor == 2.0
    assert metrics.expectancy == 12.5
    assert metrics.payoff_ratio == pytest.approx(100 / 25)
    assert metrics.kelly == pytest.approx(0.25 - 0.75 / 4)
    assert metrics.sqn == pytest.approx(2 * 12.5 / statistics.stdev([100.0, -20.0, -30.0, 0.0]))
    assert metrics.average_trade_duration_ms == metrics.max_trade_duration_ms == 86_400_000
    assert metrics.exposure == pytest.approx(2 / 3)
    assert metrics.turnover == pytest.approx(2100.0 / 1050.0)
    assert metrics.buy_and_hold_return == pytest.approx(0.2)
    assert (metrics.total_fees, metrics.total_slippage) == (3.5, 1.5)
    assert (metrics.final_equity, metrics.peak_equity, metrics.start_equity) == (1050.0, 1100.0, 1000.0)


@pytest.mark.parametrize(
    ("equity", "reasons"),
    [
        (
            [1000.0],
            {
                **NO_DRAWDOWN,
                **dict.fromkeys(OF_RETURNS, "it needs at least two bars"),
                **dict.fromkeys(("alpha", "beta"), "it needs at least three bars"),
            },
        ),
        (
            [1000.0, 1000.0, 1000.0],
            {
                **NO_DRAWDOWN,
                **dict.fromkeys(("sharpeRatio", "skew", "kurtosis"), "returns do not vary"),
                **dict.fromkeys(("sortinoRatio", "omegaRatio"), "no return is below the risk-free rate"),
                "tailRatio": "the 5 % quantile of returns is zero",
            },
        ),
        (
            [1000.0, -5.0, 10.0],
            dict.fromkeys(
                ("annualReturn", "cagr", "calmarRatio", "ulcerIndex", "turnover", "alpha", "beta", *OF_RETURNS),
                "equity fell to zero or below",
            ),
        ),
        (
            [1000.0, 500.0, 0.0],
            dict.fromkeys(
                ("annualReturn", "cagr", "calmarRatio", "ulcerIndex", "turnover", "alpha", "beta", *OF_RETURNS),
                "equity fell to zero or below",
            ),
        ),
        (
            [1e300, 1e303],
            {
                **NO_DRAWDOWN,
                **dict.fromkeys(("annualReturn", "cagr", "calmarRatio"), "beyond the range of a number"),
                **dict.fromkeys(("volatility", "sharpeRatio", "skew", "kurtosis"), "beyond the range of a number"),
                **dict.fromkeys(("sortinoRatio", "omegaRatio"), "no return is below the risk-free rate"),
                **dict.fromkeys(("alpha", "beta"), "it needs at least three bars"),
            },
        ),
    ],
)
def test_an_undefined_metric_is_none_and_has_a_reason(equity: list[float], reasons: dict[str, str]) -> None:
    wire = measured(np.array(equity), pnl=[1.0, -1.0]).to_wire()

    assert wire["undefined"] == reasons
    assert {name for name, value in wire.items() if value is None} == set(reasons)


@pytest.mark.parametrize(
    ("pnl", "reasons"),
    [
        (
            [1.0],
            {
                **dict.fromkeys(("profitFactor", "payoffRatio", "kelly"), "no closed trade lost"),
                "sqn": "it needs at least two closed trades",
            },
        ),
        (
            [-1.0, -1.0],
            {
                **dict.fromkeys(("payoffRatio", "kelly"), "no closed trade won"),
                "sqn": "all closed trades made the same",
            },
        ),
        (
            [-0.1 - 0.2, -0.3],
            {
                **dict.fromkeys(("payoffRatio", "kelly"), "no closed trade won"),
                "sqn": "all closed trades made the same",
            },
        ),
    ],
)
def test_trades_of_one_kind_have_no_ratio(pnl: list[float], reasons: dict[str, str]) -> None:
    metrics = measured(np.array([1000.0, 1001.0]), pnl=pnl)

    assert {name: reason for name, reason in metrics.reasons.items() if name in OF_TRADES} == reasons


def test_a_quantile_of_returns_that_is_rounding_has_no_tail_ratio() -> None:
    falls = CAPITAL * (1 - np.finfo(np.float64).eps * np.arange(6))

    metrics = measured(np.concatenate([falls, np.full(30, falls[-1]), CAPITAL * np.array([1.01, 1.02, 1.03])]))

    assert metrics.undefined["tail_ratio"] == "the 5 % quantile of returns is zero"


def test_every_metric_of_the_protocol_is_computed() -> None:
    computed = msgspec.to_builtins(measured(np.array([1000.0, 1001.0])))

    assert list(computed) == [*WIRE_NAMES.values(), "undefined", "rejectedOrders"]
    assert computed["rejectedOrders"] == {"not enough cash": 7}


def test_prices_that_stand_still_have_no_beta() -> None:
    metrics = measured(np.array([1000.0, 1001.0, 999.0]), close=np.full(3, 10.0))

    assert metrics.undefined["beta"] == metrics.undefined["alpha"] == "prices do not vary"
