"""Results on disk: one folder per backtest, which is there as a whole or not at all.

    <root>/<backtest id>/result.json    status, configuration, metrics, and what reading the arrays needs
                         records.bin    equity per bar, the records of the simulation, and the log of its streams

The arrays (`result_files.py` says how they lie there; versions before this one have a file for each) are

    equity                    of each bar; drawdown and returns follow from it
    starts, bars              open times of the bars, as ranges without a gap
    orders, positions, trades, open_trades   the records of the simulation
    states                    every state of every order; absent where each has one
    changes, signals          the order that made each change of a position, and the time of the signal of each order
    streams                   the rest of what was published

A result is written into a folder of another name, synced, and renamed: a crash leaves nothing that looks like a result.
That name, `.<backtest id>.<process id>.partial`, has the writer's process, so that the folder of a crashed process can
be swept. As a backtest waits for the disk, only what cannot be derived is stored, and it is on its way there while the
figures are computed: the wire's tables are made on reading.
"""

from __future__ import annotations

import functools
import heapq
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import psutil

from backtestr_engine.data.arrays import Records
from backtestr_engine.data.timeframes import open_times_of, spans
from backtestr_engine.simulation.records import ORDER, POSITION, TRADE
from backtestr_engine.simulation.shared_account_loop import SharedAccountSimulation
from backtestr_engine.simulation.symbol_loop import SymbolSimulation
from backtestr_protocol.errors import DataError, NotFound, ValidationError, did_you_mean
from backtestr_protocol.file_names import file_name
from backtestr_protocol.messages import (
    BacktestConfig,
    BacktestId,
    BacktestResults,
    BacktestState,
    TableName,
    TableRef,
    Timeframe,
)
from backtestr_protocol.metrics import Metrics
from backtestr_protocol.private_files import make_private, private_opener
from backtestr_protocol.system.durable_files import sync_file, sync_folder
from backtestr_protocol.worker_channel import Outcome

from .result_files import RECORDS, ArrowFiles, Part, RecordFile, RecordWriter, StoredArrays
from .run import RecordedRun, Result
from .tables import (
    DrawdownFrom,
    HandOver,
    OrderLinks,
    Table,
    attach_all,
    equity_frame,
    orders_frame,
    positions_frame,
    trades_frame,
)

_TABLES: tuple[TableName, ...] = ("equity", "trades", "orders", "positions")
# Results that a wrong id is compared with, the latest, and how many of them the error names.
COMPARED = 50
LISTED = 20
# What reading a file that is damaged, or that is none of ours, may raise.
_UNREADABLE = (
    *(OSError, ValueError, KeyError, msgspec.MsgspecError),
    *(pl.exceptions.PolarsError, pl.exceptions.PanicException),
)


class _Stored(msgspec.Struct, frozen=True, rename="camel"):
    """The content of result.json. `parts` says where the arrays are in records.bin.

    In earlier versions each array has a file, and `checksums` the CRC-32 of each. Results of version 0.1 have no
    checksums, and drawdowns from the first close.
    """

    backtest_id: str
    status: BacktestState
    symbols: list[str]
    timeframe: Timeframe
    initial_capital: float
    config: dict[str, Any]
    metrics: Metrics
    drawdown_from: DrawdownFrom = "first_close"
    checksums: dict[str, int] = {}
    warmup_bars: int = 0
    parts: dict[str, Part] = {}
    trial_group: str | None = None


class _Ended(msgspec.Struct, frozen=True):
    """The part of result.json that has how the backtest ended."""

    status: Outcome


class RecordedStreams(msgspec.Struct, frozen=True, kw_only=True):
    """All of a stored result from which its streams are made again.

    `orders` has every state of every order, `positions` every change of a position, and `log` is the content of the
    stream log.
    """

    backtest_id: str
    symbols: list[str]
    orders: Records
    positions: Records
    log: bytes


