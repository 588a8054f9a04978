"""Corrections lose nothing: rows are turned round as a whole, and prices move by rounding only."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.importing.corrections import WIDENED_ULPS
from backtestr_protocol.errors import DataError
from support.engine.reading import read_bars

TURNED = "the lines stand newest first: they were turned round"


def ulps_above(value: float, steps: int) -> float:
    for _ in range(steps):
        value = math.nextafter(value, math.inf)
    return value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(2, 40), repeated=st.booleans())
def test_a_file_newest_first_is_the_same_as_its_reverse(rows: int, repeated: bool, tmp_path: Path) -> None:
    header, *lines = synthetic_bars("1h", rows).to_frame().write_csv().splitlines(keepends=True)
    forward, backward = tmp_path / "forward.csv", tmp_path / "backward.csv"
    lines = [lines[0], *lines] if repeated and rows > 2 else lines
    forward.write_text(header + "".join(lines))
    backward.write_text(header + "".join(reversed(lines)))
    if len(lines) > rows:
        with pytest.raises(DataError, match="the same time as the row before"):
            read_bars(backward, "X")
        return
    turned = read_bars(backward, "X")
    assert turned.bars.to_frame().equals(read_bars(forward, "X").bars.to_frame())
    assert TURNED in turned.warnings


def test_ticks_of_one_time_keep_their_order_when_they_are_turned_round(tmp_path: Path) -> None:
    (tmp_path / "ticks.csv").write_text(
        "time,price,size\n2024-03-04T09:30:02Z,12,1\n2024-03-04T09:30:01Z,15,1\n2024-03-04T09:30:01Z,10,1\n"
    )
    bars = read_bars(tmp_path / "ticks.csv", "X", "1m").bars
    assert (bars.open[0], bars.high[0], bars.close[0]) == (10, 15, 12)


def test_problems_of_a_file_newest_first_are_named_by_its_lines_and_few_rows_are_lost(tmp_path: Path) -> None:
    header, *lines = synthetic_bars("1h", 20).to_frame().write_csv().splitlines(keepends=True)
    lines.reverse()
    lines[5], lines[6] = lines[6], lines[5]
    path = tmp_path / "bars.csv"
    path.write_text(header + "".join(lines))

    with pytest.raises(DataError, match="line 7, column 'timestamp': an earlier time than the row before") as caught:
        read_bars(path, "X")
    assert caught.value.recovery_actions[1].description.startswith("Leave those rows out (19 of 20 are kept)")
    assert len(read_bars(path, "X", repair="drop").bars) == 19


def test_a_table_newest_first_is_turned_round(tmp_path: Path) -> None:
    bars = synthetic_bars("1h", 50)
    bars.to_frame().reverse().write_parquet(tmp_path / "bars.parquet")
    read = read_bars(tmp_path / "bars.parquet", "X")
    assert read.bars.to_frame().equals(bars.to_frame())
    assert read.warnings == ["the rows stand newest first: they were turned round"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(close=st.floats(0.001, 1e9), steps=st.integers(0, 12), low=st.booleans())
def test_prices_are_widened_by_rounding_and_no_more(close: float, steps: int, low: bool, tmp_path: Path) -> None:
    """`steps` units in the last place are between close and the high below it, or the low above it."""
    beyond = ulps_above(close, steps)
    row = [close, beyond, beyond, beyond] if low else [close, close, close / 2, beyond]  # open, high, low, close
    path = tmp_path / "bars.csv"
    path.write_text("time,open,high,low,close\n2024-03-04," + ",".join(map(repr, row)) + "\n")
    if steps > WIDENED_ULPS:
        with pytest.raises(DataError, match="low is above open" if low else "high is below open"):
            read_bars(path, "X", "1d")
        return
    read = read_bars(path, "X", "1d")
    widened = read.bars.low[0] if low else read.bars.high[0]
    assert widened == (close if low else beyond)
    assert any("was widened to open or close on line 2" in note for note in read.warnings) == (steps > 0)


def test_a_cent_is_not_rounding(tmp_path: Path) -> None:
    (tmp_path / "bars.csv").write_text("time,open,high,low,close\n2024-03-04,150,150,149,150.01\n")
    with pytest.raises(DataError, match="high is below open or close"):
        read_bars(tmp_path / "bars.csv", "X", "1d")


@pytest.mark.parametrize(("steps", "sound"), [(1, True), (WIDENED_ULPS, True), (WIDENED_ULPS + 1, False)])
def test_rounding_of_float32_is_measured_in_float32(steps: int, sound: bool, tmp_path: Path) -> None:
    high = np.float32(150)
    close = high
    for _ in range(steps):
        close = np.nextafter(close, np.float32(np.inf))
    frame = pl.DataFrame({"time": ["2024-03-04"], "open": [149.0], "high": [high], "low": [148.0], "close": [close]})
    frame.cast({name: pl.Float32 for name in ("open", "high", "low", "close")}).write_parquet(tmp_path / "bars.parquet")
    if not sound:
        with pytest.raises(DataError, match="high is below open or close"):
            read_bars(tmp_path / "bars.parquet", "X", "1d")
        return
    assert read_bars(tmp_path / "bars.parquet", "X", "1d").bars.high[0] == float(close)


def test_dropping_is_not_advised_where_it_would_keep_almost_nothing(tmp_path: Path) -> None:
    header, *lines = synthetic_bars("1h", 100).to_frame().write_csv().splitlines(keepends=True)
    path = tmp_path / "bars.csv"
    path.write_text(header + lines[-1] + "".join(lines[:-1]))  # the last bar stands first: all others are earlier

    with pytest.raises(DataError, match=r"; --repair drop would keep no more than 1 of 100 lines$") as caught:
        read_bars(path, "X")
    assert [one.action for one in caught.value.recovery_actions] == ["correct_file"]
    assert caught.value.details is not None
    assert (caught.value.details["kept"], caught.value.details["rows"]) == (1, 100)
