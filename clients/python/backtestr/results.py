"""Results of a backtest: its metrics, and its tables as polars DataFrames made of the answer's attachments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import polars as pl

from backtestr_protocol.messages import BacktestResults, BacktestState, GetBacktestResults, TableName
from backtestr_protocol.metrics import Metrics

from .requester import BULK_TIMEOUT, Requester
from .summary import summary
from .tables import fetch_tables, read_table

ALL_TABLES: tuple[TableName, ...] = ("equity", "trades", "orders", "positions")


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one backtest: its configuration (`config`, every option with its value), metrics and tables.

    `metrics` is None, and there are no tables, until the backtest has ended; a stopped one has those of the bars that
    were simulated. Times are `Datetime("us", "UTC")` columns. `warmup_bars` is the number of bars before the first one
    that the algorithm saw; of several symbols, the fewest. `trial_group` names the trials that the backtest counts
    among: `client.trials(group=…)`.
    """

    backtest_id: str
    status: BacktestState
    config: dict[str, Any]
    metrics: Metrics | None
    tables: dict[str, pl.DataFrame]
    warmup_bars: int = 0
    trial_group: str | None = None

    def __repr__(self) -> str:
        """Return a summary of one screen: what was run, warnings and the main figures."""
        return summary(self.backtest_id, self.status, self.config, self.metrics, self.warmup_bars)

    @property
    def warnings(self) -> list[str]:
        """The sentences that a reader of the figures must know, such as that orders were rejected, and why."""
        return [] if self.metrics is None else self.metrics.warnings

    @property
    def equity(self) -> pl.DataFrame:
        """The table `timestamp equity drawdown returns …`, a row per bar."""
        return self._table("equity")

    @property
    def trades(self) -> pl.DataFrame:
        """The table of trades, a row per trade.

        Its columns are `entry_time exit_time side quantity entry_price exit_price pnl return fees exit_reason
        entry_order_id exit_order_id entry_signal_time exit_signal_time …`.
        """
        return self._table("trades")

    @property
    def orders(self) -> pl.DataFrame:
        """The table of orders, a row per order.

        Its columns are `order_id timestamp symbol side order_type quantity price status fill_price fill_quantity fee
        reason position_id signal_time …`.
        """
        return self._table("orders")

    @property
    def positions(self) -> pl.DataFrame:
        """The table `position_id … quantity average_price current_price unrealized_pnl realized_pnl timestamp`."""
        return self._table("positions")

    def _table(self, name: TableName) -> pl.DataFrame:
        try:
            return self.tables[name]
        except KeyError:
            raise LookupError(
                f"there is no table {name!r} here: the backtest is {self.status}"
                + (f"; asked for were {', '.join(self.tables)}" if self.tables else "")
            ) from None


def fetch_results(
    ask: Requester,
    backtest_id: str,
    tables: Iterable[TableName] = ALL_TABLES,
    timeout: float = BULK_TIMEOUT,
    wait: float = 0.0,
) -> Results:
    """Ask for the results of a backtest with these tables. Raises `NotFound`.

    If it is being computed, the answer waits for its end up to `wait` seconds.
    """
    request = GetBacktestResults(backtest_id=backtest_id, tables=list(tables), wait_ms=round(1000 * wait))
    return _results(*fetch_tables(ask, request, BacktestResults, timeout))


def results_from_wire(answer: BacktestResults, attachments: Sequence[bytes]) -> Results:
    """Return the typed form of an answer to `GetBacktestResults`. Raises `MessageError` for a contradictory answer."""
    return _results(answer, [read_table(ref, attachments) for ref in answer.tables])


def _results(answer: BacktestResults, frames: Sequence[pl.DataFrame]) -> Results:
    return Results(
        backtest_id=answer.backtest_id,
        status=answer.status,
        config=answer.config,
        metrics=None if answer.metrics is None else answer.metrics.with_absent_as_none(),
        tables={ref.name: frame for ref, frame in zip(answer.tables, frames, strict=True)},
        warmup_bars=answer.warmup_bars,
        trial_group=answer.trial_group,
    )
