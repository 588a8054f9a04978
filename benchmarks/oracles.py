"""This module gives bars and signals to the libraries with which backtestr is compared (extra `bench`)."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import polars as pl

from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.data.bars import Bars
from backtestr_protocol.messages import Timeframe

MISSING = "is not installed (pip install -c constraints.txt -e '.[bench]')"


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def library(name: str) -> Any:
    """Import a library, which has no types that mypy could read."""
    return importlib.import_module(name)


def real_bars(name: str, timeframe: Timeframe) -> Bars:
    """Read a series of the wheel of backtesting.py: GOOG (days), EURUSD (hours), BTCUSD (months)."""
    spec = importlib.util.find_spec("backtesting")
    if spec is None or spec.origin is None:
        raise SystemExit(f"backtesting, whose wheel has {name}, {MISSING}")
    rows = pl.read_csv(Path(spec.origin).parent / "test" / f"{name}.csv", try_parse_dates=True)
    time = rows.to_series(0).cast(pl.Datetime("us")).to_physical().to_numpy()
    columns = [rows[column].cast(pl.Float64).to_numpy() for column in ("Open", "High", "Low", "Close", "Volume")]
    return Bars(name, timeframe, time, *columns)


def frame(bars: Bars) -> Any:
    """Return the bars as a pandas frame."""
    pd = library("pandas")
    columns = {name: getattr(bars, name.lower()) for name in ("Open", "High", "Low", "Close", "Volume")}
    return pd.DataFrame(columns, index=pd.to_datetime(bars.timestamp, unit="us"))


def as_columns(rows: Any, signals: Signals, *names: str) -> dict[str, Any]:
    """Return some of `entries exits short_entries short_exits` in the form of vectorbt."""
    pd = library("pandas")
    return {name: pd.Series(getattr(signals, name), index=rows.index) for name in names}


def from_signals(rows: Any, signals: dict[str, Any], **settings: Any) -> Any:
    """Call vectorbt's `Portfolio.from_signals` with its numba engine: the Rust engine gives other figures."""
    return library("vectorbt").Portfolio.from_signals(
        rows.Close, open=rows.Open, high=rows.High, low=rows.Low, engine="numba", **signals, **settings
    )
