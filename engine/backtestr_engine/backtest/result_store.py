"""Results on disk: one folder per backtest, which is there as a whole or not at all.

    <root>/<backtest id>/result.json    status, configuration, metrics, and what reading the tables needs
                         equity.arrow   equity per bar; drawdown and returns follow from it
                         times.arrow    open times of the bars, as ranges without a gap
                         orders.arrow   positions.arrow   trades.arrow   open_trades.arrow   the simulation's records
                         changes.arrow   the order that made each change of a position; absent in version 0.1
                         signals.arrow   the time of the signal of each order; absent in version 0.1
                         states.arrow    every state of every order; absent where each has one
                         streams.msgpack   the rest of what was published; absent in earlier versions

A result is written into a folder of another name, synced, and renamed: a crash leaves nothing that looks like a result.
That name, `.<backtest id>.<process id>.partial`, has the writer's process, so that the folder of a crashed process can
be swept. As a backtest waits for the disk, only what cannot be derived is stored: the wire's tables are made on
reading.
"""

from __future__ import annotations

import functools
import heapq
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import psutil

from backtestr_engine.data.arrays import AnyArray, Records
from backtestr_engine.data.timeframes import open_times_of, spans
from backtestr_engine.simulation.records import ORDER, POSITION, TRADE
from backtestr_protocol.errors import DataError, NotFound, ValidationError, did_you_mean
from backtestr_protocol.file_names import file_name
from backtestr_protocol.messages import BacktestConfig, BacktestId, BacktestResults, BacktestState, TableName, Timeframe
from backtestr_protocol.metrics import Metrics
from backtestr_protocol.private_files import make_private
from backtestr_protocol.system.durable_files import sync_file, sync_folder
from backtestr_protocol.worker_channel import Outcome

from .run import Result
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
_RECORDS = ("orders", "positions", "trades", "open_trades")
_STREAMS = "streams.msgpack"
# What reading a file that is damaged, or that is none of ours, may raise.
_UNREADABLE = (
    *(OSError, ValueError, KeyError, msgspec.MsgspecError),
    *(pl.exceptions.PolarsError, pl.exceptions.PanicException),
)


