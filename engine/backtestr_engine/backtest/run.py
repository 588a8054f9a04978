"""A backtest: everything that can be refused before it runs (`prepare`), and the run itself (`Run`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.algorithms.parameters import Value
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.algorithms.weights import targets_of
from backtestr_engine.built_in import find_algorithm
from backtestr_engine.data.arrays import Floats, Integers, Records
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.instants import parse_instant
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.timeframes import LENGTH_US, parse_timeframe
from backtestr_engine.metrics.daily_statistics import with_daily_statistics
from backtestr_engine.metrics.excursions import fill_in_excursions
from backtestr_engine.metrics.metrics import (
    Annualisation,
    Metrics,
    Walked,
    annualisation,
    compute_metrics,
)
from backtestr_engine.simulation.account import kernel_rules, totals
from backtestr_engine.simulation.conventions import Conventions, Options, resolve_options
from backtestr_engine.simulation.records import BUY, SELL, TRADE, final_states
from backtestr_engine.simulation.shared_account_loop import SharedAccountSimulation
from backtestr_engine.simulation.symbol_loop import SymbolSimulation
from backtestr_protocol.errors import InvalidConfiguration, ValidationError
from backtestr_protocol.messages import BacktestConfig, Timeframe
from backtestr_protocol.stream_messages import BacktestProgress, EquityCurvePoint

from .tables import equity_frame, orders_frame, positions_frame, trades_frame

MAX_SYMBOLS = 1000
"""The symbols of one backtest: at a million bars each they would be 48 GB, more than anyone has."""


class Plan(msgspec.Struct, frozen=True):
    """A backtest that nothing stands against: all names found, all values checked, the bars of every symbol at hand."""

    config: BacktestConfig
    algorithm: Algorithm
    parameters: dict[str, Value]
    options: Options
    panel: Panel

    @property
    def bars(self) -> Bars:
        """Those of the first symbol."""
        return self.panel.series[0]

    @property
    def annualisation(self) -> Annualisation:
        conventions = self.options.conventions
        return annualisation(self.panel.timeframe, conventions.calendar, conventions.risk_free)

    def resolved_config(self) -> BacktestConfig:
        """The configuration with every parameter and option spelled out and the algorithm's version in its id: what
        has to be stored with a result for it to be understood, and repeated, later."""
        return msgspec.structs.replace(
            self.config,
            algorithm_id=self.algorithm.algorithm_id,
            parameters=dict(self.parameters),
            options=self.options.to_wire(),
        )


def prepare(
    config: BacktestConfig,
    catalog: Catalog,
    conventions: Conventions,
    find: Callable[[str], Algorithm] = find_algorithm,
) -> Plan:
    """Check all of `config` against what there is, without running the algorithm. `conventions` are the defaults, and
    `find` knows the algorithms by name and id.

    In the plan's configuration `symbol` is the first symbol, and `symbols` are all where there are several.

    Raises `NotFound` (algorithm), `ValidationError` (a value ill-typed or out of range; a name of parameter, option or
    timeframe that does not exist), `InvalidConfiguration` (values that contradict each other, capital ≤ 0),
    `DataError` (symbol, or a range without bars) and what else `find` raises.
    """
    symbols = _check_symbols(config)
    algorithm = find(config.algorithm_id)
    parameters = algorithm.check(config.parameters)
    options = resolve_options(config.options, conventions)
    _check_money(config)
    timeframe = parse_timeframe(config.timeframe)
    start = parse_instant(config.start_date, path="$.startDate")
    end = parse_instant(config.end_date, path="$.endDate")
    if start >= end:
        raise InvalidConfiguration(
            f"startDate {config.start_date} is not before endDate {config.end_date} (the end is exclusive)",
            paths=["$.startDate", "$.endDate"],
        )
    if len(symbols) > 1:
        _check_shared_account(options.conventions)
    panel = Panel.of([catalog.load(symbol, timeframe, start, end) for symbol in symbols])
    named = msgspec.structs.replace(config, symbol=symbols[0], symbols=symbols if len(symbols) > 1 else [])
    return Plan(named, algorithm, parameters, options, panel)


def _check_symbols(config: BacktestConfig) -> list[str]:
    """All symbols, each once, in the order of the request."""
    if not config.symbols:
        if config.symbol is None:
            raise ValidationError(
                "a backtest needs a symbol: give symbol, or symbols for several that share the account",
                path="$.symbol",
                expected="a symbol",
            )
        return [config.symbol]
    if len(config.symbols) > MAX_SYMBOLS:
        raise ValidationError(
            f"a backtest has up to {MAX_SYMBOLS} symbols, not {len(config.symbols)}",
            path="$.symbols",
            expected=f"up to {MAX_SYMBOLS}",
            got=len(config.symbols),
        )
    twice = [symbol for symbol, count in Counter(config.symbols).items() if count > 1]
    if twice:
        raise ValidationError(
            f"symbols names {', '.join(map(repr, twice[:5]))} more than once", path="$.symbols", expected="each once"
        )
    if config.symbol is not None and config.symbol not in config.symbols:
        raise InvalidConfiguration(
            f"symbol {config.symbol!r} is not among symbols ({', '.join(config.symbols[:20])}); give one of the two",
            paths=["$.symbol", "$.symbols"],
        )
    return config.symbols


def _check_shared_account(conventions: Conventions) -> None:
    """What has a meaning for one symbol only."""
    for name, alone in (("leverage", conventions.leverage > 1.0), ("sizeCosts", conventions.size_costs == "per_unit")):
        if alone:
            raise InvalidConfiguration(
                f"{name} as given is for a backtest of one symbol: several that share an account trade without credit, "
                "and at their own costs",
                paths=["$.symbols", f"$.options.{name}"],
            )


def _check_money(config: BacktestConfig) -> None:
    for name, value in (
        ("initialCapital", config.initial_capital),
        ("commission", config.commission),
        ("slippage", config.slippage),
    ):
        if not math.isfinite(value):
            raise ValidationError(
                f"{name} must be a finite number, not {value!r}",
                path=f"$.{name}",
                expected="a finite number",
                got=repr(value),
            )
        if name != "initialCapital" and not 0 <= value < 1:
            raise ValidationError(
                f"{name} is a fraction from 0 up to, but not including, 1 (0.001 = 0.1 %), not {value!r}",
                path=f"$.{name}",
                expected="0 <= value < 1",
                got=value,
            )
    if config.initial_capital <= 0:
        raise InvalidConfiguration(
            f"initialCapital must be above 0, not {config.initial_capital!r}",
            path="$.initialCapital",
            expected="above 0",
            got=config.initial_capital,
        )


def _check_wishes(algorithm: Algorithm, signals: Sequence[Signals], conventions: Conventions) -> None:
    """Refuse signals that the conventions cannot follow, before anything is walked."""
    order_type = conventions.order_type
    if order_type == "market":
        return
    needed = {"limit": ["limit_price"], "stop": ["stop_price"], "stop_limit": ["limit_price", "stop_price"]}[order_type]
    missing = [name for name in needed if any(getattr(one, name) is None for one in signals)]
    if any(one.target is not None for one in signals):
        said = "gives targets, which are market orders"
    elif missing:
        said = f"gives its entries no {' and no '.join(missing)}"
    else:
        return
    raise InvalidConfiguration(
        f"orderType {order_type} makes entries wait for a price, and {algorithm.name} {said}; "
        "use orderType market, or another algorithm",
        paths=["$.options.orderType", "$.algorithmId"],
    )


class Chunk(msgspec.Struct, frozen=True):
    """What happened on the bars just walked: records of `fills.ORDER` and `fills.POSITION`, in order."""

    orders: Records
    positions: Records


class Run:
    """One run of a plan: `start` it, `advance` it until `done`, `finish` it then or earlier."""

    def __init__(self, plan: Plan, backtest_id: str) -> None:
        self.plan = plan
        self.backtest_id = backtest_id
        self._walk: SymbolSimulation | SharedAccountSimulation | None = None
        self._peak = -math.inf
        self._peak_at = 0

    @property
    def bars_total(self) -> int:
        """Rows of the panel: the times at which any symbol has a bar."""
        return len(self.plan.panel)

    @property
    def bars_walked(self) -> int:
        return self._walk.bars_walked if self._walk else 0

    @property
    def done(self) -> bool:
        return self.bars_walked == self.bars_total

    def start(self) -> None:
        """Compute the signals. Raises `AlgorithmError`; `InvalidConfiguration` where they lack what an option needs."""
        algorithm, panel, parameters = self.plan.algorithm, self.plan.panel, self.plan.parameters
        if algorithm.across:
            weights = algorithm.weights(panel, parameters)
            self.start_with(*targets_of(panel, weights, fills_at_close=self._fills_at_close))
        else:
            self.start_with(*(algorithm.signals(bars, parameters) for bars in panel.series))

    def start_with(self, *signals: Signals) -> None:
        """Start with signals that were computed elsewhere: those of every symbol, one per bar."""
        config, conventions, panel = self.plan.config, self.plan.options.conventions, self.plan.panel
        _check_wishes(self.plan.algorithm, signals, conventions)
        rules = kernel_rules(conventions, commission=config.commission, slippage=config.slippage)
        if len(signals) == 1:
            self._walk = SymbolSimulation(panel.series[0], signals[0], rules, config.initial_capital)
        else:
            self._walk = SharedAccountSimulation(panel, signals, rules, config.initial_capital)

    @property
    def _fills_at_close(self) -> bool:
        return self.plan.options.conventions.fill_at == "close"

    def advance(self, max_bars: int) -> Chunk:
        """Walk up to `max_bars` more bars; starts the run if `start` has not."""
        events = self._started().advance(max_bars)
        return Chunk(events.orders, events.positions)

    def progress(self) -> BacktestProgress:
        """Where the run stands after the last bar walked. Before that: the capital, at the first bar's time."""
        walk = self._started()
        walked, capital = walk.bars_walked, self.plan.config.initial_capital
        equity = float(walk.equity[walked - 1]) if walked else capital
        last = max(walked - 1, 0)
        at = totals(walk.account)
        timestamp = int(self.plan.panel.timestamp[last]) // 1000
        return BacktestProgress(
            backtest_id=self.backtest_id,
            current_time=timestamp,
            progress_percent=100.0 * walked / self.bars_total,
            orders_executed=at.orders_filled,
            positions_opened=at.positions_opened,
            positions_closed=at.positions_closed,
            unrealized_pnl=at.unrealized,
            realized_pnl=at.realized,
            equity_curve_point=EquityCurvePoint(
                timestamp=timestamp,
                equity=equity,
                drawdown=self._drawdown(walk) if walked else 0.0,
                returns=equity / capital - 1.0,
            ),
        )

    def finish(self) -> Result:
        """The result of the bars walked, all of them or, after a stop, fewer."""
        walk = self._started()
        walked, capital, conventions = walk.bars_walked, self.plan.config.initial_capital, self.plan.options.conventions
        panel = self.plan.panel.first(walked)
        equity, events = walk.equity[:walked], walk.events()
        trades, still_open = events.trades, _open_trades(walk.account, panel)
        fill_in_excursions(trades, panel.series, fills_at_close=self._fills_at_close)
        fill_in_excursions(still_open, panel.series, fills_at_close=self._fills_at_close, still_open=True)
        metrics = None
        if walked:
            market, at = panel.market(), totals(walk.account)
            closed_at = int(panel.timestamp[-1]) + LENGTH_US[panel.timeframe]
            metrics = compute_metrics(
                Walked(capital, panel.timestamp, closed_at, market, equity, trades, at), self.plan.annualisation
            )
            if conventions.statistics == "daily_geometric":
                metrics = with_daily_statistics(
                    metrics, panel.timestamp, panel.timeframe, equity, conventions.risk_free
                )
        return Result(
            symbols=panel.symbols,
            timeframe=panel.timeframe,
            initial_capital=capital,
            timestamp=panel.timestamp,
            equity=equity,
            orders=final_states(events.orders),
            positions=events.positions,
            trades=trades,
            open_trades=still_open,
            statistics=metrics,
        )

    def _started(self) -> SymbolSimulation | SharedAccountSimulation:
        if self._walk is None:
            self.start()
        assert self._walk is not None
        return self._walk

    def _drawdown(self, walk: SymbolSimulation | SharedAccountSimulation) -> float:
        """1 − equity / running peak at the last bar walked, looking only at the bars since the last call."""
        fresh = walk.equity[self._peak_at : walk.bars_walked]
        if len(fresh):
            self._peak = max(self._peak, float(fresh.max()))
            self._peak_at = walk.bars_walked
        return 1.0 - float(walk.equity[walk.bars_walked - 1]) / self._peak if self._peak > 0 else 0.0


