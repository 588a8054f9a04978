"""This program compares the presets with the libraries of their names, and metrics with empyrical and scipy.

    make parity

The cases are grids of parameters, costs, sizes, protective exits and reversals, on GOOG daily, EURUSD hourly, BTCUSD
monthly (of the `backtesting` wheel) and synthetic bars. Every figure of every case is compared, except those that
backtestr states to be undefined. The program prints the worst relative difference and the number of cases that differ;
its exit code is 1 if one does. A library that is not installed (extra `bench`) is reported as skipped.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import oracles
from parity_metrics import metrics_of_empyrical
from parity_shared import compare_shared

from backtestr_engine.algorithms.signals import (
    ENTRY,
    REPEATED_ENTRY,
    REPEATED_SHORT_ENTRY,
    SHORT_ENTRY,
    Signals,
)
from backtestr_engine.backtest.plan import Plan
from backtestr_engine.backtest.run import Run
from backtestr_engine.built_in import find_algorithm
from backtestr_engine.config import load_config
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.simulation.conventions import resolve_options
from backtestr_protocol.messages import BacktestConfig

CAPITAL = 10_000.0
TOLERANCE = 1e-9
SMALLEST = 1e-4
"""The least value to which differences are relative: a smaller figure is zero except for rounding."""
IN_MONEY = {"expectancy": CAPITAL}
"""The amounts of money to which a figure is relative before `SMALLEST` is applied to it; others are relative to 1."""
DIGITS = 8
"""Decimal places of money that mean something, beside a capital of 10,000."""
ROUNDING = 1e-12
"""Averages that differ by no more than this, relative, are equal."""
SHOWN = 12
FREQUENCY = {"1d": "1D", "1h": "1h", "1w": "7D"}
OPPOSITE = {"reverse": "Reverse", "close": "Close", "ignore": "Ignore"}
SIZE_TYPE = {"units": "amount", "value": "value", "fraction": "percent"}

Figures = dict[str, float]


class Case(NamedTuple):
    bars: Bars
    fast: int = 10
    slow: int = 30
    direction: str = "both"
    commission: float = 0.0
    fixed: float = 0.0
    slippage: float = 0.0
    stop_loss: float = 0.0
    take_profit: float = 0.0
    trailing_stop: float = 0.0
    size: str = "all_in"
    size_value: float = 0.0
    whole_units: bool = False
    opposite: str = "reverse"
    at_random: bool = False
    """If true, signals of all four kinds at random bars, the same arrays for both, instead of crossing averages."""
    risk_free: float = 0.0
    fill_at: str = ""
    """If given, the option `fillAt` beside the preset."""

    def __str__(self) -> str:
        changed = {name: value for name, value in self._asdict().items() if value != self._field_defaults.get(name)}
        return ", ".join([self.bars.symbol, *(f"{name} {value}" for name, value in changed.items() if name != "bars")])


COSTS = ((0.0, 0.0, 0.0), (0.001, 0.0, 0.0), (0.001, 5.0, 0.002))
NO_EXITS, STOP, BOTH = (0.0, 0.0, 0.0), (0.05, 0.0, 0.0), (0.05, 0.1, 0.0)
TRAILING, TRAILING_PROFIT = (0.0, 0.0, 0.08), (0.0, 0.2, 0.08)


def all_series() -> list[Bars]:
    """Return all series; BTCUSD has monthly bars and is called weekly, since the length of a bar affects both alike."""
    return [
        oracles.real_bars("GOOG", "1d"),
        synthetic_bars("1d", 1500),
        oracles.real_bars("EURUSD", "1h"),
        oracles.real_bars("BTCUSD", "1w"),
    ]


def crossings(
    series: Iterable[Bars], directions: tuple[str, ...], exits: tuple[tuple[float, float, float], ...]
) -> list[Case]:
    """Return the grid of averages, directions, costs and exits with all_in."""
    averages = ((10, 30), (5, 20), (20, 60))
    return [
        Case(bars, *pair, direction, *cost, *exit)
        for bars, pair, direction, cost, exit in itertools.product(series, averages, directions, COSTS, exits)
    ]


def sized(series: Iterable[Bars]) -> list[Case]:
    """Return the grid of sizes, whole units and reversals; some sizes exceed cash."""
    cases = []
    rules = itertools.product(("both", "long", "short"), COSTS, (NO_EXITS, BOTH, TRAILING), OPPOSITE, (False, True))
    for bars, (direction, cost, exits, opposite, whole) in itertools.product(series, rules):
        usual = float(np.median(bars.close))
        sizes = [("all_in", 0.0), ("fraction", 0.5), ("value", 4_000.0), ("value", 20_000.0)]
        sizes += [("units", 0.4 * CAPITAL / usual), ("units", 2.0 * CAPITAL / usual)]
        for (size, value), at_random in itertools.product(sizes, (False, True)):
            if size == "fraction" and direction == "both" and opposite == "reverse":
                continue  # vectorbt refuses it
            cases.append(Case(bars, 5, 20, direction, *cost, *exits, size, value, whole, opposite, at_random))
    return cases


def signals_at_random(bars: Bars) -> Signals:
    """Return one of the four signals on about a bar in ten, never two: libraries resolve conflicts differently."""
    generator = np.random.default_rng(len(bars))
    flags = np.where(generator.random(len(bars)) < 0.1, 1 << generator.integers(0, 4, len(bars)), 0)
    return Signals(flags.astype(np.uint8))


def run(case: Case, preset: str | None) -> Run:
    """Return a run of backtestr, simulated to the end."""
    options: dict[str, Any] = {
        "direction": case.direction,
        "commissionFixed": case.fixed,
        "stopLoss": case.stop_loss,
        "takeProfit": case.take_profit,
        "trailingStop": case.trailing_stop,
        "onOpposite": case.opposite,
        "riskFree": case.risk_free,
        **({"preset": preset} if preset else {}),
        **({"wholeUnits": True} if case.whole_units else {}),
        **({"fillAt": case.fill_at} if case.fill_at else {}),
        **({"size": case.size, "sizeValue": case.size_value} if case.size != "all_in" else {}),
    }
    algorithm = find_algorithm("sma_cross")
    config = BacktestConfig(
        algorithm_id="sma_cross",
        symbol=case.bars.symbol,
        initial_capital=CAPITAL,
        timeframe=case.bars.timeframe,
        commission=case.commission,
        slippage=case.slippage,
        parameters={},
    )
    parameters = algorithm.check({"fast": case.fast, "slow": case.slow})
    resolved = resolve_options(options, load_config(None).conventions)
    run = Run(Plan(config, algorithm, parameters, resolved, Panel.of([case.bars])), "parity")
    if case.at_random:
        run.start_with(signals_at_random(case.bars))
    run.advance(len(case.bars))
    return run


def crosses(case: Case, rows: Any, run: Run) -> tuple[Any, Any]:
    """Return the bars at which the averages of vectorbt cross: above, and below.

    If averages are equal except for rounding, either is right, and the result of backtestr is taken: EURUSD 20/60 has
    one such bar, with −2e-15 in vectorbt and +2e-15 in backtestr.
    """
    averages = oracles.library("vectorbt").MA
    fast, slow = averages.run(rows.Close, case.fast), averages.run(rows.Close, case.slow)
    tied = (fast.ma - slow.ma).abs() <= ROUNDING * slow.ma
    unclear = tied | tied.shift(1, fill_value=False)
    flags = run.plan.algorithm.signals(case.bars, run.plan.parameters).flags
    ours_above, ours_below = flags & (ENTRY | REPEATED_ENTRY) != 0, flags & (SHORT_ENTRY | REPEATED_SHORT_ENTRY) != 0
    above, below = fast.ma_crossed_above(slow), fast.ma_crossed_below(slow)
    return above.where(~unclear, ours_above), below.where(~unclear, ours_below)


def vectorbt(case: Case, run: Run) -> Figures:
    rows = oracles.frame(case.bars)
    if case.at_random:
        names = {"long": ("entries", "exits"), "short": ("short_entries", "short_exits")}
        both = ("entries", "exits", "short_entries", "short_exits")
        signals = oracles.as_columns(rows, signals_at_random(case.bars), *names.get(case.direction, both))
    else:
        above, below = crosses(case, rows, run)
        # An opposite entry that is ignored leaves the exit that a cross is as well.
        exits = {"exits": below, "short_exits": above} if case.opposite == "ignore" else {}
        signals = {
            "both": {"entries": above, "short_entries": below, **exits},
            "long": {"entries": above, "exits": below},
            "short": {"short_entries": below, "short_exits": above},
        }[case.direction]
    exits = {"tp_stop": case.take_profit} if case.take_profit else {}
    if case.trailing_stop:
        exits |= {"sl_stop": case.trailing_stop, "sl_trail": True}
    elif case.stop_loss:
        exits |= {"sl_stop": case.stop_loss}
    if case.size != "all_in":
        exits |= {"size": case.size_value, "size_type": SIZE_TYPE[case.size]}
    if case.whole_units:
        exits |= {"size_granularity": 1.0}
    book = oracles.from_signals(
        rows,
        signals,
        init_cash=CAPITAL,
        fees=case.commission,
        fixed_fees=case.fixed,
        slippage=case.slippage,
        freq=FREQUENCY[case.bars.timeframe],
        accumulate=False,
        upon_opposite_entry=OPPOSITE[case.opposite],
        **exits,
    )
    return {**account_of_vectorbt(book), **trades_of_vectorbt(book.trades)}


def account_of_vectorbt(book: Any) -> Figures:
    """Return the figures of equity; ratios of compounded returns mean nothing once there was debt."""
    value = book.value()
    figures = {
        "finalEquity": float(value.iloc[-1]),
        "peakEquity": float(value.max()),
        "totalReturn": float(book.total_return()),
        "buyAndHoldReturn": float(book.total_benchmark_return()),
        "sharpeRatio": float(book.sharpe_ratio()),
        "sortinoRatio": float(book.sortino_ratio()),
        "exposure": float(book.position_coverage()),
        "totalFees": float(book.orders.records["fees"].sum()),
    }
    if value.min() <= 0:
        return figures
    # Its sums leave equity an ulp below a peak that it has regained, and it counts that as a drawdown.
    drawdowns = value.round(DIGITS).vbt.drawdowns
    of_drawdowns = {"averageDrawdown": -float(drawdowns.avg_drawdown())} if drawdowns.count() else {}
    return {
        **figures,
        **of_drawdowns,
        "maxDrawdown": -float(book.max_drawdown()),
        "annualReturn": float(book.annualized_return()),
        "volatility": float(book.annualized_volatility()),
        "calmarRatio": float(book.calmar_ratio()),
        "omegaRatio": float(book.omega_ratio()),
        "alpha": float(book.alpha()),
        "beta": float(book.beta()),
        "tailRatio": float(book.tail_ratio()),
        "valueAtRisk95": float(book.value_at_risk()),
        "conditionalValueAtRisk95": float(book.cond_value_at_risk()),
    }


def trades_of_vectorbt(trades: Any) -> Figures:
    """Return the figures of trades: all of them, and the closed ones, as vectorbt's `stats` counts them."""
    closed = trades.closed
    counts: Figures = {"totalTrades": int(trades.count()), "openTrades": int(trades.open.count())}
    if not closed.count():
        return counts
    return {
        **counts,
        "winRate": float(closed.win_rate()),
        "bestTrade": float(closed.returns.max()),
        "worstTrade": float(closed.returns.min()),
        "averageTrade": float(closed.returns.mean()),
        "profitFactor": float(closed.profit_factor()),
        "expectancy": float(closed.expectancy()),
        "sqn": float(closed.sqn()),
    }


