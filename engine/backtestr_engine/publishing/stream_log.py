"""The log of a backtest's streams: what was published and is no record of an order or of a change of a position.

Orders and changes of positions are records that a backtest keeps and stores anyway. Progress and marks to market follow
the clock; this log keeps them, and the place of the marks among the changes. So message number n of each topic can be
made again, bit for bit, at any time.

    log.add(bars, progress, changes, marks)     # as they are published
    log.positions(changes, first, stop)         # the records of these messages of the positions' topic
    log.progress(backtest_id, first, stop)      # these messages of the progress' topic
    to_bytes(log), from_bytes(content)          # in a result
    to_bytes(log, done), from_bytes(*parts)     # in a checkpoint: what came behind so many messages of progress

A mark is 16 bytes: the change that made its position what it is, and the price. The rest follows from them.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from backtestr_engine.data.arrays import Booleans, Integers, Records
from backtestr_engine.simulation.records import POSITION
from backtestr_protocol.codec import encode
from backtestr_protocol.stream_messages import BacktestProgress, EquityCurvePoint

# Bytes of one log. Once half is used, progress is made only as fast as the backtest advances: the rest lasts to its
# end. A backtest that waits for its pace, with progress 20 times a second and one position, comes there in 3.9 hours.
MAX_BYTES = 64 << 20

PROGRESS = np.dtype(
    [
        ("bars", "<i8"),  # that were simulated
        ("changes", "<i8"),  # of positions until then
        ("marks", "<i8"),  # until then, with those that come with this progress
        ("time", "<i8"),  # ms UTC
        ("percent", "<f8"),
        ("orders_executed", "<i8"),
        ("positions_opened", "<i8"),
        ("positions_closed", "<i8"),
        ("unrealized", "<f8"),
        ("realized", "<f8"),
        ("equity", "<f8"),
        ("drawdown", "<f8"),
        ("returns", "<f8"),
    ]
)
MARK = np.dtype([("change", "<i8"), ("price", "<f8")])
_FEWEST = 16


class _Grown:
    """An array that grows at its end; twice its length is taken when it is full."""

    def __init__(self, kind: np.dtype[Any], content: Records | None = None) -> None:
        self._rows = np.zeros(_FEWEST, dtype=kind) if content is None else content.copy()
        self._count = 0 if content is None else len(content)

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> Records:
        return self._rows[: self._count]

    def space(self, count: int) -> Records:
        """Return `count` further rows, to be filled in."""
        first, self._count = self._count, self._count + count
        if self._count > len(self._rows):
            larger = np.zeros(max(_FEWEST, 2 * self._count), dtype=self._rows.dtype)
            larger[:first] = self._rows[:first]
            self._rows = larger
        return self._rows[first : self._count]


class StreamLog:
    """The progress and the marks of one backtest, and the topics that it has messages of."""

    def __init__(self, *, orders: bool = True, positions: bool = True) -> None:
        """`orders` and `positions` are false where the backtest's options turn these streams off."""
        self.has_orders = orders
        self.has_positions = positions
        self._progress = _Grown(PROGRESS)
        self._marks = _Grown(MARK)
        self._latest = np.full(1, -1, dtype=np.int64)  # by symbol, the index of its latest change
        self._seen = 0  # changes that are in `_latest`

    @property
    def progress_made(self) -> int:
        """The number of messages of progress."""
        return len(self._progress)

    @property
    def progress_at(self) -> list[int]:
        """The bars that were simulated when progress was made, in order."""
        bars: list[int] = self._progress.rows["bars"].tolist()
        return bars

    @property
    def percent(self) -> float | None:
        """The latest progress, None before the first."""
        return float(self._progress.rows["percent"][-1]) if len(self._progress) else None

    @property
    def marks_made(self) -> int:
        """The number of marks."""
        return len(self._marks)

    @property
    def bars(self) -> int:
        """The bars that were simulated when progress was last made; -1 before."""
        return int(self._progress.rows["bars"][-1]) if len(self._progress) else -1

    @property
    def size(self) -> int:
        """The bytes of its content."""
        return self._progress.rows.nbytes + self._marks.rows.nbytes

    def has_room(self, done: float) -> bool:
        """Return true if further progress has room where that fraction of the backtest is done."""
        return self.size <= MAX_BYTES * (0.5 + 0.5 * done)

    def add(self, bars: int, progress: BacktestProgress, changes: Records, marks: Records) -> None:
        """Add progress, and the `marks` that come with it, after all `changes` of positions so far."""
        self._note(changes)
        if len(marks):
            rows = self._marks.space(len(marks))
            rows["change"] = self._latest[marks["symbol"]]
            rows["price"] = marks["current_price"]
        row = self._progress.space(1)
        row["bars"], row["changes"], row["marks"] = bars, len(changes), len(self._marks)
        row["time"], row["percent"] = progress.current_time, progress.progress_percent
        row["orders_executed"] = progress.orders_executed
        row["positions_opened"], row["positions_closed"] = progress.positions_opened, progress.positions_closed
        row["unrealized"], row["realized"] = progress.unrealized_pnl, progress.realized_pnl
        point = progress.equity_curve_point
        row["equity"], row["drawdown"], row["returns"] = point.equity, point.drawdown, point.returns

    def _note(self, changes: Records) -> None:
        """Note the latest change of each symbol; the last of several of one symbol counts."""
        fresh = changes["symbol"][self._seen :]
        if len(fresh):
            if (most := int(fresh.max())) >= len(self._latest):
                larger = np.full(2 * most + 1, -1, dtype=np.int64)
                larger[: len(self._latest)] = self._latest
                self._latest = larger
            np.maximum.at(self._latest, fresh, np.arange(self._seen, len(changes)))
            self._seen = len(changes)

    def progress(self, backtest_id: str, first: int, stop: int) -> list[BacktestProgress]:
        """Return messages [first, stop) of the progress' topic, counted from 0."""
        return [_progress(backtest_id, row) for row in self._progress.rows[first:stop]]

    def positions(self, changes: Records, first: int, stop: int) -> tuple[Records, Booleans]:
        """Return the records of messages [first, stop) of the positions' topic, and which of them are marks.

        They are counted from 0; `changes` are all changes of positions so far.
        """
        made = self._progress.rows
        ends = made["changes"] + made["marks"]
        begins = ends - np.diff(made["marks"], prepend=0)
        group, beyond = int(np.searchsorted(ends, first, "right")), int(np.searchsorted(begins, stop, "left"))
        is_mark = _covered(begins[group:beyond] - first, ends[group:beyond] - first, stop - first)
        before = int(made["marks"][group - 1]) if group else 0
        if group < len(made):
            before += max(0, first - int(begins[group]))
        marks = self._marks.rows[before : before + int(is_mark.sum())]
        found = np.zeros(stop - first, dtype=POSITION)
        found[~is_mark] = changes[first - before : stop - before - len(marks)]
        if len(marks):
            of_group = np.searchsorted(made["marks"], np.arange(before, before + len(marks)), "right")
            found[is_mark] = _marked(changes[marks["change"]], marks["price"], made["time"][of_group])
        return found, is_mark


