"""Frames of every library become the same table, and what is no frame is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from backtestr.memory_bars import table_of

TIMES = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=minute) for minute in range(3)]
PRICES = {
    "open": [1.0, 2.0, 3.0],
    "high": [2.0, 3.0, 4.0],
    "low": [0.5, 1.5, 2.5],
    "close": [1.5, 2.5, 3.5],
    "volume": [10.0, 0.0, 5.0],
}
TABLE = pl.DataFrame({"timestamp": TIMES, **PRICES}).cast({"timestamp": pl.Datetime("us", "UTC")})


class ArrowTable:
    """A table of which only Arrow's interface is known."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return TABLE.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "frame",
    [TABLE, TABLE.lazy(), ArrowTable(), {name: TABLE[name] for name in TABLE.columns}],
    ids=["polars", "lazy", "arrow", "columns"],
)
def test_frames_are_taken_as_they_are(frame: Any) -> None:
    assert_frame_equal(table_of(frame), TABLE)


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_an_index_of_pandas_keeps_its_instants(zone: str | None, unit: str) -> None:
    pandas = pytest.importorskip("pandas")
    index = pandas.DatetimeIndex(TIMES).as_unit(unit)
    index = index.tz_localize(None) if zone is None else index.tz_convert(zone)
    found = table_of(pandas.DataFrame(PRICES, index=index))

    assert found.columns == TABLE.columns
    times = found["timestamp"].cast(pl.Datetime("us", None if zone is None else "UTC"))
    assert times.dt.replace_time_zone("UTC").to_list() == TIMES
    assert isinstance(found["timestamp"].dtype, pl.Datetime)
    assert found["timestamp"].dtype.time_zone == (None if zone is None else "UTC")
    assert_frame_equal(found.drop("timestamp"), TABLE.drop("timestamp"))


def test_columns_of_pandas_are_times_numbers_and_texts() -> None:
    pandas = pytest.importorskip("pandas")
    times = pandas.Series(pandas.DatetimeIndex(TIMES).tz_convert("Europe/Berlin"))
    dates = pandas.Series(["2024-01-01 00:00", "2024-01-01 00:01", "2024-01-01 00:02"])
    found = table_of(pandas.DataFrame({"Date": times, "text": dates, "Close": np.array([1, 2, 3])}))

    assert found["Date"].dt.convert_time_zone("UTC").to_list() == TIMES
    assert found["text"].to_list() == dates.to_list()
    assert found["Close"].to_list() == [1, 2, 3]


def test_an_index_without_times_is_left_out() -> None:
    pandas = pytest.importorskip("pandas")
    assert table_of(pandas.DataFrame({"Close": [1.0]}, index=[7])).columns == ["Close"]


def test_columns_of_several_levels_are_named_by_the_prices() -> None:
    pandas = pytest.importorskip("pandas")
    index = pandas.DatetimeIndex(TIMES, name="Date")
    levels = pandas.MultiIndex.from_product([["Close", "Open"], ["AAPL"]], names=["Price", "Ticker"])
    found = table_of(pandas.DataFrame(np.ones((3, 2)), index=index, columns=levels))
    assert found.columns == ["Date", "Close", "Open"]

    two = pandas.MultiIndex.from_product([["Close", "Open"], ["AAPL", "MSFT"]])
    with pytest.raises(TypeError, match=r"several symbols \(AAPL, MSFT\): import each by itself"):
        table_of(pandas.DataFrame(np.ones((3, 4)), index=index, columns=two))
    none = pandas.MultiIndex.from_product([["a", "b"], ["c"]])
    with pytest.raises(TypeError, match="none of them names a close"):
        table_of(pandas.DataFrame(np.ones((3, 2)), index=index, columns=none))


@pytest.mark.parametrize("frame", [None, 5, "bars.csv", [1, 2], np.ones(3)])
def test_what_is_no_frame_is_refused(frame: Any) -> None:
    with pytest.raises(TypeError, match=f"not as {type(frame).__name__}"):
        table_of(frame)