def backtesting_py(case: Case, _: Run) -> Figures:
    from backtesting import Backtest, Strategy
    from backtesting.lib import crossover

    rows = oracles.frame(case.bars)

    class Crossing(Strategy):  # type: ignore[misc]  # the library has no types
        def init(self) -> None:
            close = rows.Close
            self.fast = self.I(lambda: close.rolling(case.fast).mean())
            self.slow = self.I(lambda: close.rolling(case.slow).mean())

        def next(self) -> None:
            price = self.data.Close[-1]
            loss, profit = price * case.stop_loss, price * case.take_profit
            if crossover(self.fast, self.slow):
                self.position.close()
                self.buy(sl=price - loss if loss else None, tp=price + profit if profit else None)
            elif crossover(self.slow, self.fast):
                self.position.close()
                self.sell(sl=price + loss if loss else None, tp=price - profit if profit else None)

    figures = Backtest(
        rows,
        Crossing,
        cash=CAPITAL,
        commission=(case.fixed, case.commission),
        spread=case.slippage,
        trade_on_close=case.fill_at == "close",
        finalize_trades=True,
    ).run()
    close, trades = case.bars.close, figures["_trades"]
    # Theirs begins where the slowest average does; ours at the first close. The alpha that follows from ours:
    held = float(close[-1] / close[0]) - 1.0
    percent = {name: figures[f"{theirs} [%]"] / 100 for name, theirs in OF_BACKTESTING_PY.items()}
    return {
        **percent,
        "maxDrawdown": -percent["maxDrawdown"],
        "averageDrawdown": -percent["averageDrawdown"],
        "finalEquity": figures["Equity Final [$]"],
        "peakEquity": figures["Equity Peak [$]"],
        "totalFees": figures.get("Commissions [$]", 0.0),
        "buyAndHoldReturn": held,
        "alpha": percent["totalReturn"] - figures["Beta"] * held,
        "beta": figures["Beta"],
        "sharpeRatio": figures["Sharpe Ratio"],
        "sortinoRatio": figures["Sortino Ratio"],
        "calmarRatio": figures["Calmar Ratio"],
        "maxDrawdownDurationMs": figures["Max. Drawdown Duration"].total_seconds() * 1000,
        "averageDrawdownDurationMs": round(figures["_equity_curve"]["DrawdownDuration"].mean().total_seconds() * 1000),
        "totalTrades": figures["# Trades"],
        "expectancy": trades["PnL"].mean(),
        "profitFactor": figures["Profit Factor"],
        "sqn": figures["SQN"],
        "kelly": figures["Kelly Criterion"],
        "maxTradeDurationMs": figures["Max. Trade Duration"].total_seconds() * 1000,
        "averageTradeDurationMs": round(trades["Duration"].mean().total_seconds() * 1000),
    }