class _LogContent(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a log: its arrays in little-endian bytes."""

    orders: bool
    positions: bool
    progress: bytes
    marks: bytes


_decoder = msgspec.msgpack.Decoder(_LogContent)


def to_bytes(log: StreamLog, done: int = 0) -> bytes:
    """Return the content of a log behind the first `done` messages of progress and the marks that came with them."""
    progress = log._progress.rows
    marks_done = int(progress["marks"][done - 1]) if done else 0
    return encode(
        _LogContent(
            orders=log.has_orders,
            positions=log.has_positions,
            progress=progress[done:].tobytes(),
            marks=log._marks.rows[marks_done:].tobytes(),
        )
    )


def from_bytes(content: bytes, *further: bytes) -> StreamLog:
    """Return the log of which this is the content, in parts that follow each other or in one.

    Raises `ValueError` for bytes that are none.
    """
    try:
        parts = [_decoder.decode(one) for one in (content, *further)]
    except msgspec.MsgspecError as error:
        raise ValueError(f"it is no stream log: {error}") from error
    log = StreamLog(orders=parts[0].orders, positions=parts[0].positions)
    log._progress = _Grown(PROGRESS, np.frombuffer(b"".join(one.progress for one in parts), dtype=PROGRESS))
    log._marks = _Grown(MARK, np.frombuffer(b"".join(one.marks for one in parts), dtype=MARK))
    return log


def _covered(begins: Integers, ends: Integers, count: int) -> Booleans:
    """Return which of `count` places lie in one of the ranges."""
    steps = np.zeros(count + 1, dtype=np.int64)
    np.add.at(steps, np.clip(begins, 0, count), 1)
    np.add.at(steps, np.clip(ends, 0, count), -1)
    covered: Booleans = np.cumsum(steps[:-1]) > 0
    return covered


def _marked(changes: Records, prices: Any, times: Integers) -> Records:
    """Return positions as they are after these changes, marked to these prices; `times` are in ms."""
    marked: Records = changes.copy()
    marked["timestamp"] = times * 1000
    marked["current_price"] = prices
    marked["unrealized"] = changes["quantity"] * (prices - changes["average_price"])
    return marked


def _progress(backtest_id: str, row: Any) -> BacktestProgress:
    time = int(row["time"])
    return BacktestProgress(
        backtest_id=backtest_id,
        current_time=time,
        progress_percent=float(row["percent"]),
        orders_executed=int(row["orders_executed"]),
        positions_opened=int(row["positions_opened"]),
        positions_closed=int(row["positions_closed"]),
        unrealized_pnl=float(row["unrealized"]),
        realized_pnl=float(row["realized"]),
        equity_curve_point=EquityCurvePoint(
            timestamp=time,
            equity=float(row["equity"]),
            drawdown=float(row["drawdown"]),
            returns=float(row["returns"]),
        ),
    )
