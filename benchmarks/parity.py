"""The presets beside the libraries that they are named after: the same bars, signals, costs and stops, side by side.

    make parity

A grid of parameters, costs and protective exits on GOOG daily (of the `backtesting` wheel) and on synthetic bars. Every
figure of every case is compared; the worst relative difference and the number of cases that differ are printed. A
library that is not installed (extra `bench`) is skipped, and said to be.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from backtestr_engine.algorithms import find_algorithm
from backtestr_engine.backtest import Plan, Run
from backtestr_engine.bars import Bars
from backtestr_engine.config import load_config
from backtestr_engine.options import resolve_options
from backtestr_engine.panel import Panel
from backtestr_engine.synthetic import synthetic_bars
from backtestr_protocol.messages import BacktestConfig

TOLERANCE = 1e-9
CAPITAL = 10_000.0

Figures = dict[str, float]


class Case(NamedTuple):
    bars: Bars
    fast: int
    slow: int
    direction: str
    commission: float
    fixed: float
    slippage: float
    stop_loss: float
    take_profit: float
    trailing_stop: float


def google() -> Bars:
    spec = importlib.util.find_spec("backtesting")
    if spec is None or spec.origin is None:
        raise SystemExit("parity needs the extra `bench`: pip install -e '.[bench]'")
    rows = pl.read_csv(Path(spec.origin).parent / "test" / "GOOG.csv", try_parse_dates=True)
    time = rows.to_series(0).cast(pl.Datetime("us")).to_physical().to_numpy()
    columns = [rows[name].cast(pl.Float64).to_numpy() for name in ("Open", "High", "Low", "Close", "Volume")]
    return Bars("GOOG", "1d", time, *columns)


def grid(directions: tuple[str, ...], stops: tuple[tuple[float, float, float], ...]) -> list[Case]:
    series = (google(), synthetic_bars("1d", 1500))
    averages = ((10, 30), (5, 20), (20, 60))
    costs = ((0.0, 0.0, 0.0), (0.001, 0.0, 0.0), (0.001, 5.0, 0.002))
    return [
        Case(bars, *pair, direction, *cost, *stop)
        for bars, pair, direction, cost, stop in itertools.product(series, averages, directions, costs, stops)
    ]


def ours(case: Case, preset: str) -> Figures:
    options: dict[str, Any] = {
        "preset": preset,
        "direction": case.direction,
        "commissionFixed": case.fixed,
        "stopLoss": case.stop_loss,
        "takeProfit": case.take_profit,
        "trailingStop": case.trailing_stop,
    }
    algorithm = find_algorithm("sma_cross")
    config = BacktestConfig(
        algorithm_id="sma_cross",
        symbol=case.bars.symbol,
        start_date="",
        end_date="",
        initial_capital=CAPITAL,
        timeframe=case.bars.timeframe,
        commission=case.commission,
        slippage=case.slippage,
        parameters={},
    )
    parameters = algorithm.check({"fast": case.fast, "slow": case.slow})
    resolved = resolve_options(options, load_config(None).conventions)
    run = Run(Plan(config, algorithm, parameters, resolved, Panel.of([case.bars])), "parity")
    run.advance(len(case.bars))
    return {name: value for name, value in run.finish().metrics.items() if isinstance(value, (int, float))}


def frame(bars: Bars) -> Any:
    pd: Any = importlib.import_module("pandas")

    columns = {name: getattr(bars, name.lower()) for name in ("Open", "High", "Low", "Close", "Volume")}
    return pd.DataFrame(columns, index=pd.to_datetime(bars.timestamp, unit="us"))


def vectorbt(case: Case) -> Figures:
    vbt: Any = importlib.import_module("vectorbt")

    rows = frame(case.bars)
    fast, slow = vbt.MA.run(rows.Close, case.fast), vbt.MA.run(rows.Close, case.slow)
    above, below = fast.ma_crossed_above(slow), fast.ma_crossed_below(slow)
    signals = {
        "both": {"entries": above, "short_entries": below},
        "long": {"entries": above, "exits": below},
        "short": {"short_entries": below, "short_exits": above},
    }[case.direction]
    stops = {"tp_stop": case.take_profit} if case.take_profit else {}
    if case.trailing_stop:
        stops |= {"sl_stop": case.trailing_stop, "sl_trail": True}
    elif case.stop_loss:
        stops |= {"sl_stop": case.stop_loss}
    book = vbt.Portfolio.from_signals(
        rows.Close,
        open=rows.Open,
        high=rows.High,
        low=rows.Low,
        init_cash=CAPITAL,
        fees=case.commission,
        fixed_fees=case.fixed,
        slippage=case.slippage,
        freq="1D",
        **signals,
        **stops,
    )
    return {
        "finalEquity": float(book.value().iloc[-1]),
        "totalTrades": int(book.trades.count()),
        "sharpeRatio": float(book.sharpe_ratio()),
        "sortinoRatio": float(book.sortino_ratio()),
        "maxDrawdown": -float(book.max_drawdown()),
        "totalFees": float(book.orders.records["fees"].sum()),
    }


def backtesting_py(case: Case) -> Figures:
    from backtesting import Backtest, Strategy
    from backtesting.lib import crossover

    rows = frame(case.bars)

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
        finalize_trades=True,
    ).run()
    return {
        "finalEquity": figures["Equity Final [$]"],
        "totalTrades": figures["# Trades"],
        "sharpeRatio": figures["Sharpe Ratio"],
        "sortinoRatio": figures["Sortino Ratio"],
        "maxDrawdown": -figures["Max. Drawdown [%]"] / 100,
        "sqn": figures["SQN"],
    }


def compare(preset: str, cases: list[Case], theirs: Callable[[Case], Figures]) -> None:
    """Run both on every case and print what differs."""
    worst, mismatches = 0.0, 0
    for case in cases:
        mine = ours(case, preset)
        expected = theirs(case)
        names = [name for name, value in expected.items() if np.isfinite(value)]
        difference = max(
            abs(mine.get(name, np.inf) - expected[name]) / max(abs(expected[name]), 1e-12) for name in names
        )
        if difference > TOLERANCE:
            mismatches += 1
            print(f"  differs by {difference:.1e}: {case.bars.symbol} {case[1:]}")
        else:
            worst = max(worst, difference)
    print(
        f"{preset:16}{len(cases):5} cases, {mismatches} mismatches, worst relative difference of the others {worst:.1e}"
    )


def main() -> None:
    warnings.simplefilter("ignore")
    none, both = (0.0, 0.0, 0.0), (0.05, 0.1, 0.0)
    from backtesting import backtesting as library

    library._tqdm = lambda bars, **_: bars
    compare("backtesting.py", grid(("both",), (none, (0.05, 0.0, 0.0), both)), backtesting_py)
    if importlib.util.find_spec("vectorbt") is None:
        print("vectorbt is not installed (extra `bench`): skipped")
        return
    compare("vectorbt", grid(("both", "long", "short"), (none, both, (0.0, 0.0, 0.08), (0.0, 0.2, 0.08))), vectorbt)


if __name__ == "__main__":
    main()
