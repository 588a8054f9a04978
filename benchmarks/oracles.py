"""The libraries that backtestr is measured against, given its bars and signals. All come with the extra `bench`."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from backtestr_engine.bars import Bars
from backtestr_engine.signals import Signals

MISSING = "is not installed (pip install -c constraints.txt -e '.[bench]')"


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def library(name: str) -> Any:
    """The library, which has no types that mypy could read."""
    return importlib.import_module(name)


def frame(bars: Bars) -> Any:
    """The bars as pandas has them."""
    pd = library("pandas")
    columns = {name: getattr(bars, name.lower()) for name in ("Open", "High", "Low", "Close", "Volume")}
    return pd.DataFrame(columns, index=pd.to_datetime(bars.timestamp, unit="us"))


def long_and_short(rows: Any, signals: Signals) -> dict[str, Any]:
    """Entries on both sides as vectorbt takes them: each ends what is held on the other."""
    pd = library("pandas")
    return {
        "entries": pd.Series(signals.entries, index=rows.index),
        "short_entries": pd.Series(signals.short_entries, index=rows.index),
    }


def from_signals(rows: Any, signals: dict[str, Any], **settings: Any) -> Any:
    """vectorbt's `Portfolio.from_signals`, by its numba engine: the Rust one gives other numbers."""
    return library("vectorbt").Portfolio.from_signals(
        rows.Close, open=rows.Open, high=rows.High, low=rows.Low, engine="numba", **signals, **settings
    )
