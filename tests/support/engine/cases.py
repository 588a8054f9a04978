"""Random cases for the simulation: bars, signals and conventions, all drawn from one generator."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from backtestr_engine.algorithms.signals import (
    ENTRY,
    EXIT,
    SHORT_ENTRY,
    SHORT_EXIT,
    TARGET,
    Signals,
)
from backtestr_engine.data.arrays import Floats
from backtestr_engine.data.bars import Bars
from backtestr_engine.simulation.account import kernel_rules
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.simulation.symbol_loop import SymbolSimulation
from support.engine.reference import Bar, Reference, Stops

NAMES = {"entry": ENTRY, "exit": EXIT, "short_entry": SHORT_ENTRY, "short_exit": SHORT_EXIT, "target": TARGET}
CAPITAL = 1_000.0


def shipped_conventions() -> Conventions:
    """Return the defaults of config/engine.toml."""
    content = tomllib.loads((Path(__file__).parents[3] / "config" / "engine.toml").read_text())
    return msgspec.convert(content["conventions"], Conventions)


@dataclass(frozen=True)
class Case:
    bars: Bars
    signals: Signals
    conventions: Conventions
    commission: float
    slippage: float

    def simulate(self) -> SymbolSimulation:
        rules = kernel_rules(self.conventions, commission=self.commission, slippage=self.slippage)
        return SymbolSimulation(self.bars, self.signals, rules, CAPITAL)

    def reference(self) -> Reference:
        """Simulate this case with the slow loop."""
        slow = Reference(self.conventions, self.commission, self.slippage, CAPITAL)
        slow.simulate(*slow_input(self.bars, self.signals, self.conventions))
        return slow


def slow_input(bars: Bars, signals: Signals, rule: Conventions) -> tuple[list[Bar], list[frozenset[str]], list[Stops]]:
    """Return bars, signals and stops as the slow loop takes them."""
    names = [frozenset(name for name, flag in NAMES.items() if byte & flag) for byte in signals.flags]
    columns = (getattr(bars, name).tolist() for name in ("open", "high", "low", "close"))
    rows = [Bar(*row) for row in zip(*columns, strict=True)]
    stops = [
        Stops(
            _stop(signals.stop_loss, bar, rule.stop_loss),
            _stop(signals.take_profit, bar, rule.take_profit),
            _stop(signals.trailing_stop, bar, rule.trailing_stop),
            _stop(signals.limit_price, bar, 0.0),
            _stop(signals.stop_price, bar, 0.0),
            None if signals.target is None or math.isnan(signals.target[bar]) else float(signals.target[bar]),
        )
        for bar in range(len(rows))
    ]
    return rows, names, stops


def _stop(given: Floats | None, bar: int, option: float) -> float | None:
    own = math.nan if given is None else float(given[0] if len(given) == 1 else given[bar])
    return (option if math.isnan(own) else own) or None


def random_bars(chance: np.random.Generator, count: int) -> Bars:
    """Return prices that jump far, so that accounts are ruined and positions outgrow cash."""
    steps = np.exp(chance.normal(0, 0.3, size=(count, 2)))
    walk = 10 * np.cumprod(steps.ravel()).reshape(steps.shape)
    opened: Floats = np.clip(walk[:, 0], 0.01, 1e4)
    closed: Floats = np.clip(walk[:, 1], 0.01, 1e4)
    times = np.arange(count, dtype=np.int64) * 60_000_000
    # Some highs and lows are those of open and close, as in a series that has no others.
    above, below = (np.exp(chance.exponential(0.1, size=count) * chance.integers(0, 2, size=count)) for _ in range(2))
    high, low = np.maximum(opened, closed) * above, np.minimum(opened, closed) / below
    return Bars("CHANCE", "1m", times, opened, high, low, closed, 0 * opened)


def random_case(chance: np.random.Generator, defaults: Conventions, *, bars: int | None = None) -> Case:
    count = bars or int(chance.integers(1, 40))
    conventions = random_conventions(chance, defaults)
    bars_drawn = random_bars(chance, count)
    signals = random_signals(chance, bars_drawn, conventions)
    return Case(bars_drawn, signals, conventions, *random_costs(chance))


def random_costs(chance: np.random.Generator) -> tuple[float, float]:
    """Return commission and slippage."""
    return float(chance.choice([0, 0.001, 0.05])), float(chance.choice([0, 0.002, 0.1]))


def random_conventions(chance: np.random.Generator, defaults: Conventions, *, shared: bool = False) -> Conventions:
    """Return random conventions; if `shared`, those under which several symbols can share an account."""
    pick = chance.choice
    size = str(pick(["all_in", "fraction", "units", "value", "risk"]))
    at_close, protected = chance.random() < 0.5, chance.random() < 0.7
    books_next_bar = at_close and not shared and chance.random() < 0.4
    slippage_on = str(pick(["market_and_stops", "market", "entries"]))
    leverage = 1.0 if shared else float(pick([1, 1, 1, 1.5, 4]))
    per_unit = not shared and chance.random() < 0.2
    costly = chance.random() < 0.5
    return msgspec.structs.replace(
        defaults,
        fill_at="close" if at_close else "next_open",
        close_booked="next_bar" if books_next_bar else "same_bar",
        size=size,
        size_value=float(pick([0.1, 0.5, 1.0]))
        if size in ("fraction", "risk")
        else float(pick([1.0, 7.5, 60.0, 300.0])),
        whole_units=per_unit or bool(pick([True, False])),
        commission_fixed=float(pick([0, 1.3, 40])) if costly else 0.0,
        commission_per_unit=float(pick([0, 0.013])) if costly else 0.0,
        commission_minimum=float(pick([0, 2.7, 55])) if costly else 0.0,
        slippage_on=slippage_on,
        reversal="two_orders" if slippage_on == "entries" else str(pick(["one_order", "two_orders"])),
        leverage=leverage,
        maintenance_margin=0.0 if shared else float(pick([0, 0.1, 0.37])) / leverage,
        liquidation=str(pick(["always", "on_credit"])),
        order_type=str(pick(["market", "market", "limit", "stop", "stop_limit"])),
        valid_bars=int(pick([0, 1, 2, 5])),
        size_costs="per_unit" if per_unit else "exact",
        end_price=str(pick(["close", "open", "previous_close"] if books_next_bar else ["close", "open"])),
        stop_loss=float(pick([0, 0.1, 0.5])) if protected else 0.0,
        take_profit=float(pick([0, 0.2, 0.7, 1.5])) if protected else 0.0,
        trailing_stop=float(pick([0, 0.15, 0.6])) if protected else 0.0,
        stop_base=str(pick(["fill_price", "entry_close", "signal_close"])),
        stop_active=str(pick(["same_bar", "same_bar_at_open", "next_bar"])),
        touch=str(pick(["rounded", "exact"])),
        after_stop=str(pick(["obey", "skip"])),
        direction=str(pick(["both", "long", "short"])),
        on_opposite=str(pick(["reverse", "close", "ignore"])),
        short_of_cash=str(pick(["reject", "cut"])),
        short_collateral=bool(pick([True, False])),
        cash_shares=str(pick(["equal", "first_come"])),
        close_at_end=bool(pick([True, False])),
        size_base=str(pick(["equity", "cash"])),
        symbol_order=str(pick(["sells_first", "given"])),
    )


def random_signals(chance: np.random.Generator, bars: Bars, conventions: Conventions) -> Signals:
    count, protected = len(bars), chance.random() < 0.7
    busy = chance.random(count) < float(chance.choice([0.1, 0.5, 1.0]))
    flags = np.where(busy, chance.integers(0, 16, size=count), 0).astype(np.uint8)
    stop_loss, take_profit, trailing_stop = (_random_fractions(chance, count) if protected else None for _ in range(3))
    exits: dict[str, Any] = {"stop_loss": stop_loss, "take_profit": take_profit, "trailing_stop": trailing_stop}
    if conventions.order_type == "market" and chance.random() < 0.4:
        return Signals.of(target=_random_targets(chance, count, conventions.leverage)).protected(**exits)
    prices: dict[str, Any] = {"limit_price": _random_prices(chance, bars), "stop_price": _random_prices(chance, bars)}
    return Signals(flags, **exits, **prices)


def _random_prices(chance: np.random.Generator, bars: Bars) -> Floats | None:
    """Return None, or prices around the closes, some of them NaN."""
    if chance.random() < 0.1:
        return None
    prices: Floats = bars.close * np.exp(chance.normal(0, 0.3, size=len(bars)))
    prices[chance.random(len(bars)) < 0.1] = math.nan
    return prices


def _random_targets(chance: np.random.Generator, bars: int, leverage: float) -> Floats:
    """Return targets, some of them NaN, some beyond what cash pays for."""
    targets: Floats = chance.choice([math.nan, -1.2, -0.7, -0.2, 0, 0, 0.1, 0.5, 1, 1.3], size=bars) * leverage
    return targets


def _random_fractions(chance: np.random.Generator, bars: int) -> Floats | None:
    """Return None, one fraction for all bars, or one per bar, some of them NaN or 0."""
    kind = chance.integers(0, 4)
    if kind < 2:
        return None
    fractions: Floats = chance.choice([math.nan, 0, 0.05, 0.3, 0.8], size=1 if kind == 2 else bars)
    return fractions


def grown(start: float, returns: Floats) -> Floats:
    """Return the value of `start` after each of the returns."""
    return np.asarray(start * np.cumprod(1.0 + returns), dtype=np.float64)
