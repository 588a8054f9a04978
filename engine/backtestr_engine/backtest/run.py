"""A running backtest, simulated in chunks, and its result."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import polars as pl

from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.data.arrays import Floats, Integers, Records
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.timeframes import close_time
from backtestr_engine.metrics.daily_statistics import with_daily_statistics
from backtestr_engine.metrics.excursions import fill_in_excursions
from backtestr_engine.metrics.geometric_figures import with_geometric_figures
from backtestr_engine.metrics.metrics import Simulated, compute_metrics
from backtestr_engine.simulation.account import kernel_rules, marked_positions, totals
from backtestr_engine.simulation.records import (
    BUY,
    ORDER,
    POSITION,
    SELL,
    TRADE,
    Events,
    final_states,
    rejections,
)
from backtestr_engine.simulation.shared_account_loop import SharedAccountSimulation
from backtestr_engine.simulation.symbol_loop import SymbolSimulation
from backtestr_protocol.messages import LookAhead, Timeframe
from backtestr_protocol.metrics import WIRE_NAMES, Metrics
from backtestr_protocol.stream_messages import BacktestProgress, EquityCurvePoint

from .evaluation import signals_of
from .order_links import orders_of_changes, signal_times
from .order_warnings import order_warnings
from .plan import Plan, check_signals
from .result_warnings import result_warnings
from .tables import DrawdownFrom, OrderLinks, equity_frame, orders_frame, positions_frame, trades_frame


class Run:
    """The simulation of a plan: `start` it, `advance` it until `done`, `finish` it then or earlier."""

    def __init__(self, plan: Plan, backtest_id: str, look_ahead: LookAhead | None = None) -> None:
        """Take a plan, and the verdict of the look-ahead check on its algorithm; the result warns of a failed one."""
        self.plan = plan
        self.look_ahead = look_ahead
        self.backtest_id = backtest_id
        self.signals: tuple[Signals, ...] = ()  # of every symbol, once the run has started
        self._simulation: SymbolSimulation | SharedAccountSimulation | None = None
        capital = plan.options.conventions.drawdown_from == "capital"
        self._peak = plan.config.initial_capital if capital else -math.inf
        self._peak_at = 0

    @property
    def bars_total(self) -> int:
        """Rows of the panel: the times at which any symbol has a bar."""
        return len(self.plan.panel)

    @property
    def bars_simulated(self) -> int:
        return self._simulation.bars_simulated if self._simulation else 0

    @property
    def done(self) -> bool:
        return self.bars_simulated == self.bars_total

    @property
    def events(self) -> Events:
        """The events of all bars that were simulated."""
        if self._simulation is None:
            return Events(np.zeros(0, dtype=ORDER), np.zeros(0, dtype=POSITION), np.zeros(0, dtype=TRADE))
        return self._simulation.events()

    def start(self) -> None:
        """Compute the signals. Raises `AlgorithmError`; `InvalidConfiguration` where they lack what an option needs."""
        self.start_with(*signals_of(self.plan))

    def start_with(self, *signals: Signals) -> None:
        """Start with signals that were computed elsewhere: those of every symbol, one per bar."""
        config, conventions, panel = self.plan.config, self.plan.options.conventions, self.plan.panel
        check_signals(self.plan.algorithm, signals, conventions)
        rules = kernel_rules(conventions, commission=config.commission, slippage=config.slippage)
        self.signals = tuple(map(_kept, signals))
        if len(signals) == 1:
            self._simulation = SymbolSimulation(panel.series[0], signals[0], rules, config.initial_capital)
        else:
            self._simulation = SharedAccountSimulation(panel, signals, rules, config.initial_capital)

    @property
    def started(self) -> bool:
        """True once the algorithm has given its signals."""
        return self._simulation is not None

    @property
    def simulation(self) -> SymbolSimulation | SharedAccountSimulation:
        """The simulation of the run, which it starts if `start` has not."""
        return self._started()

    @property
    def _fills_at_close(self) -> bool:
        return self.plan.options.conventions.fill_at == "close"

    def advance(self, max_bars: int) -> Events:
        """Simulate up to `max_bars` more bars, and return what happened on them. Starts the run if `start` has not."""
        return self._started().advance(max_bars)

    def progress(self) -> BacktestProgress:
        """Return the progress after the last simulated bar; before the first bar it is the capital."""
        simulation = self._started()
        simulated, capital = simulation.bars_simulated, self.plan.config.initial_capital
        equity = float(simulation.equity[simulated - 1]) if simulated else capital
        last = max(simulated - 1, 0)
        at = totals(simulation.account)
        timestamp = int(self.plan.panel.timestamp[last]) // 1000
        return BacktestProgress(
            backtest_id=self.backtest_id,
            current_time=timestamp,
            progress_percent=100.0 * simulated / self.bars_total,
            orders_executed=at.orders_filled,
            positions_opened=at.positions_opened,
            positions_closed=at.positions_closed,
            unrealized_pnl=at.unrealized,
            realized_pnl=at.realized,
            equity_curve_point=EquityCurvePoint(
                timestamp=timestamp,
                equity=equity,
                drawdown=self._drawdown(simulation) if simulated else 0.0,
                returns=equity / capital - 1.0,
            ),
        )

    def marks(self) -> Records:
        """Return the open positions, one `POSITION` each, at the close of their latest bars.

        Their times are that of the last simulated bar, as in `progress`.
        """
        simulation = self._started()
        last = max(simulation.bars_simulated - 1, 0)
        return marked_positions(simulation.account, int(self.plan.panel.timestamp[last]))

    def recorded(self) -> RecordedRun:
        """Return what the simulation has recorded of the simulated bars: all bars or, after a stop, fewer."""
        simulation = self._started()
        simulated = simulation.bars_simulated
        panel, events = self.plan.panel.first(simulated), simulation.events()
        orders, trades, still_open = final_states(events.orders), events.trades, _open_trades(simulation.account, panel)
        fill_in_excursions(trades, panel.series, fills_at_close=self._fills_at_close)
        fill_in_excursions(still_open, panel.series, fills_at_close=self._fills_at_close, still_open=True)
        warm_up = self.plan.warm_up
        return RecordedRun(
            symbols=panel.symbols,
            timeframe=panel.timeframe,
            initial_capital=self.plan.config.initial_capital,
            timestamp=panel.timestamp,
            equity=simulation.equity[:simulated],
            orders=orders,
            positions=events.positions,
            trades=trades,
            open_trades=still_open,
            drawdown_from=self.plan.options.conventions.drawdown_from,
            warmup_bars=0 if warm_up is None else warm_up.fewest,
            order_states=None if orders is events.orders else events.orders,
            links=OrderLinks(
                orders_of_changes(events.orders, events.positions),
                signal_times(events.orders, panel, fills_at_close=self._fills_at_close),
            ),
        )

    def finish(self, recorded: RecordedRun | None = None) -> Result:
        """Return the result of the simulated bars; `recorded` is what `recorded` gave for them, if it was asked."""
        recorded = recorded or self.recorded()
        fields = {name: getattr(recorded, name) for name in recorded.__struct_fields__}
        return Result(**fields, metrics=self._metrics(recorded))

    def _metrics(self, recorded: RecordedRun) -> Metrics:
        conventions, equity = self.plan.options.conventions, recorded.equity
        panel = self.plan.panel.first(len(equity))
        metrics = Metrics(reasons={WIRE_NAMES["final_equity"]: "no bar was simulated"})
        if len(equity):
            rule, stated = self.plan.annualised()
            measured = Simulated(
                initial_capital=recorded.initial_capital,
                timestamp=panel.timestamp,
                closed_at=close_time(int(panel.timestamp[-1]), panel.timeframe),
                market=panel.market(),
                equity=equity,
                trades=recorded.trades,
                totals=totals(self._started().account),
                drawdown_from=conventions.drawdown_from,
                rejected_orders=rejections(recorded.orders),
            )
            metrics = compute_metrics(measured, rule)
            if conventions.statistics == "daily_geometric":
                metrics = with_daily_statistics(
                    metrics, panel.timestamp, panel.timeframe, equity, conventions.risk_free, panel.zone
                )
                metrics = with_geometric_figures(metrics, measured, conventions.risk_free)
            metrics = msgspec.structs.replace(metrics, annualisation=stated)
        metrics = metrics.with_warnings(result_warnings(self.plan, self.look_ahead))
        if len(equity):
            metrics = metrics.with_warnings(order_warnings(recorded.orders, float(equity[-1])))
        return metrics

    def _started(self) -> SymbolSimulation | SharedAccountSimulation:
        if self._simulation is None:
            self.start()
        assert self._simulation is not None
        return self._simulation

    def _drawdown(self, simulation: SymbolSimulation | SharedAccountSimulation) -> float:
        """Return 1 − equity / running peak at the last simulated bar, reading only the bars since the last call."""
        fresh = simulation.equity[self._peak_at : simulation.bars_simulated]
        if len(fresh):
            self._peak = max(self._peak, float(fresh.max()))
            self._peak_at = simulation.bars_simulated
        return 1.0 - float(simulation.equity[simulation.bars_simulated - 1]) / self._peak if self._peak > 0 else 0.0


class RecordedRun(msgspec.Struct, frozen=True, kw_only=True):
    """The records of a simulation: all of a backtest's result but the figures.

    `timestamp` (µs UTC) and `equity` have one value per simulated bar. `trades` are the closed trades, `open_trades`
    those that are open at the end, marked at the last close, at most one per symbol; `symbol` of records is an index
    into `symbols`. `warmup_bars` is the number of bars before the first one that the algorithm saw; of several symbols,
    the fewest. `order_states` has every state of every order, where `orders`, which has the last of each, leaves any
    out.
    """

    symbols: tuple[str, ...]
    timeframe: Timeframe
    initial_capital: float
    timestamp: Integers
    equity: Floats
    orders: Records
    positions: Records
    trades: Records
    open_trades: Records
    drawdown_from: DrawdownFrom = "capital"
    warmup_bars: int = 0
    links: OrderLinks | None = None
    order_states: Records | None = None

    def frame(self, table: str) -> pl.DataFrame:
        """Return one of the tables `equity`, `orders`, `trades`, `positions`."""
        match table:
            case "equity":
                return equity_frame(self.timestamp, self.equity, self.initial_capital, self.drawdown_from)
            case "orders":
                return orders_frame(self.orders, self.symbols, self.positions, self.links)
            case "trades":
                records = (self.orders, self.positions)
                return trades_frame(self.trades, self.open_trades, self.symbols, records, self.links)
            case "positions":
                return positions_frame(self.positions, self.symbols)
        raise ValueError(f"a result has no table {table!r}")


class Result(RecordedRun, frozen=True, kw_only=True):
    """The result of a backtest. Without a bar, `metrics` has a reason and no figure."""

    metrics: Metrics


def _kept(signals: Signals) -> Signals:
    """Return signals without series that are only shown, which do not change if the algorithm writes to its arrays."""
    names = ("stop_loss", "take_profit", "trailing_stop", "limit_price", "stop_price")
    copies = {name: values.copy() for name in names if (values := getattr(signals, name)) is not None}
    return msgspec.structs.replace(signals, shown={}, **copies)


def _open_trades(account: Records, panel: Panel) -> Records:
    """Return the trades that are open after the last row, marked at their latest close."""
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