class Result(msgspec.Struct, frozen=True):
    """What a run came to. `timestamp` (µs UTC) and `equity` have one value per bar walked. `trades` are the closed
    ones, `open_trades` those that are open at the end, marked at the last close, one per symbol at most; `symbol` of
    records counts in `symbols`. `statistics` is None when no bar was walked."""

    symbols: tuple[str, ...]
    timeframe: Timeframe
    initial_capital: float
    timestamp: Integers
    equity: Floats
    orders: Records
    positions: Records
    trades: Records
    open_trades: Records
    statistics: Metrics | None

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics as they travel: camelCase names, None for what is undefined, and `undefined` with the reasons."""
        return self.statistics.to_wire() if self.statistics else {"undefined": {"finalEquity": "no bar was walked"}}

    def frame(self, table: str) -> pl.DataFrame:
        """One of the tables `equity`, `orders`, `trades`, `positions`."""
        match table:
            case "equity":
                return equity_frame(self.timestamp, self.equity, self.initial_capital)
            case "orders":
                return orders_frame(self.orders, self.symbols)
            case "trades":
                return trades_frame(self.trades, self.open_trades, self.symbols)
            case "positions":
                return positions_frame(self.positions, self.symbols)
        raise ValueError(f"a result has no table {table!r}")


def _open_trades(account: Records, panel: Panel) -> Records:
    """The trades that are open after the last row, marked at their latest close."""
    held = account[account["quantity"] != 0.0] if len(panel) else account[:0]
    trades = np.zeros(len(held), dtype=TRADE)
    quantity, entry_price, close = held["quantity"], held["average_price"], held["mark"]
    trades["position_id"] = held["position_id"]
    trades["symbol"] = held["symbol"]
    trades["entry_time"] = held["entry_time"]
    trades["exit_time"] = panel.timestamp[-1] if len(held) else 0
    trades["quantity"] = np.abs(quantity)
    trades["entry_price"] = entry_price
    trades["exit_price"] = close
    trades["fees"] = held["entry_fees"]
    trades["pnl"] = quantity * (close - entry_price) - held["entry_fees"]
    trades["return"] = trades["pnl"] / (entry_price * np.abs(quantity))
    trades["side"] = np.where(quantity > 0, BUY, SELL)
    return trades
