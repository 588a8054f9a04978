"""The simulation of a shared account in plain Python: one `Reference` per symbol, and their common cash."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cmp_to_key

from backtestr_engine.simulation.conventions import Conventions
from support.engine.reference import Bar, Order, Reference, Stops

LIQUIDATED = "liquidated at the maintenance margin"


def _compared(a: float, b: float, same: float) -> int:
    return 0 if abs(a - b) <= same else (a > b) - (a < b)


@dataclass
class Series:
    times: list[int]
    bars: list[Bar]
    signals: list[frozenset[str]]
    stops: list[Stops]


@dataclass
class SharedReference:
    conventions: Conventions
    commission: float
    slippage: float
    cash: float
    series: list[Series]
    orders: list[tuple[int, Order]] = field(default_factory=list)  # with their symbols, in order
    equity: list[float] = field(default_factory=list)

    def simulate(self) -> None:
        rule = self.conventions
        self.each = [Reference(rule, self.commission, self.slippage, 0.0) for _ in self.series]
        for slow, one in zip(self.each, self.series, strict=True):
            slow.begin(one.bars, one.signals, one.stops)
        self.marks = [0.0] * len(self.series)
        for time in sorted({time for one in self.series for time in one.times}):
            self.time = time
            self.now = {k: one.times.index(time) for k, one in enumerate(self.series) if time in one.times}
            self._row()
            self.equity.append(self._worth())

    def _row(self) -> None:
        rule = self.conventions
        stopped = dict.fromkeys(self.now, False)
        alone = rule.order_type == "market" and not any("target" in w for one in self.series for w in one.signals)
        on_credit = rule.liquidation == "on_credit"
        one_by_one = rule.fill_at == "close" and rule.symbol_order == "given" and alone and on_credit
        self._mark({k: self.series[k].bars[bar].open for k, bar in self.now.items()})
        for k in self._in_order(1):
            self._act(k, lambda slow, bar: slow.at_open(bar))
        if rule.fill_at == "close":
            self._mark({k: self.series[k].bars[bar].open for k, bar in self.now.items()})
        for k in [] if one_by_one else list(self.now):
            stopped[k] = bool(self._act(k, lambda slow, bar: slow.within(bar)))
        self._mark({k: self.series[k].bars[bar].close for k, bar in self.now.items()})
        if rule.liquidation == "always" and len(self.series) > 1 and self.worth <= 0:
            held = [k for k in self.now if self.each[k].held]
            for k in sorted(held, key=lambda k: self.each[k].held < 0):
                self._act(k, lambda slow, bar: slow._close_now(bar, slow.bars[bar].close, LIQUIDATED))
        for k in self._in_order(0):
            if one_by_one:
                stopped[k] = bool(self._act(k, lambda slow, bar: slow.within(bar)))
            self._act(k, lambda slow, bar, hit=stopped[k]: slow.at_close(bar, hit))

    def _mark(self, prices: dict[int, float]) -> None:
        for k, price in prices.items():
            self.marks[k] = price
        self.worth = self._worth()

    def _worth(self) -> float:
        return self.cash + sum(slow.held * mark for slow, mark in zip(self.each, self.marks, strict=True))

    def _locked(self, k: int) -> float:
        slow = self.each[k]
        price = self.marks[k] if self.conventions.short_collateral else slow.entry_price
        return 2 * -slow.held * price if slow.held < 0 else 0.0

    def _goes_on(self, k: int) -> bool:
        """Return whether the symbol has a bar now or later."""
        return self.series[k].times[-1] >= self.time

    def _act(self, k: int, act: object) -> object:
        """Run one moment of a bar of symbol k with the common cash."""
        slow = self.each[k]
        others = [j for j in range(len(self.each)) if j != k]
        slow.cash, slow.worth = self.cash, self.worth
        slow.others_worth = sum(self.each[j].held * self.marks[j] for j in others)
        slow.others_locked = sum(self._locked(j) for j in others)
        slow.others_flat = sum(not self.each[j].held and self._goes_on(j) for j in others)
        known = len(slow.orders)
        answer = act(slow, self.now[k])  # type: ignore[operator]
        self.cash = slow.cash
        self.orders += [(k, order) for order in slow.orders[known:]]
        return answer

    def _in_order(self, back: int) -> list[int]:
        """Return the symbols that have a bar, in their order at the open (back 1) or the close (back 0)."""
        if self.conventions.symbol_order == "given":
            return list(self.now)
        asked = {k: self._asked(k, self.now[k] - back) for k in self.now}
        same = 1e-9 * abs(self.worth)
        # Values that differ by rounding are equal, and then the order is that of the symbols.

        def compare(a: int, b: int) -> int:
            return _compared(asked[a], asked[b], same)

        return sorted(self.now, key=cmp_to_key(compare))

    def _asked(self, k: int, bar: int) -> float:
        """Return the approximate value of the order for the signals of a bar; a sale is negative."""
        rule, slow, mark = self.conventions, self.each[k], self.marks[k]
        if bar < 0:
            return 0.0
        held = slow.held * mark
        if "target" in slow.signals[bar]:
            return (slow.stops[bar].target or 0.0) * self.worth - held
        closes, opens = slow._plan(slow.signals[bar])
        value = -held if closes else 0.0
        if not opens or rule.order_type != "market":
            return value
        way = 1 if opens == "buy" else -1
        if rule.size in ("all_in", "risk"):
            return way * math.inf
        if rule.size == "fraction":
            locked = sum(self._locked(j) for j in range(len(self.each))) if way < 0 else 0.0
            return value + way * rule.size_value * (self.cash - locked if rule.size_base == "cash" else self.worth)
        return value + way * (rule.size_value * mark if rule.size == "units" else rule.size_value)
