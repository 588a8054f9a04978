"""The simulation of one symbol in plain Python, written from the conventions and not from the kernel.

One `Reference` holds an account in ordinary attributes and appends events to ordinary lists. The kernel has to agree
with it on thousands of random cases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from backtestr_engine.simulation.conventions import Conventions

SMALLEST = 1e-8
ROUNDING = 4 * 2.0**-52
"""Relative: a price that differs from a level by no more than this touches it (convention `touch`)."""


@dataclass
class Bar:
    open: float
    high: float
    low: float
    close: float


@dataclass
class Stops:
    """The stops of a bar as fractions; None where there is none."""

    loss: float | None
    profit: float | None
    trailing: float | None
    limit: float | None = None
    stop: float | None = None
    target: float | None = None


@dataclass
class Order:
    bar: int
    side: str
    asked: float
    filled: float
    price: float | None
    fee: float
    reason: str
    kind: str = "market"
    status: str | None = None


@dataclass
class Trade:
    entry_bar: int
    exit_bar: int
    side: str
    quantity: float
    pnl: float
    fees: float


@dataclass
class Pending:
    """A pending order."""

    side: str
    signal_bar: int
    quantity: float
    limit: float
    stop: float
    triggered: bool = False


@dataclass
class Reference:
    conventions: Conventions
    commission: float
    slippage: float
    cash: float
    held: float = 0.0
    entry_price: float = 0.0
    worth: float = 0.0  # equity before the orders of the moment
    base_price: float = 0.0  # of the first entry, from which the stops count
    entry_fees: float = 0.0
    entry_bar: int = -1
    entry_time: int = -1  # the bar whose time the entry has
    signal_bar: int = -1
    position_stops: Stops | None = None
    pending: Pending | None = None
    filled_at_open: bool = False
    filled_within: bool = False
    others_worth: float = 0.0  # of positions in other symbols of the account
    others_locked: float = 0.0  # what their short sales brought, and as much again
    others_flat: int = 0  # other symbols without a position that still have bars
    bars: list[Bar] = field(default_factory=list)
    signals: list[frozenset[str]] = field(default_factory=list)
    stops: list[Stops] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)
    equity: list[float] = field(default_factory=list)

    def simulate(self, bars: list[Bar], signals: list[frozenset[str]], stops: list[Stops]) -> None:
        """Simulate all bars.

        `signals` has for each bar a set of "entry", "exit", "short_entry", "short_exit", or of "target"; `stops` has
        the stops of its entries, and its target.
        """
        self.begin(bars, signals, stops)
        for bar, prices in enumerate(bars):
            first = bars[bar - 1].close if self._books_next_bar and bar else prices.open
            self.worth = self.cash + self.held * first
            self.at_open(bar)
            stopped = self.within(bar)
            self.worth = self.cash + self.held * prices.close
            self.at_close(bar, stopped)
            self.equity.append(self.cash + self.held * prices.close)

    def begin(self, bars: list[Bar], signals: list[frozenset[str]], stops: list[Stops]) -> None:
        self.bars, self.signals, self.stops = bars, signals, stops

    @property
    def _books_next_bar(self) -> bool:
        return self.conventions.fill_at == "close" and self.conventions.close_booked == "next_bar"

    @property
    def _fills_at_close(self) -> bool:
        return self.conventions.fill_at == "close" and not self._books_next_bar

    def _near(self, level: float, base: float = 0.0) -> float:
        """Return the distance from a level that is rounding."""
        return 0.0 if self.conventions.touch == "exact" else ROUNDING * max(level, base)

    def _touched(self, level: float, extreme: float, base: float = 0.0) -> float:
        return extreme if abs(extreme - level) <= self._near(level, base) else level

    def at_open(self, bar: int) -> None:
        if bar > 0 and not self._fills_at_close:
            market = self.bars[bar - 1].close if self._books_next_bar else self.bars[bar].open
            orders, trades, entered = len(self.orders), len(self.trades), self.entry_bar
            self._execute_signal(bar, bar - 1, self.signals[bar - 1], market)
            if self._books_next_bar:  # its fills have the time of the close
                for order in self.orders[orders:]:
                    order.bar = bar - 1
                for trade in self.trades[trades:]:
                    trade.exit_bar = bar - 1
                self.entry_time = bar - 1 if self.entry_bar != entered else self.entry_time

    def within(self, bar: int) -> bool:
        stopped = self._protect(bar)
        if self.pending:
            self._fill_pending(bar, self.pending)
        return stopped

    def at_close(self, bar: int, stopped: bool) -> None:
        rule, prices, signals = self.conventions, self.bars[bar], self.signals[bar]
        if not (self._fills_at_close and stopped and rule.after_stop == "skip"):
            self._place(bar, signals)
            if self._fills_at_close:
                self._execute_signal(bar, bar, signals, prices.close)
        if bar == len(self.bars) - 1:
            if rule.close_at_end and self.held:
                before = bar - 1 if rule.end_price == "previous_close" and bar else bar
                price = prices.open if rule.end_price == "open" else self.bars[before].close
                self._close_now(before, price, "closed at the end of the data")
            if self.pending:
                self._cancel(bar, "not filled before the data ended")
            if not self._fills_at_close:
                self._reject_signal(bar, signals)

    def _place(self, bar: int, signals: frozenset[str]) -> None:
        rule = self.conventions
        if rule.order_type == "market":
            return
        if self.pending and ("exit" if self.pending.side == "buy" else "short_exit") in signals:
            self._cancel(bar, "withdrawn by an exit")
        _, opens = self._plan(signals)
        if not opens:
            return
        if self.pending:
            self._cancel(bar, "replaced by a later order")
        stops = self.stops[bar]
        needed = {"limit": [stops.limit], "stop": [stops.stop], "stop_limit": [stops.limit, stops.stop]}
        if None in needed[rule.order_type]:
            reason = "no price to wait for"
            self.orders.append(Order(bar, opens, 0.0, 0.0, None, 0.0, reason, rule.order_type))
            return
        price = stops.limit if rule.order_type == "limit" else stops.stop
        assert price is not None
        # The size of the order if the position in this symbol were cash.
        free = worth = self.cash + self.held * self.bars[bar].close
        if opens == "sell" or rule.short_collateral:
            free -= self.others_locked
        worth = free if rule.size_base == "cash" else worth + self.others_worth
        asked = self._wanted(bar, opens, price, price, None, self._share(free), worth)[0]
        self.pending = Pending(opens, bar, asked, stops.limit or 0.0, stops.stop or 0.0)
        self.orders.append(Order(bar, opens, asked, 0.0, None, 0.0, "", rule.order_type, "pending"))

    def _cancel(self, bar: int, reason: str) -> None:
        assert self.pending
        w, kind = self.pending, self.conventions.order_type
        self.orders.append(Order(bar, w.side, w.quantity, 0.0, None, 0.0, reason, kind, "cancelled"))
        self.pending = None

    def _fill_pending(self, bar: int, order: Pending) -> None:
        rule, now, buys = self.conventions, self.bars[bar], order.side == "buy"
        market: float | None = None
        near_limit, near_stop = self._near(order.limit), self._near(order.stop)
        by_limit = rule.order_type == "limit" or order.triggered
        if by_limit:
            if now.low <= order.limit + near_limit if buys else now.high >= order.limit - near_limit:
                touched = self._touched(order.limit, now.low if buys else now.high)
                market = min(now.open, touched) if buys else max(now.open, touched)
        elif now.high >= order.stop - near_stop if buys else now.low <= order.stop + near_stop:
            touched = self._touched(order.stop, now.high if buys else now.low)
            market = max(now.open, touched) if buys else min(now.open, touched)
            if rule.order_type == "stop_limit":
                order.triggered = True
                if market > order.limit + near_limit if buys else market < order.limit - near_limit:
                    market = None
                else:
                    market = min(market, order.limit) if buys else max(market, order.limit)
        if market is None:
            if rule.valid_bars and bar == order.signal_bar + rule.valid_bars:
                self._cancel(bar, "not filled within its bars")
            return
        self.pending = None
        entries = self.entry_bar
        against = bool(self.held) and (self.held > 0) != buys
        self._trade(bar, order.signal_bar, abs(self.held) if against else 0.0, order.side, market, rule.order_type)
        if self.entry_bar != entries and self.held:
            self.filled_at_open = market == now.open
            self.filled_within = not self.filled_at_open
            self._protect(bar, (market, by_limit) if self.filled_within else None)

    def _protect(self, bar: int, filled: tuple[float, bool] | None = None) -> bool:
        """Execute the protective exits of the position on one bar.

        `filled`: the position was opened within this bar, at this price, by a limit or by a stop.
        """
        if not self.held or self.position_stops is None:
            return False
        rule, now, stops = self.conventions, self.bars[bar], self.position_stops
        base = {
            "fill_price": self.base_price,
            "entry_close": self.bars[self.entry_bar].close,
            "signal_close": self.bars[self.signal_bar].close,
        }[rule.stop_base]
        at_open = self.filled_at_open
        long = self.held > 0
        # The best price that the trailing stop has seen: from the base on, not counting this bar.
        seen_from = self.entry_bar if at_open and rule.stop_base != "entry_close" else self.entry_bar + 1
        seen = self.bars[seen_from:bar]
        best = max([base, *(b.high for b in seen)]) if long else min([base, *(b.low for b in seen)])
        worst: list[tuple[float, str]] = []
        if stops.loss is not None:
            worst.append((base * (1 - stops.loss) if long else base * (1 + stops.loss), "stop loss"))
        if stops.trailing is not None:
            worst.append((best * (1 - stops.trailing) if long else best * (1 + stops.trailing), "trailing stop"))
        may = {
            "next_bar": False,
            "same_bar_at_open": at_open,
            "same_bar": at_open or self.filled_within,
        }[rule.stop_active]
        too_early = bar == self.entry_bar and not (may and rule.stop_base != "entry_close")
        if too_early:
            worst = []
        known = at_open or (self.filled_within and rule.stop_active == "same_bar")
        if self._liquidates and (known or bar > self.entry_bar):
            # Where equity is the maintenance margin of the position's value.
            share = 1 - rule.maintenance_margin if long else 1 + rule.maintenance_margin
            ruin = -(self.cash + self.others_worth) / (self.held * share)
            if ruin > 1e-9:
                worst.append((ruin, "liquidated at the maintenance margin"))
        if worst:
            # The nearer one; of two equal ones the stop loss, which is the first.
            level, reason = max(worst, key=lambda w: w[0]) if long else min(worst, key=lambda w: w[0])
            near = self._near(level, base)
            first, extreme = now.open, now.low if long else now.high
            if filled:
                first, by_limit = filled
                # After a stop, prices between the open and the fill need not have come again: only the close has.
                if not by_limit and (level > now.open if long else level < now.open):
                    extreme = min(first, now.close) if long else max(first, now.close)
            if extreme <= level + near if long else extreme >= level - near:
                touched = self._touched(level, extreme, base)
                market = min(first, touched) if long else max(first, touched)
                slips = rule.slippage_on == "market_and_stops"
                if reason.startswith("liquidated"):
                    self._exit(bar, market, rule.slippage_on != "entries", "market", reason)
                else:
                    self._exit(bar, market, slips, "stop", reason)
                return True
        if stops.profit is not None and not too_early:
            level = base * (1 + stops.profit) if long else base * (1 - stops.profit)
            near = self._near(level, base)
            first, extreme = now.open, now.high if long else now.low
            if filled:
                first, by_limit = filled
                # The price came down to the limit of a purchase: its high may be older, only the close is later.
                if by_limit:
                    extreme = max(first, now.close) if long else min(first, now.close)
            if extreme >= level - near if long else extreme <= level + near:
                touched = self._touched(level, extreme, base)
                market = max(first, touched) if long else min(first, touched)
                self._exit(bar, market, False, "limit", "take profit")
                return True
        return False

    @property
    def _liquidates(self) -> bool:
        """Return whether the position ends where the account has nothing but its maintenance margin left.

        Without leverage that is possible where something is owed: for a short position, or beside one.
        """
        rule = self.conventions
        return rule.leverage > 1 or (
            rule.liquidation == "always" and (self.held < 0 or self.cash + self.others_worth < 0)
        )

    def _exit(self, bar: int, market: float, slips: bool, kind: str, reason: str) -> None:
        side, asked = "sell" if self.held > 0 else "buy", abs(self.held)
        price = self._slipped(side, market) if slips else market
        filled, fee = self._close(bar, price, asked)
        if filled != asked:
            reason = self._why_short(side, filled)
        self.orders.append(Order(bar, side, asked, filled, price if filled else None, fee, reason, kind))
        if not self.held:
            self.position_stops = None

    def _why_short(self, side: str, filled: float) -> str:
        if filled:
            return "cut to the cash there was"
        return "not enough cash" if side == "buy" else "its fee is more than it brings"

    def _plan(self, signals: frozenset[str]) -> tuple[bool, str | None]:
        """Return whether to close the position, and the side to open."""
        wants_long = "entry" in signals and "exit" not in signals and self.conventions.direction != "short"
        wants_short = "short_entry" in signals and "short_exit" not in signals and self.conventions.direction != "long"
        if wants_long and wants_short:
            wants_long = wants_short = False
        if not self.held:
            return False, "buy" if wants_long else "sell" if wants_short else None
        against = wants_short if self.held > 0 else wants_long
        if against and self.conventions.on_opposite == "reverse":
            return True, "sell" if self.held > 0 else "buy"
        if against and self.conventions.on_opposite == "close":
            return True, None
        return ("exit" if self.held > 0 else "short_exit") in signals, None

    def _slipped(self, side: str, market: float) -> float:
        return market * (1 + self.slippage) if side == "buy" else market * (1 - self.slippage)

    def _fee(self, *parts: tuple[float, float]) -> float:
        """Return the fee of one order made of (quantity, price) parts."""
        rule = self.conventions
        total = rule.commission_fixed
        for quantity, price in parts:
            total += self.commission * quantity * price + rule.commission_per_unit * quantity
        return max(total, rule.commission_minimum)

    def _most(self, cash: float, price: float, first: tuple[float, float] | None, leverage: float) -> float:
        """Return the most units that cash buys, by bisection: the cost of an order grows with its quantity."""

        def left(quantity: float) -> float:
            fee = self._fee(first, (quantity, price)) - self._fee(first) if first else self._fee((quantity, price))
            return max(cash, 0.0) - quantity * price / leverage - fee

        low, high = 0.0, max(cash, 0.0) * leverage / price + 1.0
        if left(0.0) <= 0.0:
            return 0.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if left(middle) >= 0 else (low, middle)
        return low

    def _execute_signal(self, bar: int, signal_bar: int, signals: frozenset[str], market: float) -> None:
        if "target" in signals:
            closing, opens, units = self._missing(signal_bar, market)
            if closing or opens:
                new_position = opens and (self.held == 0 or closing == abs(self.held))
                self.filled_at_open = not self._fills_at_close if new_position else self.filled_at_open
                self.filled_within = False if new_position else self.filled_within
                self._trade(bar, signal_bar, closing, opens, market, "market", units)
            return
        closes, opens = self._plan(signals)
        if opens and self.conventions.order_type != "market":
            return
        self.filled_at_open = not self._fills_at_close if opens else self.filled_at_open
        self.filled_within = False if opens else self.filled_within
        self._trade(bar, signal_bar, abs(self.held) if closes else 0.0, opens, market, "market")

    def _missing(self, signal_bar: int, market: float) -> tuple[float, str | None, float | None]:
        """Return units to close, side to open and units to open for the target of a bar."""
        rule = self.conventions
        target = self.stops[signal_bar].target
        assert target is not None
        if rule.direction == "long":
            target = max(target, 0.0)
        if rule.direction == "short":
            target = min(target, 0.0)
        equity = max(0.0, self.worth)
        units = target * equity / market
        if rule.whole_units:
            units = float(math.trunc(units))
        missing = units - self.held
        if abs(missing) < SMALLEST or abs(missing) * market < 1e-9 * equity:
            return 0.0, None, None
        side = "buy" if missing > 0 else "sell"
        if self.held == 0 or (self.held > 0) == (missing > 0):
            return 0.0, side, abs(missing)
        if units != 0 and (units > 0) == (self.held > 0):
            return abs(missing), None, None
        return abs(self.held), side if units else None, abs(units)

    def _trade(
        self,
        bar: int,
        signal_bar: int,
        closing: float,
        opens: str | None,
        market: float,
        kind: str,
        units: float | None = None,
    ) -> None:
        slips = kind in ("market", "stop")
        order: Order | None = None
        if closing:
            side = "sell" if self.held > 0 else "buy"
            asked = closing
            slipped = slips and self.conventions.slippage_on != "entries"
            price = self._slipped(side, market) if slipped else market
            filled, fee = self._close(bar, price, asked)
            reason = "" if filled == asked else self._why_short(side, filled)
            order = Order(bar, side, asked, filled, price if filled else None, fee, reason, kind)
            if filled != asked:
                opens = None
            elif opens and self.conventions.reversal == "two_orders":
                self.orders.append(order)
                order = None
        if opens:
            price = self._slipped(opens, market) if slips else market
            first = (order.filled, price) if order else None
            asked, filled, fee, reason = self._open(bar, signal_bar, opens, market, price, first, units)
            if order is None:
                order = Order(bar, opens, asked, filled, price if filled else None, fee, reason, kind)
            elif filled:
                order = Order(
                    bar, opens, order.asked + asked, order.filled + filled, price, order.fee + fee, reason, kind
                )
            else:
                self.orders.append(order)
                order = Order(bar, opens, asked, 0.0, None, 0.0, reason, kind)
        if order:
            self.orders.append(order)

    def _close(self, bar: int, price: float, asked: float) -> tuple[float, float]:
        side = "sell" if self.held > 0 else "buy"
        quantity = asked
        if side == "buy" and self.conventions.short_of_cash == "cut":
            affordable = self._most(self.cash, price, None, 1.0)
            if affordable < quantity * (1 - 1e-12):
                quantity = float(math.floor(affordable)) if self.conventions.whole_units else affordable
            if quantity < SMALLEST:
                return 0.0, 0.0
        if (
            side == "sell"
            and self.conventions.short_of_cash == "cut"
            and quantity * price < self._fee((quantity, price))
        ):
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
        self.trades.append(
            Trade(self.entry_time, bar, "buy" if side == "sell" else "sell", quantity, gain - fees, fees)
        )
        self.entry_fees *= 1 - share
        self.held = 0.0 if whole else self.held + (quantity if side == "buy" else -quantity)
        return quantity, fee

    def _share(self, free: float) -> float:
        """Return the part of free cash that a symbol may spend with the size all_in."""
        equal = self.conventions.size == "all_in" and self.conventions.cash_shares == "equal"
        return free / (1 + self.others_flat) if equal else free

    def _wanted(
        self,
        signal_bar: int,
        side: str,
        price: float,
        market: float,
        first: tuple[float, float] | None,
        free: float,
        worth: float,
    ) -> tuple[float, float, str]:
        """Return the units wanted, the units that `free` cash pays for, and the reason where there is no size."""
        rule = self.conventions
        affordable = self._most(free, price, first, rule.leverage)
        stops = self.stops[signal_bar]
        risked = stops.loss or stops.trailing
        if rule.size == "risk" and risked is None:
            return 0.0, 0.0, "no stop loss to size the risk by"
        wanted = {
            "all_in": affordable,
            "fraction": self._most(rule.size_value * worth, price, first, rule.leverage),
            "units": rule.size_value,
            "value": rule.size_value / market,
            "risk": max(worth, 0.0) * rule.size_value / ((risked or 1.0) * price),
        }[rule.size]
        if rule.size == "fraction" and rule.size_base == "cash" and side == "sell":
            wanted = rule.size_value * affordable
        if rule.size_costs == "per_unit":
            # What a unit costs with its share of the fee, on the price without slippage.
            share = rule.size_value if rule.size in ("units", "value", "risk") else min(rule.size_value, 1 - 2**-52)
            if rule.size in ("all_in", "fraction"):
                wanted = affordable = (max(free, 0.0) * rule.leverage * share) // self._unit_cost(share, price, market)
            elif wanted >= 1:
                affordable = max(free, 0.0) * rule.leverage / self._unit_cost(math.floor(wanted), price, market)
        if rule.whole_units:
            wanted, affordable = float(math.floor(wanted)), float(math.floor(affordable))
        return wanted, affordable, ""

    def _open(
        self,
        bar: int,
        signal_bar: int,
        side: str,
        market: float,
        price: float,
        first: tuple[float, float] | None,
        units: float | None,
    ) -> tuple[float, float, float, str]:
        rule, stops = self.conventions, self.stops[signal_bar]
        # The cash that existing positions leave free: short positions bind what they were sold for and as much again,
        # positions on credit bind their margin.
        needs_cash = side == "buy" or rule.short_collateral
        free, value = self.cash, abs(self.held) * market
        if side == "sell" or rule.short_collateral:
            free -= self.others_locked
        if self.held < 0 and (side == "sell" and rule.short_collateral):
            free -= value + value / rule.leverage
        elif self.held > 0 and rule.leverage > 1:
            free += value - value / rule.leverage
        if units is None:
            worth = free if rule.size_base == "cash" else self.cash + self.others_worth
            free = self._share(free)
            wanted, affordable, problem = self._wanted(signal_bar, side, price, market, first, free, worth)
        else:
            problem = ""
            wanted, affordable = units, self._most(free, price, first, rule.leverage)
            if rule.size_costs == "per_unit" and rule.size not in ("all_in", "fraction") and wanted >= 1:
                affordable = max(free, 0.0) * rule.leverage / self._unit_cost(math.floor(wanted), price, market)
            if rule.whole_units:
                wanted, affordable = float(math.floor(wanted)), float(math.floor(affordable))
        if problem:
            return wanted, 0.0, 0.0, problem
        if free < SMALLEST * price and (needs_cash or (units is None and rule.size in ("all_in", "fraction"))):
            return wanted, 0.0, 0.0, "not enough cash"
        quantity, reason = wanted, ""
        if wanted > affordable * (1 + 1e-12) and needs_cash:
            if rule.short_of_cash == "reject" and units is None:
                return wanted, 0.0, 0.0, "not enough cash"
            short = (wanted - affordable) * price
            quantity, reason = affordable, "cut to the cash there was" if short > 1e-9 * abs(self.worth) else ""
        if quantity < SMALLEST:
            return wanted, 0.0, 0.0, "not enough cash" if quantity != wanted else "too small"
        fee = self._fee(first, (quantity, price)) - self._fee(first) if first else self._fee((quantity, price))
        if side == "sell" and rule.short_of_cash == "cut" and quantity * price < fee:
            return wanted, 0.0, 0.0, "its fee is more than it brings"
        self.cash += (-quantity if side == "buy" else quantity) * price - fee
        if self.held:
            held = abs(self.held)
            self.entry_price = (held * self.entry_price + quantity * price) / (held + quantity)
            self.entry_fees += fee
            self.held += quantity if side == "buy" else -quantity
            return wanted, quantity, fee, reason
        self.held = quantity if side == "buy" else -quantity
        self.base_price = price
        own = fee
        if first and (rule.commission_fixed or rule.commission_minimum):  # each unit of the order bears the same part
            own = self._fee(first, (quantity, price)) * quantity / (first[0] + quantity)
            self.trades[-1].fees -= own - fee
            self.trades[-1].pnl += own - fee
        self.entry_price, self.entry_fees, self.entry_bar, self.signal_bar = price, own, bar, signal_bar
        self.entry_time = bar
        self.position_stops = stops
        return wanted, quantity, fee, reason

    def _unit_cost(self, units: float, price: float, market: float) -> float:
        rule = self.conventions
        return price + self.commission * market + rule.commission_per_unit + rule.commission_fixed / units

    def _close_now(self, bar: int, market: float, reason: str) -> None:
        self._exit(bar, market, self.conventions.slippage_on != "entries", "market", reason)

    def _reject_signal(self, bar: int, signals: frozenset[str]) -> None:
        if "target" in signals:
            closing, opens, units = self._missing(bar, self.bars[bar].close)
            if closing or opens:
                way = ("sell" if self.held > 0 else "buy") if closing else opens
                assert way is not None
                asked = closing + ((units or 0.0) if opens else 0.0)
                self.orders.append(Order(bar, way, asked, 0.0, None, 0.0, "no next bar to fill at"))
            return
        closes, opens = self._plan(signals)
        if opens and self.conventions.order_type != "market":
            return
        if closes or opens:
            side = ("sell" if self.held > 0 else "buy") if closes else opens
            assert side is not None
            self.orders.append(Order(bar, side, abs(self.held), 0.0, None, 0.0, "no next bar to fill at"))
