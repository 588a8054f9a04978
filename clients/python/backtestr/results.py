"""What a backtest came to: its metrics, and its tables as polars frames made of the answer's attachments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import polars as pl

from backtestr_protocol.errors import SerializationError
from backtestr_protocol.messages import BacktestResults, BacktestState, GetBacktestResults, TableName, TableRef

from .metrics import Metrics, metrics_from_wire
from .requester import BULK_TIMEOUT, Requester

ALL_TABLES: tuple[TableName, ...] = ("equity", "trades", "orders", "positions")


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """One backtest: what was asked for (`config`, every option with its value) and what came of it.

    `metrics` is None, and there are no tables, until the backtest has ended; a stopped one has those of the bars it
    walked. Times are `Datetime("us", "UTC")` columns.
    """

    backtest_id: str
    status: BacktestState
    config: dict[str, Any]
    metrics: Metrics | None
    tables: dict[str, pl.DataFrame]

    @property
    def equity(self) -> pl.DataFrame:
        """`timestamp equity drawdown returns …`, a row per bar."""
        return self._table("equity")

    @property
    def trades(self) -> pl.DataFrame:
        """`entry_time exit_time side quantity entry_price exit_price pnl return fees …`, a row per trade."""
        return self._table("trades")

    @property
    def orders(self) -> pl.DataFrame:
        """`order_id timestamp symbol side order_type quantity price status fill_price fill_quantity fee reason …`."""
        return self._table("orders")

    @property
    def positions(self) -> pl.DataFrame:
        """`position_id … quantity average_price current_price unrealized_pnl realized_pnl timestamp`."""
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
    ask: Requester, backtest_id: str, tables: Iterable[TableName] = ALL_TABLES, timeout: float = BULK_TIMEOUT
) -> Results:
    """Ask for the results of a backtest with these tables. Raises `NotFound`."""
    request = GetBacktestResults(backtest_id=backtest_id, tables=list(tables))
    return results_from_wire(*ask.with_attachments("GetBacktestResults", request, BacktestResults, timeout))


def results_from_wire(answer: BacktestResults, attachments: Sequence[bytes]) -> Results:
    """The typed form of an answer to `GetBacktestResults`. Raises `MessageError` for one that contradicts itself."""
    return Results(
        backtest_id=answer.backtest_id,
        status=answer.status,
        config=answer.config,
        metrics=None if answer.metrics is None else metrics_from_wire(answer.metrics),
        tables={ref.name: read_table(ref, attachments) for ref in answer.tables},
    )


def read_table(ref: TableRef, attachments: Sequence[bytes]) -> pl.DataFrame:
    """The table that `ref` points to. Raises `SerializationError` when it is not there or not what `ref` says."""
    if not 0 <= ref.frame < len(attachments):
        raise SerializationError(f"table {ref.name} is in attachment {ref.frame}; {len(attachments)} came")
    try:
        frame = pl.read_ipc_stream(attachments[ref.frame])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SerializationError(f"table {ref.name} is no Arrow IPC stream: {error}") from error
    if frame.height != ref.rows:
        raise SerializationError(f"table {ref.name} has {frame.height} rows; {ref.rows} were announced")
    return frame