OF_BACKTESTING_PY = {
    "exposure": "Exposure Time",
    "totalReturn": "Return",
    "annualReturn": "Return (Ann.)",
    "volatility": "Volatility (Ann.)",
    "cagr": "CAGR",
    "maxDrawdown": "Max. Drawdown",
    "averageDrawdown": "Avg. Drawdown",
    "winRate": "Win Rate",
    "bestTrade": "Best Trade",
    "worstTrade": "Worst Trade",
    "averageTrade": "Avg. Trade",
}
"""The figures that backtesting.py gives in percent."""


def compare(name: str, cases: list[Case], preset: str | None, theirs: Callable[[Case, Run], Figures]) -> int:
    """Run both on every case, print the differences, and return the number of cases that differ."""
    worst, mismatches, compared, undefined = 0.0, 0, 0, 0
    for case in cases:
        simulated = run(case, preset)
        mine, expected = simulated.finish().metrics.to_wire(), theirs(case, simulated)
        differences = {
            figure: abs(mine[figure] - value) / max(abs(value), SMALLEST * IN_MONEY.get(figure, 1.0))
            if np.isfinite(value)
            else np.inf
            for figure, value in expected.items()
            if figure not in mine["undefined"]
        }
        compared, undefined = compared + len(differences), undefined + len(expected) - len(differences)
        largest = max(differences.values(), default=0.0)
        if largest > TOLERANCE:
            mismatches += 1
            if mismatches <= SHOWN:
                figure = max(differences, key=lambda one: differences[one])
                print(f"  {case}: {figure} is {mine[figure]}, not {expected[figure]} ({largest:.1e})")
        else:
            worst = max(worst, largest)
    if mismatches > SHOWN:
        print(f"  and {mismatches - SHOWN} more")
    print(
        f"{name}: {len(cases)} cases, {compared} figures, {mismatches} mismatches, worst relative difference of the "
        f"others {worst:.1e}; {undefined} figures left out that backtestr states to be undefined"
    )
    return mismatches


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sized", type=int, default=400, help="cases drawn of the grid of sizes (default 400)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if oracles.installed("backtesting"):
        from backtesting import backtesting as library

        library._tqdm = lambda bars, **_: bars
    series = all_series()
    mismatches = 0
    cases = crossings(series[:3], ("both",), (NO_EXITS, STOP, BOTH))
    mismatches += compare("backtesting.py", cases, "backtesting.py", backtesting_py)
    cases = [case._replace(fill_at="close") for case in cases]
    mismatches += compare("backtesting.py, trade_on_close", cases, "backtesting.py", backtesting_py)
    if oracles.installed("empyrical"):
        plain = crossings(series, ("both", "long"), (NO_EXITS, BOTH))
        at_close = [case._replace(fill_at="close", fast=2, slow=3) for case in plain]
        cases = [*plain, *at_close, *(case._replace(risk_free=0.03) for case in plain)]
        name = "metrics by empyrical and scipy"
        mismatches += compare(name, cases, None, lambda _, run: metrics_of_empyrical(run))
    else:
        print(f"empyrical {oracles.MISSING}: SKIPPED")
    if not oracles.installed("vectorbt"):
        print(f"vectorbt {oracles.MISSING}: SKIPPED")
        return min(mismatches, 1)
    cases = crossings(series, ("both", "long", "short"), (NO_EXITS, BOTH, TRAILING, TRAILING_PROFIT))
    mismatches += compare("vectorbt", cases, "vectorbt", vectorbt)
    grid = sized(series)
    drawn = random.Random(arguments.sized).sample(grid, min(arguments.sized, len(grid)))
    mismatches += compare("vectorbt, sizes and opposites", drawn, "vectorbt", vectorbt)
    mismatches += compare_shared(TOLERANCE)
    return min(mismatches, 1)


if __name__ == "__main__":
    sys.exit(main())
