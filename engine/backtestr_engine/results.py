"""Results on disk: one folder per backtest, there as a whole or not at all.

    <root>/<backtest id>/result.json    status, configuration, metrics, and what the tables need to be read
                         equity.arrow   timestamp and equity per bar; drawdown and returns follow from them
                         orders.arrow   trades.arrow   positions.arrow

A result is written into a folder of another name, synced, and renamed: a crash leaves nothing that is taken for one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import polars as pl

from backtestr_protocol.errors import DataError, NotFound, ValidationError, did_you_mean
from backtestr_protocol.messages import BacktestConfig, BacktestResults, BacktestState, TableName

from .backtest import Result
from .files import sync_folder
from .tables import attach, equity_frame

_TABLES: tuple[TableName, ...] = ("equity", "trades", "orders", "positions")


class _Stored(msgspec.Struct, frozen=True, rename="camel"):
    """The content of result.json."""

    backtest_id: str
    status: BacktestState
    symbol: str
    initial_capital: float
    config: dict[str, Any]
    metrics: dict[str, Any]


class ResultStore:
    """The results under `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(
        self, backtest_id: str, status: BacktestState, config: BacktestConfig | dict[str, Any], result: Result
    ) -> None:
        """Store a result, in place of an earlier one of the same backtest. When this returns it is on disk."""
        folder = self._folder(backtest_id)
        self._root.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        stored = _Stored(
            backtest_id=backtest_id,
            status=status,
            symbol=result.symbol,
            initial_capital=result.initial_capital,
            config=msgspec.to_builtins(config),
            metrics=result.metrics,
        )
        for table in _TABLES:
            frame = result.frame("equity").select("timestamp", "equity") if table == "equity" else result.frame(table)
            with (partial / f"{table}.arrow").open("wb") as file:
                frame.write_ipc(file, compression="uncompressed")
                _sync(file)
        with (partial / "result.json").open("wb") as file:
            file.write(msgspec.json.encode(stored))
            _sync(file)
        sync_folder(partial)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
        sync_folder(self._root)

    def read(self, backtest_id: str, tables: Sequence[TableName] = ()) -> tuple[BacktestResults, list[bytes]]:
        """A stored result and the tables asked for, each an Arrow IPC stream in the order that `tables` refers to.

        Raises `NotFound` for a backtest without a result, `ValidationError` for an id that is no UUID or a table that
        does not exist, `DataError` for a result that cannot be read.
        """
        folder = self._folder(backtest_id)
        if not folder.is_dir():
            raise NotFound(f"there is no result of backtest {backtest_id!r}", kind="result", name=backtest_id)
        for table in tables:
            if table not in _TABLES:
                raise ValidationError(
                    f"unknown table {table!r}{did_you_mean(table, _TABLES)} ({', '.join(_TABLES)})",
                    path="$.tables",
                    expected=list(_TABLES),
                    got=table,
                )
        try:
            stored = msgspec.json.decode((folder / "result.json").read_bytes(), type=_Stored)
            frames = [(str(table), _read_table(folder, table, stored.initial_capital)) for table in tables]
        except (OSError, msgspec.MsgspecError, pl.exceptions.PolarsError) as error:
            raise DataError(f"the result of backtest {backtest_id} cannot be read: {error}") from error
        references, attachments = attach(frames)
        return (
            BacktestResults(
                backtest_id=backtest_id,
                status=stored.status,
                config=stored.config,
                metrics=stored.metrics,
                tables=references,
            ),
            attachments,
        )

    def _folder(self, backtest_id: str) -> Path:
        """Ids are UUIDs, which is also what keeps them from naming anything outside `root`."""
        try:
            canonical = str(UUID(backtest_id))
        except ValueError:
            canonical = None
        if canonical != backtest_id.lower():
            raise ValidationError(
                f"a backtest's id is a UUID, not {backtest_id!r}", path="$.backtestId", expected="UUID", got=backtest_id
            )
        return self._root / canonical


def _read_table(folder: Path, table: TableName, initial_capital: float) -> pl.DataFrame:
    frame = pl.read_ipc(folder / f"{table}.arrow")
    if table != "equity":
        return frame
    return equity_frame(frame["timestamp"].to_physical().to_numpy(), frame["equity"].to_numpy(), initial_capital)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