# Made at the start: msgspec resolves the types of all metrics for them, and the first reader would wait for it.
_stored_decoder = msgspec.json.Decoder(_Stored)
_ended_decoder = msgspec.json.Decoder(_Ended)


class ResultStore:
    """The results under `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def begin(self, backtest_id: str) -> Storing:
        """Begin to store a result: its arrays go to the disk while the rest of it is computed.

        Raises `NotFound` for an invalid id, and `OSError`.
        """
        folder = self._folder(backtest_id)
        make_private(self._root)
        self._sweep(f".{folder.name}.")
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        make_private(partial)
        return Storing(backtest_id, folder, partial)

    def write(
        self,
        backtest_id: str,
        status: BacktestState,
        config: BacktestConfig | dict[str, Any],
        result: Result,
        streams: bytes | None = None,
    ) -> None:
        """Store a result, in place of an earlier one of the same backtest. When this returns it is on disk.

        `streams` is the log of its streams, which `recorded` returns again.
        """
        with self.begin(backtest_id) as storing:
            storing.recorded(result)
            storing.end(status, config, result.metrics, streams)

    def sweep(self) -> None:
        """Remove the partial results of processes that have ended; a running process may still be writing."""
        self._sweep(".")

    def _sweep(self, start: str) -> None:
        """Remove abandoned partial results whose names begin so; a pattern would be compiled for every backtest."""
        for name in os.listdir(self._root) if self._root.exists() else ():
            if name.startswith(start) and name.endswith(".partial") and _is_abandoned(partial := self._root / name):
                shutil.rmtree(partial, ignore_errors=True)

    def has(self, backtest_id: str) -> bool:
        """Return whether a result of that backtest is stored."""
        return self._folder(backtest_id).is_dir()

    def outcome(self, backtest_id: str) -> Outcome | None:
        """Return how a backtest ended, or None if no readable result of it is stored."""
        try:
            return _ended_decoder.decode((self._folder(backtest_id) / "result.json").read_bytes()).status
        except (OSError, msgspec.MsgspecError):
            return None

    def read(
        self, backtest_id: str, tables: Sequence[TableName] = (), hand_over: HandOver = attach_all
    ) -> tuple[BacktestResults, list[bytes]]:
        """Return a stored result and the requested tables in the order of `tables`, handed over by that function.

        The checksums of stored files are compared when tables are made of them. Raises `NotFound` for a backtest
        without a result, `ValidationError` for a table that does not exist, `DataError` for a result that cannot be
        read.
        """
        folder = self._folder(backtest_id)
        if not folder.is_dir():
            raise self._no_result(backtest_id)
        for table in tables:
            if table not in _TABLES:
                raise ValidationError(
                    f"unknown table {table!r}{did_you_mean(table, _TABLES)} ({', '.join(_TABLES)})",
                    path="$.tables",
                    expected=list(_TABLES),
                    got=table,
                )
        try:
            with open(folder / "result.json", "rb") as file:
                version = os.fstat(file.fileno())
                stored = _stored_in(file.read())
            files = _arrays_of(folder, stored)
            key = f"{folder.name}/{version.st_ino}.{version.st_mtime_ns}"
            references, attachments = hand_over(
                [
                    Table(table, functools.partial(_read_table, files, table, stored), key=f"{key}/{table}")
                    for table in tables
                ]
            )
        except _UNREADABLE as error:
            raise self._unreadable(backtest_id, error) from error
        return _answer(stored, references), attachments

    def recorded(self, backtest_id: str) -> RecordedStreams:
        """Return the records and the stream log of a stored result, compared with their checksums.

        Raises `NotFound` for a backtest without a result and for a result of a version that stored no log, `DataError`
        for a result that cannot be read.
        """
        folder = self._folder(backtest_id)
        try:
            stored = _stored_in((folder / "result.json").read_bytes())
            files = _arrays_of(folder, stored)
            if not files.has("streams"):
                raise NotFound(f"the result of backtest {backtest_id!r} has no log of its streams", kind="stream log")
            states = "states" if files.has("states") else "orders"
            return RecordedStreams(
                backtest_id=backtest_id,
                symbols=stored.symbols,
                orders=files.records(states, ORDER),
                positions=files.records("positions", POSITION),
                log=files.content("streams"),
            )
        except _UNREADABLE as error:
            raise self._unreadable(backtest_id, error) from error

    def version(self, backtest_id: str) -> tuple[int, int] | None:
        """Return what another result of the same backtest would differ in; None where there is no result."""
        try:
            found = (self._folder(backtest_id) / "result.json").stat()
        except (OSError, NotFound):
            return None
        return found.st_ino, found.st_mtime_ns

    def _unreadable(self, backtest_id: str, error: BaseException) -> NotFound | DataError:
        """Return the error for a result that cannot be read, or that was deleted while it was read."""
        if not self._folder(backtest_id).is_dir():
            return self._no_result(backtest_id)
        return DataError(
            f"the result of backtest {backtest_id} cannot be read: {error}; run the backtest again under another id"
        )

    def _folder(self, backtest_id: str) -> Path:
        """Return the folder of a backtest.

        Raises `NotFound` for an invalid id, so that no id names a path outside `root`.
        """
        try:
            return self._root / file_name(msgspec.convert(backtest_id, BacktestId))
        except msgspec.ValidationError:
            raise self._no_result(backtest_id) from None

    def _no_result(self, backtest_id: str) -> NotFound:
        """Return the error for a backtest without a result, with a similar name among the latest results."""
        try:
            stored = [(one.stat().st_mtime, one.name) for one in os.scandir(self._root) if not one.name.startswith(".")]
        except OSError:  # there is no result yet, or one was deleted meanwhile: the error is the same
            stored = []
        latest = [name for _, name in heapq.nlargest(COMPARED, stored)]
        shown = backtest_id if len(backtest_id) <= 80 else f"{backtest_id[:80]}…"
        return NotFound(
            f"there is no result of backtest {shown!r}{did_you_mean(backtest_id, latest)}",
            kind="result",
            name=shown,
            known=latest[:LISTED],
        )


def _answer(stored: _Stored, tables: list[TableRef]) -> BacktestResults:
    return BacktestResults(
        backtest_id=stored.backtest_id,
        status=stored.status,
        config=stored.config,
        metrics=stored.metrics,
        tables=tables,
        warmup_bars=stored.warmup_bars,
        trial_group=stored.trial_group,
    )


class Storing:
    """A result on its way to the disk: what its simulation has `recorded`, and its `end`, within a `with` block.

    A block that ends otherwise leaves nothing. Before it, what the simulation has `so_far` may be written.
    """

    def __init__(self, backtest_id: str, folder: Path, partial: Path) -> None:
        """Write to `partial`, which becomes `folder`."""
        self._backtest_id = backtest_id
        self._folder = folder
        self._partial = partial
        self._recorded: RecordedRun
        try:
            self._writer = RecordWriter(partial / RECORDS)
        except BaseException:  # it is raised again: whatever it is, no `with` block begins that would remove the folder
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def __enter__(self) -> Storing:
        return self

    def __exit__(self, *_raised: object) -> None:
        """Free the space of a result that has no end: a full disk as a rule."""
        if self._partial.exists():
            self.discard()

    def so_far(self, simulation: SymbolSimulation | SharedAccountSimulation) -> None:
        """Have written what a simulation that goes on will not change any more. Waits for nothing."""
        self._writer.ahead("equity", simulation.equity[: simulation.bars_simulated], len(simulation.equity))
        self._writer.ahead("positions", simulation.events().positions)

    def discard(self) -> None:
        """Leave nothing: there will be no result, or it begins again."""
        self._writer.abandon()
        shutil.rmtree(self._partial, ignore_errors=True)

    def recorded(self, recorded: RecordedRun) -> None:
        """Have the arrays written, which must not change any more."""
        writer, self._recorded = self._writer, recorded
        for name in ("equity", "positions", "orders", "trades", "open_trades"):
            writer.add(name, getattr(recorded, name))
        if recorded.order_states is not None:
            writer.add("states", recorded.order_states)
        if recorded.links is not None:
            writer.add("changes", recorded.links.changed_by)
            writer.add("signals", recorded.links.signal_times)
        starts, bars = spans(recorded.timestamp, recorded.timeframe)
        writer.add("starts", starts)
        writer.add("bars", bars)

    def end(
        self,
        status: BacktestState,
        config: BacktestConfig | dict[str, Any],
        metrics: Metrics,
        streams: bytes | None = None,
        trial_group: str | None = None,
    ) -> BacktestResults:
        """Store the rest. When this returns all is on disk, in place of an earlier result. Raises `OSError`.

        Returns what the store answers from now on, without tables.
        """
        writer, partial, result = self._writer, self._partial, self._recorded
        if streams is not None:
            writer.add("streams", streams)
        stored = _Stored(
            backtest_id=self._backtest_id,
            status=status,
            symbols=list(result.symbols),
            timeframe=result.timeframe,
            initial_capital=result.initial_capital,
            config=msgspec.to_builtins(config),
            metrics=metrics,
            drawdown_from=result.drawdown_from,
            warmup_bars=result.warmup_bars,
            parts=writer.parts(),
            trial_group=trial_group,
        )
        text = msgspec.json.encode(stored)
        with open(partial / "result.json", "xb", opener=private_opener) as file:
            file.write(text)
        sync_file(partial / "result.json")  # while the thread syncs the records
        writer.close()
        sync_folder(partial)
        if self._folder.exists():
            shutil.rmtree(self._folder)
        partial.rename(self._folder)
        sync_folder(self._folder.parent)
        return _answer(_stored_in(text), [])


def _stored_in(text: bytes) -> _Stored:
    """Decode result.json. Durations in results of version 0.1 have fractions of a millisecond, and are rounded."""
    try:
        return _stored_decoder.decode(text)
    except msgspec.ValidationError:
        fields = msgspec.json.decode(text)
        metrics = fields["metrics"]
        durations = {name: round(value) for name, value in metrics.items() if name.endswith("Ms") and value is not None}
        return msgspec.convert({**fields, "metrics": {**metrics, **durations}}, _Stored)


def _is_abandoned(partial: Path) -> bool:
    """Return whether the writer has ended. Earlier versions wrote names without a process."""
    *_, writer = partial.stem.split(".")
    return not (writer.isdecimal() and partial.stem.count(".") > 1 and psutil.pid_exists(int(writer)))


def _arrays_of(folder: Path, stored: _Stored) -> StoredArrays:
    return RecordFile(folder, stored.parts) if stored.parts else ArrowFiles(folder, stored.checksums)


def _links(files: StoredArrays) -> OrderLinks | None:
    """Return the links of orders; None in a result of a version that did not have them."""
    return OrderLinks(files.column("changes"), files.column("signals")) if files.has("changes") else None


def _read_table(files: StoredArrays, table: TableName, stored: _Stored) -> pl.DataFrame:
    match table:
        case "equity":
            timestamp = open_times_of(files.column("starts"), files.column("bars"), stored.timeframe)
            return equity_frame(timestamp, files.column("equity"), stored.initial_capital, stored.drawdown_from)
        case "orders":
            positions, orders = files.records("positions", POSITION), files.records("orders", ORDER)
            return orders_frame(orders, stored.symbols, positions, _links(files))
        case "positions":
            return positions_frame(files.records("positions", POSITION), stored.symbols)
        case "trades":
            closed, still_open = files.records("trades", TRADE), files.records("open_trades", TRADE)
            orders, positions = files.records("orders", ORDER), files.records("positions", POSITION)
            return trades_frame(closed, still_open, stored.symbols, (orders, positions), _links(files))