class _Stored(msgspec.Struct, frozen=True, rename="camel"):
    """The content of result.json. `checksums` has the CRC-32 of every other file.

    Results of version 0.1 have no checksums, and drawdowns from the first close.
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
        folder = self._folder(backtest_id)
        make_private(self._root)
        self._sweep(f".{folder.name}.*")
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        make_private(partial)
        try:
            if streams is not None:
                (partial / _STREAMS).write_bytes(streams)
            self._fill(partial, backtest_id, status, config, result)
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
        except BaseException:  # a full disk as a rule: a partial result must not keep its space
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(self._root)

    def _fill(
        self,
        partial: Path,
        backtest_id: str,
        status: BacktestState,
        config: BacktestConfig | dict[str, Any],
        result: Result,
    ) -> None:
        """Write the files of a result beside those that are there, and wait until all are on disk."""
        _write_columns(partial / "equity.arrow", {"equity": result.equity})
        starts, bars = spans(result.timestamp, result.timeframe)
        _write_columns(partial / "times.arrow", {"start": starts, "bars": bars})
        for name in _RECORDS:
            records: Records = getattr(result, name)
            columns = {field: np.ascontiguousarray(records[field]) for field in records.dtype.names or ()}
            _write_columns(partial / f"{name}.arrow", columns)
        if (states := result.order_states) is not None:
            _write_columns(
                partial / "states.arrow", {field: np.ascontiguousarray(states[field]) for field in ORDER.names or ()}
            )
        if result.links is not None:
            _write_columns(partial / "changes.arrow", {"order_id": result.links.changed_by})
            _write_columns(partial / "signals.arrow", {"signal_time": result.links.signal_times})
        stored = _Stored(
            backtest_id=backtest_id,
            status=status,
            symbols=list(result.symbols),
            timeframe=result.timeframe,
            initial_capital=result.initial_capital,
            config=msgspec.to_builtins(config),
            metrics=result.metrics,
            drawdown_from=result.drawdown_from,
            warmup_bars=result.warmup_bars,
            checksums={path.name: zlib.crc32(path.read_bytes()) for path in partial.iterdir()},
        )
        (partial / "result.json").write_bytes(msgspec.json.encode(stored))
        for path in partial.iterdir():
            path.chmod(0o600)
            sync_file(path)
        sync_folder(partial)

    def sweep(self) -> None:
        """Remove the partial results of processes that have ended; a running process may still be writing."""
        self._sweep(".*")

    def _sweep(self, names: str) -> None:
        for partial in self._root.glob(f"{names}.partial"):
            if _is_abandoned(partial):
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
            files = _Files(folder, stored.checksums)
            key = f"{folder.name}/{version.st_ino}.{version.st_mtime_ns}"
            references, attachments = hand_over(
                [
                    Table(table, functools.partial(_read_table, files, table, stored), key=f"{key}/{table}")
                    for table in tables
                ]
            )
        except _UNREADABLE as error:
            raise self._unreadable(backtest_id, error) from error
        return (
            BacktestResults(
                backtest_id=backtest_id,
                status=stored.status,
                config=stored.config,
                metrics=stored.metrics,
                tables=references,
                warmup_bars=stored.warmup_bars,
            ),
            attachments,
        )

    def recorded(self, backtest_id: str) -> RecordedStreams:
        """Return the records and the stream log of a stored result, compared with their checksums.

        Raises `NotFound` for a backtest without a result and for a result of a version that stored no log, `DataError`
        for a result that cannot be read.
        """
        folder = self._folder(backtest_id)
        try:
            stored = _stored_in((folder / "result.json").read_bytes())
            if not (folder / _STREAMS).exists():
                raise NotFound(f"the result of backtest {backtest_id!r} has no log of its streams", kind="stream log")
            files = _Files(folder, stored.checksums)
            states = "states" if (folder / "states.arrow").exists() else "orders"
            return RecordedStreams(
                backtest_id=backtest_id,
                symbols=stored.symbols,
                orders=files.records(states, ORDER),
                positions=files.records("positions", POSITION),
                log=files.content(_STREAMS),
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


class _Files:
    """The files of one result, each of which is read and compared with its checksum once."""

    def __init__(self, folder: Path, checksums: dict[str, int]) -> None:
        self._folder = folder
        self._checksums = checksums
        self._columns: dict[str, pl.DataFrame] = {}
        self._records: dict[str, Records] = {}

    def columns(self, name: str) -> pl.DataFrame:
        """Read a file. Raises `ValueError` for a damaged one, which could end the process that reads it."""
        if name not in self._columns:
            self._columns[name] = pl.read_ipc_stream(self.content(f"{name}.arrow"))
        return self._columns[name]

    def content(self, name: str) -> bytes:
        """Read the bytes of a file, and compare them with their checksum. Raises `ValueError` for a damaged one."""
        content = (self._folder / name).read_bytes()
        if self._checksums.get(name, found := zlib.crc32(content)) != found:
            raise ValueError(f"the checksum of {name} does not match")
        return content

    def records(self, name: str, kind: np.dtype[np.void]) -> Records:
        """Read a file as records of that kind."""
        if name not in self._records:
            table = self.columns(name)
            records = np.zeros(table.height, dtype=kind)
            for field in kind.names or ():
                records[field] = table[field].to_numpy()
            self._records[name] = records
        return self._records[name]

    def links(self) -> OrderLinks | None:
        """Return the links of orders; None in a result of a version that did not have them."""
        if not (self._folder / "changes.arrow").exists():
            return None
        changed_by = self.columns("changes")["order_id"].to_numpy()
        return OrderLinks(changed_by, self.columns("signals")["signal_time"].to_numpy())


def _read_table(files: _Files, table: TableName, stored: _Stored) -> pl.DataFrame:
    match table:
        case "equity":
            times = files.columns("times")
            timestamp = open_times_of(times["start"].to_numpy(), times["bars"].to_numpy(), stored.timeframe)
            equity = files.columns("equity")["equity"].to_numpy()
            return equity_frame(timestamp, equity, stored.initial_capital, stored.drawdown_from)
        case "orders":
            positions, orders = files.records("positions", POSITION), files.records("orders", ORDER)
            return orders_frame(orders, stored.symbols, positions, files.links())
        case "positions":
            return positions_frame(files.records("positions", POSITION), stored.symbols)
        case "trades":
            closed, still_open = files.records("trades", TRADE), files.records("open_trades", TRADE)
            orders, positions = files.records("orders", ORDER), files.records("positions", POSITION)
            return trades_frame(closed, still_open, stored.symbols, (orders, positions), files.links())


def _write_columns(path: Path, columns: dict[str, AnyArray]) -> None:
    pl.DataFrame(columns).write_ipc_stream(path, compression="uncompressed")
