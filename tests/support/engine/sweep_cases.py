"""Random sweeps, and the single runs of their combinations, made without any code of sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from backtestr_engine.algorithms.algorithm import Algorithm, algorithm, portfolio
from backtestr_engine.algorithms.parameters import Bool, Float, Int, Value
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.backtest.earlier_bars import WarmUpBars
from backtestr_engine.backtest.plan import Plan
from backtestr_engine.backtest.run import Run
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.indicators import bbands, ema, highest, indicator, rises_above, sma
from backtestr_engine.research.sweep_plan import SweepPlan, choose_path, plan_sweep
from backtestr_engine.simulation.conventions import Conventions, Options
from backtestr_protocol.errors import AlgorithmError
from backtestr_protocol.messages import BacktestConfig, StreamOptions
from support.engine.cases import random_bars, random_conventions, random_costs


@algorithm("weighted", timeperiod=Int(3, low=2, high=50), share=Float(0.5, low=-1.0, high=1.0), warmup="timeperiod")
def weighted(bars: Bars, timeperiod: int, share: float) -> Signals:
    """Hold a share while the close is above its average, with stops by their distance."""
    average = sma(bars.close, timeperiod)
    target = np.where(bars.close > average, share, 0.0)
    target[np.isnan(average)] = np.nan
    return Signals.of(target=target, stop_loss=np.full(len(bars), 0.2))


@algorithm("guarded", timeperiod=Int(3, low=2, high=50), stop=Float(0.1, low=0.0, high=0.9), both=Bool(True))
def guarded(bars: Bars, timeperiod: int, stop: float, both: bool) -> Signals:
    """Enter above an average, with a trailing stop, limits and stops; it writes to what its indicators return."""
    average = ema(bars.close, timeperiod)
    average[:3] = np.inf
    upper = bbands(bars.close, timeperiod, 1.0)[0]
    return Signals.of(
        entries=rises_above(bars.close, average),
        short_entries=bars.close > upper if both else None,
        exits=bars.close < average * 0.9,
        trailing_stop=stop,
        limit_price=bars.close * 1.01,
        stop_price=bars.close * 0.99,
    )


@algorithm("fragile", length=Int(3, low=1, high=20))
def fragile(bars: Bars, length: int) -> Signals:
    """Fail with every third length."""
    if length % 3 == 0:
        raise AlgorithmError(f"length {length} cannot be")
    momentum = indicator(bars, "ROC", timeperiod=length)["real"]
    return Signals.of(entries=momentum > 0, exits=highest(bars.high, max(length, 2)) > bars.close)


@portfolio("leaders", length=Int(3, low=1, high=20), most=Float(0.5, low=0.1, high=1.0))
def leaders(panel: Panel, length: int, most: float) -> Floats:
    """Hold those that rose."""
    close = panel.close
    rose = np.zeros(close.shape, dtype=np.bool_)
    rose[length:] = close[length:] > close[:-length]
    return np.where(rose, most / len(panel.symbols), 0.0)


SPACES: Mapping[str, tuple[Algorithm, Mapping[str, Any]]] = {
    "sma_cross": (BUILT_IN["sma_cross"], {"fast": range(2, 5), "slow": [3, 4, 7, 12]}),
    "ema_cross": (BUILT_IN["ema_cross"], {"slow": range(3, 6), "fast": [2, 4]}),
    "slow alone": (BUILT_IN["sma_cross"], {"slow": [11, 12]}),
    "donchian_breakout": (BUILT_IN["donchian_breakout"], {"entry": range(2, 6), "exit": [2, 4]}),
    "macd": (BUILT_IN["macd"], {"fast": [2, 3], "slow": [4, 6], "signal": [2, 3]}),
    "rsi_reversion": (BUILT_IN["rsi_reversion"], {"timeperiod": [2, 5], "oversold": [20, 40.0]}),
    "bollinger_reversion": (BUILT_IN["bollinger_reversion"], {"timeperiod": [3, 5], "deviations": [0.5, 1.5]}),
    "weighted": (weighted, {"timeperiod": [2, 5], "share": [-1, 0.4, 1]}),
    "guarded": (guarded, {"timeperiod": [2, 5], "stop": [0, 0.3], "both": [True, False]}),
    "fragile": (fragile, {"length": range(1, 7)}),
    "leaders": (leaders, {"length": [1, 4], "most": [0.3, 1]}),
}
ALONE = [name for name, (one, _) in SPACES.items() if not one.across]


@dataclass(frozen=True)
class SweepCase:
    """A plan with its algorithm, the bars that are tested, and those that the algorithm sees."""

    plan: SweepPlan
    algorithm: Algorithm
    panel: Panel
    seen: Panel

    def single_run(self, values: dict[str, Value]) -> Run:
        """Return the finished backtest of a combination, or raise what it raises."""
        wanted = self.plan.config.warmup
        if wanted is None:
            wanted = self.algorithm.warm_up(values) or 0
        series = [
            longer[max(0, len(longer) - len(bars) - wanted) :]
            for longer, bars in zip(self.seen.series, self.panel.series, strict=True)
        ]
        given = tuple(len(one) - len(bars) for one, bars in zip(series, self.panel.series, strict=True))
        warm_up = WarmUpBars(Panel.of(series), self.panel, given, wanted)
        plan = Plan(self.plan.config, self.algorithm, values, self.plan.options, self.panel, warm_up)
        run = Run(plan, "single")
        run.advance(run.bars_total)
        return run


def random_sweep(
    chance: np.random.Generator, defaults: Conventions, name: str, *, metrics: Any = "all", symbols: int = 1
) -> SweepCase:
    """Return a sweep with random bars, conventions, costs and warm-up."""
    one, space = SPACES[name]
    count, earlier = int(chance.integers(1, 70)), int(chance.choice([0, 0, 5, 30]))
    series = []
    for number in range(symbols):
        bars = random_bars(chance, count + earlier)
        if chance.random() < 0.3:  # few prices, so that lines touch and cross again
            bars = few_prices(bars)
        series.append(named(bars, f"S{number}"))
    seen = Panel.of(series)
    panel = Panel.of([bars[earlier:] for bars in series]) if earlier else seen
    conventions = random_conventions(chance, defaults, shared=symbols > 1)
    conventions = msgspec.structs.replace(
        conventions,
        cross_ties=str(chance.choice(["keep", "fire", "strict"])),
        drawdown_from=str(chance.choice(["capital", "first_close"])),
        statistics=str(chance.choice(["per_bar", "per_bar", "daily_geometric"])),
        risk_free=float(chance.choice([0.0, 0.05])),
    )
    commission, slippage = random_costs(chance)
    warmup = None if chance.random() < 0.5 else int(chance.integers(0, 40))
    config = BacktestConfig(
        algorithm_id=one.algorithm_id,
        symbol=series[0].symbol,
        symbols=[bars.symbol for bars in series] if symbols > 1 else [],
        start_date="1970-01-01",
        initial_capital=1000.0,
        timeframe="1m",
        commission=commission,
        slippage=slippage,
        parameters={},
        warmup=warmup,
    )
    plan = plan_sweep(config, one, space, defaults, metrics=metrics)
    options = Options(preset=None, conventions=conventions, streams=StreamOptions())
    return SweepCase(with_options(plan, one, options, symbols), one, panel, seen)


def with_options(plan: SweepPlan, one: Algorithm, options: Options, symbols: int) -> SweepPlan:
    """Return a plan with other options, and the path that they allow."""
    path = choose_path(one, options.conventions, symbols)
    return msgspec.structs.replace(plan, options=options, path=path)


def few_prices(bars: Bars) -> Bars:
    """Return bars with closes of whole numbers."""
    close = np.clip(np.round(bars.close), 1.0, 12.0)
    return Bars(
        bars.symbol, bars.timeframe, bars.timestamp, close, close * 1.1, close * 0.9, close, np.zeros(len(bars))
    )


def named(bars: Bars, symbol: str) -> Bars:
    """Return bars under another symbol."""
    return Bars(symbol, bars.timeframe, bars.timestamp, bars.open, bars.high, bars.low, bars.close, bars.volume)
