"""The fill loop again, slowly and in plain Python: written from the conventions, not from the kernel.

One `Reference` holds an account in ordinary attributes and appends what happens to ordinary lists. The kernel has to
agree with it on thousands of random cases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from backtestr_engine.options import Conventions

SMALLEST = 1e-8


@dataclass
class Order:
    bar: int
    side: str
    asked: float
    filled: float
    price: float | None
    fee: float
    reason: str


@dataclass
class Trade:
    entry_bar: int
    exit_bar: int
    side: str
    quantity: float
    pnl: float
    fees: float


@dataclass
class Reference:
    conventions: Conventions
    commission: float
    slippage: float
    cash: float
    held: float = 0.0
    entry_price: float = 0.0
    entry_fees: float = 0.0
    entry_bar: int = -1
    orders: list[Order] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)
    equity: list[float] = field(default_factory=list)

    def walk(self, opens: list[float], closes: list[float], wishes: list[frozenset[str]]) -> None:
        """`wishes` per bar: a set of "entry", "exit", "short_entry", "short_exit"."""
        for bar in range(len(opens)):
            if self.conventions.fill_at == "close":
                self._obey(bar, wishes[bar], closes[bar])
            elif bar > 0:
                self._obey(bar, wishes[bar - 1], opens[bar])
            if bar == len(opens) - 1:
                if self.conventions.close_at_end and self.held:
                    self._leave_at_the_end(bar, closes[bar])
                if self.conventions.fill_at == "next_open":
                    self._refuse(bar, wishes[bar])
            self.equity.append(self.cash + self.held * closes[bar])

    def _plan(self, wishes: frozenset[str]) -> tuple[bool, str | None]:
        """(whether to leave the position, the side to enter)."""
        wants_long = "entry" in wishes and "exit" not in wishes and self.conventions.direction != "short"
        wants_short = "short_entry" in wishes and "short_exit" not in wishes and self.conventions.direction != "long"
        if wants_long and wants_short:
            wants_long = wants_short = False
        if not self.held:
            return False, "buy" if wants_long else "sell" if wants_short else None
        against = wants_short if self.held > 0 else wants_long
        if against and self.conventions.on_opposite == "reverse":
            return True, "sell" if self.held > 0 else "buy"
        if against and self.conventions.on_opposite == "close":
            return True, None
        return ("exit" if self.held > 0 else "short_exit") in wishes, None

    def _slipped(self, side: str, market: float) -> float:
        return market * (1 + self.slippage) if side == "buy" else market * (1 - self.slippage)

    def _fee(self, *parts: tuple[float, float]) -> float:
        """The fee of one order made of (quantity, price) parts."""
        rule = self.conventions
        total = rule.commission_fixed
        for quantity, price in parts:
            total += self.commission * quantity * price + rule.commission_per_unit * quantity
        return max(total, rule.commission_minimum)

    def _most(self, price: float, first: tuple[float, float] | None) -> float:
        """The most units that cash buys, by trial: the cost of an order grows with its quantity."""

        def left(quantity: float) -> float:
            fee = self._fee(first, (quantity, price)) - self._fee(first) if first else self._fee((quantity, price))
            return self.cash - quantity * price - fee

        low, high = 0.0, max(self.cash, 0.0) / price + 1.0
        if left(0.0) <= 0.0:
            return 0.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if left(middle) >= 0 else (low, middle)
        return low

    def _obey(self, bar: int, wishes: frozenset[str], market: float) -> None:
        leaves, enters = self._plan(wishes)
        order: Order | None = None
        if leaves:
            side = "sell" if self.held > 0 else "buy"
            asked = abs(self.held)
            filled, fee = self._leave(bar, market)
            reason = "" if filled == asked else "cut to the cash there was" if filled else "not enough cash"
            order = Order(bar, side, asked, filled, self._slipped(side, market) if filled else None, fee, reason)
            if filled != asked:
                enters = None
        if enters:
            first = (order.filled, self._slipped(order.side, market)) if order else None
            asked, filled, fee, reason = self._enter(bar, enters, market, first)
            price = self._slipped(enters, market)
            if order is None:
                order = Order(bar, enters, asked, filled, price if filled else None, fee, reason)
            elif filled:
                order = Order(bar, enters, order.asked + asked, order.filled + filled, price, order.fee + fee, reason)
            else:
                self.orders.append(order)
                order = Order(bar, enters, asked, 0.0, None, 0.0, reason)
        if order:
            self.orders.append(order)

    def _leave(self, bar: int, market: float) -> tuple[float, float]:
        side = "sell" if self.held > 0 else "buy"
        price = self._slipped(side, market)
        quantity = abs(self.held)
        if side == "buy" and self.conventions.short_of_cash == "cut":
            quantity = min(quantity, self._most(price, None))
            if quantity < SMALLEST:
                return 0.0, 0.0
        whole = quantity == abs(self.held)
        share = 1.0 if whole else quantity / abs(self.held)
        fee = self._fee((quantity, price))
        if side == "sell":
            self.cash += quantity * price - fee
            gain = quantity * (price - self.entry_price)
        else:
            self.cash -= quantity * price + fee
            gain = quantity * (self.entry_price - price)
        fees = self.entry_fees * share + fee
        self.trades.append(Trade(self.entry_bar, bar, "buy" if side == "sell" else "sell", quantity, gain - fees, fees))
        self.entry_fees *= 1 - share
        self.held = 0.0 if whole else self.held + (quantity if side == "buy" else -quantity)
        return quantity, fee

    def _enter(
        self, bar: int, side: str, market: float, first: tuple[float, float] | None
    ) -> tuple[float, float, float, str]:
        price = self._slipped(side, market)
        rule = self.conventions
        affordable = self._most(price, first)
        wanted = {
            "all_in": affordable,
            "fraction": rule.size_value * affordable,
            "units": rule.size_value,
            "value": rule.size_value / price,
        }[rule.size]
        if rule.whole_units:
            wanted, affordable = float(math.floor(wanted)), float(math.floor(affordable))
        if self.cash <= 0:
            return wanted, 0.0, 0.0, "not enough cash"
        quantity, reason = wanted, ""
        if wanted > affordable * (1 + 1e-13) and (side == "buy" or rule.short_collateral):
            if rule.short_of_cash == "reject":
                return wanted, 0.0, 0.0, "not enough cash"
            quantity, reason = affordable, "cut to the cash there was"
        if quantity < SMALLEST:
            return wanted, 0.0, 0.0, "too small"
        fee = self._fee(first, (quantity, price)) - self._fee(first) if first else self._fee((quantity, price))
        self.cash += (-quantity if side == "buy" else quantity) * price - fee
        self.held = quantity if side == "buy" else -quantity
        self.entry_price, self.entry_fees, self.entry_bar = price, fee, bar
        return wanted, quantity, fee, reason

    def _leave_at_the_end(self, bar: int, market: float) -> None:
        side, asked = "sell" if self.held > 0 else "buy", abs(self.held)
        filled, fee = self._leave(bar, market)
        reason = "closed at the end of the data"
        if filled != asked:
            reason = "cut to the cash there was" if filled else "not enough cash"
        self.orders.append(
            Order(bar, side, asked, filled, self._slipped(side, market) if filled else None, fee, reason)
        )

    def _refuse(self, bar: int, wishes: frozenset[str]) -> None:
        leaves, enters = self._plan(wishes)
        if leaves or enters:
            side = ("sell" if self.held > 0 else "buy") if leaves else enters
            assert side is not None
            self.orders.append(Order(bar, side, abs(self.held), 0.0, None, 0.0, "no next bar to fill at"))
