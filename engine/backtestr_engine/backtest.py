"""A backtest: everything that can be refused before it runs (`prepare`), and the run itself (`Run`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import polars as pl

from backtestr_protocol.errors import InvalidConfiguration, ValidationError
from backtestr_protocol.messages import BacktestConfig, BacktestProgress, EquityCurvePoint, Timeframe

from .account import rules
from .algorithm import Algorithm
from .algorithms import BUILT_IN, find_algorithm
from .arrays import Floats, Integers, Records
from .bars import Bars
from .catalog import Catalog
from .daily import with_daily_statistics
from .fills import BUY, SELL, TRADE, final_states
from .instants import parse_instant
from .metrics import Annualisation, Metrics, Walked, annualisation, compute_metrics
from .options import Conventions, Options, resolve_options
from .parameters import Value
from .signals import Signals
from .tables import equity_frame, orders_frame, positions_frame, trades_frame
from .timeframes import parse_timeframe
from .walk import Walk


class Plan(msgspec.Struct, frozen=True):
    """A backtest that nothing stands against: all names found, all values checked, the bars at hand."""

    config: BacktestConfig
    algorithm: Algorithm
    parameters: dict[str, Value]
    options: Options
    bars: Bars

    @property
    def annualisation(self) -> Annualisation:
        conventions = self.options.conventions
        return annualisation(self.bars.timeframe, conventions.calendar, conventions.risk_free)

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
    algorithms: Mapping[str, Algorithm] = BUILT_IN,
) -> Plan:
    """Check all of `config` against what there is, without running the algorithm. `conventions` are the defaults.

    Raises `NotFound` (algorithm), `ValidationError` (a value ill-typed or out of range; a name of parameter, option or
    timeframe that does not exist), `InvalidConfiguration` (values that contradict each other, capital ≤ 0) and
    `DataError` (symbol, or a range without bars).
    """
    algorithm = find_algorithm(config.algorithm_id, algorithms)
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
    bars = catalog.load(config.symbol, timeframe, start, end)
    return Plan(config, algorithm, parameters, options, bars)


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


class Chunk(msgspec.Struct, frozen=True):
    """What happened on the bars just walked: records of `fills.ORDER` and `fills.POSITION`, in order."""

    orders: Records
    positions: Records


class Run:
    """One run of a plan: `start` it, `advance` it until `done`, `finish` it then or earlier."""

    def __init__(self, plan: Plan, backtest_id: str) -> None:
        self.plan = plan
        self.backtest_id = backtest_id
        self._walk: Walk | None = None
        self._peak = -math.inf
        self._peak_at = 0

    @property
    def bars_total(self) -> int:
        return len(self.plan.bars)

    @property
    def bars_walked(self) -> int:
        return self._walk.bars_walked if self._walk else 0

    @property
    def done(self) -> bool:
        return self.bars_walked == self.bars_total

    def start(self) -> None:
        """Compute the signals. Raises `AlgorithmError`."""
        self.start_with(self.plan.algorithm.signals(self.plan.bars, self.plan.parameters))

    def start_with(self, signals: Signals) -> None:
        """Start with signals that were computed elsewhere, one per bar."""
        config = self.plan.config
        kernel_rules = rules(self.plan.options.conventions, commission=config.commission, slippage=config.slippage)
        self._walk = Walk(self.plan.bars, signals, kernel_rules, config.initial_capital)

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
        account = walk.account[0]
        timestamp = int(self.plan.bars.timestamp[last]) // 1000
        unrealized = float(account["quantity"]) * (float(self.plan.bars.close[last]) - float(account["average_price"]))
        return BacktestProgress(
            backtest_id=self.backtest_id,
            current_time=timestamp,
            progress_percent=100.0 * walked / self.bars_total,
            orders_executed=int(account["orders_filled"]),
            positions_opened=int(account["positions_opened"]),
            positions_closed=int(account["positions_closed"]),
            unrealized_pnl=unrealized,
            realized_pnl=float(account["realized"]),
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
        walked, account = walk.bars_walked, walk.account[0]
        bars = self.plan.bars[:walked]
        events = walk.events()
        metrics = None
        if walked:
            metrics = compute_metrics(
                Walked(
                    initial_capital=self.plan.config.initial_capital,
                    bars=bars,
                    equity=walk.equity[:walked],
                    trades=events.trades,
                    account=account,
                    fills_at_close=self.plan.options.conventions.fill_at == "close",
                ),
                self.plan.annualisation,
            )
        conventions = self.plan.options.conventions
        if metrics and conventions.statistics == "daily_geometric":
            metrics = with_daily_statistics(metrics, bars, walk.equity[:walked], conventions.risk_free)
        return Result(
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            initial_capital=self.plan.config.initial_capital,
            timestamp=bars.timestamp,
            equity=walk.equity[:walked],
            orders=final_states(events.orders),
            positions=events.positions,
            trades=events.trades,
            open_trades=_open_trades(account, bars),
            statistics=metrics,
        )

    def _started(self) -> Walk:
        if self._walk is None:
            self.start()
        assert self._walk is not None
        return self._walk

    def _drawdown(self, walk: Walk) -> float:
        """1 − equity / running peak at the last bar walked, looking only at the bars since the last call."""
        fresh = walk.equity[self._peak_at : walk.bars_walked]
        if len(fresh):
            self._peak = max(self._peak, float(fresh.max()))
            self._peak_at = walk.bars_walked
        return 1.0 - float(walk.equity[walk.bars_walked - 1]) / self._peak if self._peak > 0 else 0.0


class Result(msgspec.Struct, frozen=True):
    """What a run came to. `timestamp` (µs UTC) and `equity` have one value per bar walked. `trades` are the closed
    ones, `open_trades` the one (or none) that is open at the end, marked at the last close. `statistics` is None when
    no bar was walked."""

    symbol: str
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
                return orders_frame(self.orders, self.symbol)
            case "trades":
                return trades_frame(self.trades, self.open_trades, self.symbol)
            case "positions":
                return positions_frame(self.positions, self.symbol)
        raise ValueError(f"a result has no table {table!r}")


def _open_trades(account: Any, bars: Bars) -> Records:
    """The trade that is open after the last bar, marked at its close, or nothing."""
    quantity = float(account["quantity"])
    trade = np.zeros(1 if quantity and len(bars) else 0, dtype=TRADE)
    if len(trade):
        entry_price, fees, close = float(account["average_price"]), float(account["entry_fees"]), bars.close[-1]
        trade["position_id"] = account["positions_opened"]
        trade["entry_time"] = account["entry_time"]
        trade["exit_time"] = bars.timestamp[-1]
        trade["quantity"] = abs(quantity)
        trade["entry_price"] = entry_price
        trade["exit_price"] = close
        trade["fees"] = fees
        trade["pnl"] = quantity * (close - entry_price) - fees
        trade["return"] = trade["pnl"] / (entry_price * abs(quantity))
        trade["side"] = BUY if quantity > 0 else SELL
    return trade
