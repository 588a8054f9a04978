"""Export writes bars and ticks in three formats, and a file appears only when it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from backtestr.cli import export
from backtestr.cli.export import FORMATS, write_bars, write_pages

TIMES = [datetime(2022, 1, 3, 0, 0, second, 500_000 * second, tzinfo=UTC) for second in range(2)]
BARS = pl.DataFrame(
    {"timestamp": TIMES, "open": [1.0, 2.0], "close": [1.5, 2.5]},
    schema_overrides={"timestamp": pl.Datetime("us", "UTC")},
)


@pytest.mark.parametrize(("end", "read"), [(".parquet", pl.read_parquet), (".arrow", pl.read_ipc)])
def test_bars_are_read_back_as_they_were(tmp_path: Path, end: str, read: Callable[[Path], pl.DataFrame]) -> None:
    file = tmp_path / f"bars{end}"
    write_bars(BARS, file)
    assert read(file).equals(BARS)
    assert list(tmp_path.iterdir()) == [file]


def test_times_in_csv_state_that_they_are_utc(tmp_path: Path) -> None:
    file = tmp_path / "bars.csv"
    write_bars(BARS, file)
    header, first, second = file.read_text().splitlines()
    assert header == "timestamp,open,close"
    assert first == "2022-01-03T00:00:00Z,1.0,1.5"
    assert second.startswith("2022-01-03T00:00:01.5")
    assert second.endswith("Z,2.0,2.5")


def test_another_end_of_the_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not end in \.csv, \.parquet, \.arrow"):
        write_bars(BARS, tmp_path / "bars.xlsx")


def test_a_failure_leaves_the_file_that_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bars.csv"
    file.write_text("before")

    def fail(_: pl.DataFrame, partial: Path) -> None:
        partial.write_text("half a f")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "FORMATS", {**FORMATS, ".csv": fail})
    with pytest.raises(OSError, match="No space"):
        write_bars(BARS, file)
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


TICKS = pl.DataFrame(
    {"timestamp": TIMES, "bid": [1.0, 2.0], "ask": [1.5, 2.5], "last": [None, None], "volume": [None, 3.0]},
    schema_overrides={"timestamp": pl.Datetime("us", "UTC"), "last": pl.Float64, "volume": pl.Float64},
)


@pytest.mark.parametrize(("end", "read"), [(".parquet", pl.read_parquet), (".arrow", pl.read_ipc)])
def test_pages_are_one_file_without_the_columns_that_no_tick_has(
    tmp_path: Path, end: str, read: Callable[[Path], pl.DataFrame]
) -> None:
    file = tmp_path / f"ticks{end}"
    assert write_pages([TICKS[:1], TICKS[1:], TICKS], file) == 4
    assert read(file).equals(pl.concat([TICKS, TICKS]).drop("last"))
    assert list(tmp_path.iterdir()) == [file]


def test_pages_of_csv_have_an_empty_cell_for_what_a_tick_has_not(tmp_path: Path) -> None:
    file = tmp_path / "ticks.csv"
    write_pages([TICKS], file)
    assert file.read_text().splitlines() == [
        "timestamp,bid,ask,volume",
        "2022-01-03T00:00:00Z,1.0,1.5,",
        "2022-01-03T00:00:01.500Z,2.0,2.5,3.0",
    ]


def test_a_page_that_fails_leaves_the_file_that_was_there_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "ticks.csv"
    file.write_text("before")

    def pages() -> Iterator[pl.DataFrame]:
        yield TICKS
        raise ConnectionError("the broker went away")

    with pytest.raises(ConnectionError):
        write_pages(pages(), file)
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]
