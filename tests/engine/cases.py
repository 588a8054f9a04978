"""Random cases for the fill loop: bars, signals and conventions, all drawn from one generator."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from backtestr_engine.account import rules
from backtestr_engine.arrays import Bytes, Floats
from backtestr_engine.bars import Bars
from backtestr_engine.options import Conventions
from backtestr_engine.signals import ENTRY, EXIT, SHORT_ENTRY, SHORT_EXIT
from backtestr_engine.walk import Walk

NAMES = {"entry": ENTRY, "exit": EXIT, "short_entry": SHORT_ENTRY, "short_exit": SHORT_EXIT}
CAPITAL = 1_000.0


def shipped_conventions() -> Conventions:
    """The defaults of config/engine.toml."""
    content = tomllib.loads((Path(__file__).parents[2] / "config" / "engine.toml").read_text())
    return msgspec.convert(content["conventions"], Conventions)


@dataclass(frozen=True)
class Case:
    bars: Bars
    flags: Bytes
    conventions: Conventions
    commission: float
    slippage: float

    def walk(self) -> Walk:
        kernel_rules = rules(self.conventions, commission=self.commission, slippage=self.slippage)
        return Walk(self.bars, self.flags, kernel_rules, CAPITAL)

    def wishes(self) -> list[frozenset[str]]:
        return [frozenset(name for name, flag in NAMES.items() if byte & flag) for byte in self.flags]


def random_bars(chance: np.random.Generator, count: int) -> Bars:
    """Prices that jump wildly, so that accounts are ruined and positions outgrow cash."""
    steps = np.exp(chance.normal(0, 0.3, size=(count, 2)))
    walk = 10 * np.cumprod(steps.ravel()).reshape(steps.shape)
    opened: Floats = np.clip(walk[:, 0], 0.01, 1e4)
    closed: Floats = np.clip(walk[:, 1], 0.01, 1e4)
    times = np.arange(count, dtype=np.int64) * 60_000_000
    return Bars(
        "CHANCE", "1m", times, opened, np.maximum(opened, closed), np.minimum(opened, closed), closed, 0 * opened
    )


def random_case(chance: np.random.Generator, defaults: Conventions, *, bars: int | None = None) -> Case:
    count = bars or int(chance.integers(1, 40))
    pick = chance.choice
    size = str(pick(["all_in", "fraction", "units", "value"]))
    costly = chance.random() < 0.5
    conventions = msgspec.structs.replace(
        defaults,
        fill_at=str(pick(["next_open", "close"])),
        size=size,
        size_value=float(pick([0.1, 0.5, 1.0])) if size == "fraction" else float(pick([1.0, 7.5, 60.0, 300.0])),
        whole_units=bool(pick([True, False])),
        commission_fixed=float(pick([0, 1.3, 40])) if costly else 0.0,
        commission_per_unit=float(pick([0, 0.013])) if costly else 0.0,
        commission_minimum=float(pick([0, 2.7, 55])) if costly else 0.0,
        direction=str(pick(["both", "long", "short"])),
        on_opposite=str(pick(["reverse", "close", "ignore"])),
        short_of_cash=str(pick(["reject", "cut"])),
        short_collateral=bool(pick([True, False])),
        close_at_end=bool(pick([True, False])),
    )
    busy = chance.random(count) < float(pick([0.1, 0.5, 1.0]))
    flags = np.where(busy, chance.integers(0, 16, size=count), 0).astype(np.uint8)
    return Case(
        random_bars(chance, count), flags, conventions, float(pick([0, 0.001, 0.05])), float(pick([0, 0.002, 0.1]))
    )
