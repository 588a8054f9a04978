"""Bars: their arrays, their slices, and higher timeframes made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from backtestr_engine.data.bars import COLUMNS, Bars, bars_from_frame, resample
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.data.timeframes import MINUTE_US

MINUTE = MINUTE_US


def columns(**changed: Any) -> list[Any]:
    sound = {
        "timestamp": np.arange(4, dtype=np.int64) * MINUTE,
        "open": [10.0, 11.0, 12.0, 13.0],
        "high": [12.0, 13.0, 14.0, 15.0],
        "low": [9.0, 10.0, 11.0, 12.0],
        "close": [11.0, 12.0, 13.0, 14.0],
        "volume": [1.0, 0.0, 2.0, 3.0],
    }
    return [np.array({**sound, **changed}[name]) for name in COLUMNS]


def test_bars_are_read_only() -> None:
    given = columns()
    bars = Bars("X", "1m", *given)

    assert len(bars) == 4
    assert bars.closed_at(3) == 4 * MINUTE
    with pytest.raises(ValueError, match="read-only"):
        bars.close[0] = 1
    given[4][0] = 10.5  # the caller's own array stays writable


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="close has shape"):
        Bars("X", "1m", *columns(close=[1.0]))


def test_between_is_half_open() -> None:
    bars = Bars("X", "1m", *columns())

    assert bars.between(MINUTE, 3 * MINUTE).timestamp.tolist() == [MINUTE, 2 * MINUTE]
    assert len(bars.between(None, None)) == 4
    assert len(bars.between(3 * MINUTE, MINUTE)) == 0
    with pytest.raises(ValueError, match="without a step"):
        bars[::2]


def test_bars_of_a_frame_of_bars_are_the_same() -> None:
    bars = Bars("X", "1m", *columns())
    frame = bars.to_frame()

    assert frame.schema["timestamp"] == pl.Datetime("us", "UTC")
    assert bars_from_frame("X", "1m", frame).to_frame().equals(frame)


@pytest.mark.parametrize(("timeframe", "every"), [("5m", "5m"), ("1h", "1h"), ("4h", "4h"), ("1d", "1d"), ("1w", "1w")])
def test_resampling_agrees_with_polars(timeframe: Any, every: str, generator: np.random.Generator) -> None:
    whole = synthetic_bars("1m", 30_000)
    kept = np.flatnonzero(generator.random(len(whole)) < 0.7)
    bars = Bars("X", "1m", *(getattr(whole, name)[kept] for name in COLUMNS))
    expected = (
        bars.to_frame()
        .group_by_dynamic("timestamp", every=every, start_by="window" if every != "1w" else "monday")
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
        )
    )

    got = resample(bars, timeframe).to_frame()

    assert got.drop("volume").equals(expected.drop("volume"))
    assert got["volume"].to_list() == pytest.approx(expected["volume"].to_list())


def test_resampling_needs_a_multiple() -> None:
    with pytest.raises(ValueError, match="1m bars cannot be made from 1h bars"):
        resample(synthetic_bars("1h", 3), "1m")
    assert len(resample(synthetic_bars("1m", 3)[:0], "1h")) == 0
