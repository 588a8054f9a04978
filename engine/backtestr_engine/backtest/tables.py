"""The records of a backtest as polars tables, and tables as Arrow bytes; the column names are those of the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO, Literal, NamedTuple, cast

import numpy as np
import polars as pl

from backtestr_engine.data.arrays import AnyArray, Floats, Integers, Records
from backtestr_engine.simulation.records import ORDER_TYPES, REASONS, SIDES, STATUSES, TRADE
from backtestr_protocol.messages import TableRef

from .order_links import NONE, WITHOUT_SIGNAL, links_of

TIME = pl.Datetime("us", "UTC")
# The bars that are computed at a time: their arrays stay in the processor's cache, and take no fresh memory.
_BLOCK = 1 << 14

DrawdownFrom = Literal["capital", "first_close"]
"""The convention `drawdown_from`."""


def equity_frame(
    timestamp: Integers, equity: Floats, initial_capital: float, drawdown_from: DrawdownFrom
) -> pl.DataFrame:
    """Return `timestamp equity drawdown returns`, a row per bar.

    The values are money at the close, 1 − equity / running peak, and equity / initial capital − 1, exactly as
    `EquityCurvePoint` streams them.
    """
    drawdown, returns = np.empty_like(equity), np.empty_like(equity)
    highest = initial_capital if drawdown_from == "capital" else -np.inf
    for first in range(0, len(equity), _BLOCK):
        block = slice(first, first + _BLOCK)
        peak = np.maximum(np.maximum.accumulate(equity[block]), highest)
        highest = peak[-1]
        ratio = drawdown[block]
        ratio.fill(1.0)
        np.divide(equity[block], peak, out=ratio, where=peak > 0)
        np.subtract(1.0, ratio, out=ratio)
        np.divide(equity[block], initial_capital, out=returns[block])
        returns[block] -= 1.0
    return pl.DataFrame({"timestamp": _times(timestamp), "equity": equity, "drawdown": drawdown, "returns": returns})


class OrderLinks(NamedTuple):
    """The order that made each change of a position, and the time of the signal of each order (`order_links.py`)."""

    changed_by: Integers
    signal_times: Integers


def orders_frame(
    orders: Records, symbols: Sequence[str], positions: Records | None = None, links: OrderLinks | None = None
) -> pl.DataFrame:
    """Return a row per order; the fill of a rejected order is null.

    The columns are `order_id timestamp symbol side order_type quantity price status fill_price fill_quantity fee
    reason position_id signal_time`. The last two are null for an order without a position or a signal, and in results
    of versions that did not have them.
    """
    position_ids, signals = np.zeros(len(orders), dtype=np.int64), np.full(len(orders), NONE)
    if links is not None and positions is not None:
        none = np.zeros(0, dtype=TRADE)
        position_ids = links_of(positions, links.changed_by, none, none, len(orders)).positions
        signals = links.signal_times
    filled = orders["status"] == STATUSES.index("filled")
    return pl.DataFrame(
        {
            "order_id": _ids(orders, "order_id"),
            "timestamp": _times(_column(orders, "timestamp")),
            "symbol": _symbols(orders, symbols),
            "side": _sides(orders),
            "order_type": _names(orders["order_type"], ORDER_TYPES),
            "quantity": _column(orders, "quantity"),
            "price": _column(orders, "price"),
            "status": _names(orders["status"], STATUSES),
            "fill_price": _where(filled, _column(orders, "fill_price")),
            "fill_quantity": _where(filled, _column(orders, "fill_quantity")),
            "fee": _column(orders, "fee"),
            "reason": _names(orders["reason"], (None, *REASONS[1:])),
            "position_id": _known_ids(position_ids),
            "signal_time": _known_times(signals),
        }
    )


def trades_frame(
    closed: Records,
    still_open: Records,
    symbols: Sequence[str],
    records: tuple[Records, Records] | None = None,
    links: OrderLinks | None = None,
) -> pl.DataFrame:
    """Return a row per trade; an open trade is marked at the last close, without the fee of an exit.

    The columns are `position_id symbol entry_time exit_time side quantity entry_price exit_price pnl return fees mae
    mfe status exit_reason entry_order_id exit_order_id entry_signal_time exit_signal_time`. The last five need
    `records`, the orders and the changes of positions, and are null in results of versions that did not have `links`.
    `exit_reason` is that of the exit's order, or `signal`.
    """
    trades = np.concatenate([closed, still_open])
    entries = exits = np.zeros(len(trades), dtype=np.int64)
    signals, reasons = np.full(1, NONE), np.zeros(1, dtype=np.int64)
    if links is not None and records is not None:
        orders, positions = records
        entries, exits, _ = links_of(positions, links.changed_by, closed, still_open, len(orders))
        signals = np.concatenate((signals, links.signal_times))
        reasons = np.concatenate((reasons, np.where(_by_signal(orders), len(REASONS), orders["reason"])))
    status = np.zeros(len(trades), dtype=np.int8)
    status[len(closed) :] = 1
    return pl.DataFrame(
        {
            "position_id": _ids(trades, "position_id"),
            "symbol": _symbols(trades, symbols),
            "entry_time": _times(_column(trades, "entry_time")),
            "exit_time": _times(_column(trades, "exit_time")),
            "side": _sides(trades),
            **{
                name: _column(trades, name)
                for name in ("quantity", "entry_price", "exit_price", "pnl", "return", "fees", "mae", "mfe")
            },
            "status": _names(status, ("closed", "open")),
            "exit_reason": _names(reasons[exits], (None, *REASONS[1:], "signal")),
            "entry_order_id": _known_ids(entries),
            "exit_order_id": _known_ids(exits),
            "entry_signal_time": _known_times(signals[entries]),
            "exit_signal_time": _known_times(signals[exits]),
        }
    )


def positions_frame(positions: Records, symbols: Sequence[str]) -> pl.DataFrame:
    """Return a row per change of a position.

    The columns are `position_id timestamp symbol quantity average_price current_price unrealized_pnl realized_pnl`.
    """
    return pl.DataFrame(
        {
            "position_id": _ids(positions, "position_id"),
            "timestamp": _times(_column(positions, "timestamp")),
            "symbol": _symbols(positions, symbols),
            **{name: _column(positions, name) for name in ("quantity", "average_price", "current_price")},
            "unrealized_pnl": _column(positions, "unrealized"),
            "realized_pnl": _column(positions, "realized"),
        }
    )


def arrow_stream(frame: pl.DataFrame) -> bytes:
    """Return an Arrow IPC stream, uncompressed inside, with plain strings that every Arrow reader knows."""
    parts = _Parts()
    frame.write_ipc_stream(cast(IO[bytes], parts), compression="uncompressed", compat_level=pl.CompatLevel.oldest())
    return b"".join(parts)


class _Parts(list[bytes]):
    """A file to write to that keeps its pieces.

    BytesIO moves everything when it grows and shrinks, into pages that the system has to clear first: three times the
    cost of the rest (measured on 12 MB).
    """

    def write(self, part: bytes) -> int:
        self.append(part)
        return len(part)

    def flush(self) -> None:
        pass


class Table(NamedTuple):
    """A table of an answer, which is made only if it is needed: `key` says which one it is, if it may be kept."""

    name: str
    make: Callable[[], pl.DataFrame]
    key: str | None = None


HandOver = Callable[[Sequence[Table]], tuple[list[TableRef], list[bytes]]]
"""Returns the references to tables, and their attachments."""


def attach_all(tables: Sequence[Table]) -> tuple[list[TableRef], list[bytes]]:
    """Return every table as an attachment."""
    return attach([(one.name, one.make()) for one in tables])


def attach(frames: Sequence[tuple[str, pl.DataFrame]]) -> tuple[list[TableRef], list[bytes]]:
    """Return tables as attachments: the references to them, and their bytes, in the same order."""
    references = [
        TableRef(name=name, frame=index, format="arrow-ipc-stream", rows=frame.height)
        for index, (name, frame) in enumerate(frames)
    ]
    return references, [arrow_stream(frame) for _, frame in frames]


def _column(records: Records, name: str) -> np.ndarray:
    return np.ascontiguousarray(records[name])


def _ids(records: Records, name: str) -> pl.Series:
    """Return ids as text, as in the streams."""
    return pl.Series(_column(records, name)).cast(pl.String)


def _known_ids(ids: Integers) -> pl.Series:
    """Return ids as text, null in place of 0."""
    return _where(ids != 0, ids).cast(pl.String)


def _known_times(times: Integers) -> pl.Series:
    return _where(times != NONE, times).cast(TIME)


def _by_signal(orders: Records) -> np.ndarray:
    return ~np.isin(orders["reason"], WITHOUT_SIGNAL)


def _times(timestamp: Integers) -> pl.Series:
    return pl.Series(timestamp).cast(TIME)


def _symbols(records: Records, symbols: Sequence[str]) -> pl.Series:
    if len(symbols) == 1:
        return pl.Series(list(symbols), dtype=pl.String).new_from_index(0, len(records))
    return _names(records["symbol"], symbols)


def _names(index: np.ndarray, names: Sequence[str | None]) -> pl.Series:
    # Taken by an index in brackets: `gather` makes a query of it, which costs ten times as much for a short table.
    return pl.Series(names, dtype=pl.String)[pl.Series(index.astype(np.uint32))]


def _sides(records: Records) -> pl.Series:
    return _names(records["side"] < 0, (SIDES[1], SIDES[-1]))


def _where(present: np.ndarray, values: AnyArray) -> pl.Series:
    return pl.Series(values).set(pl.Series(~present), None)
