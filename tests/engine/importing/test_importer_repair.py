"""Repair on request: unusable rows are dropped, every one is counted, and the rest is unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.importing.importer import import_market_data
from backtestr_protocol.errors import DataError
from backtestr_protocol.import_messages import DroppedRows, ImportMarketData
from support.engine.reading import ReadBars, read_bars

HEADER = "timestamp,open,high,low,close,volume\n"


def row(minute: int, prices: str = "10,12,9,11", volume: str = "5") -> str:
    return f"2022-01-03 09:{minute:02}:00,{prices},{volume}\n"


def repaired(tmp_path: Path, content: str, **options: Any) -> ReadBars:
    path = tmp_path / "bars.csv"
    path.write_text(content)
    return read_bars(path, "X", "1m", repair="drop", **options)


def dropped(reason: str, column: str, *lines: int) -> DroppedRows:
    return DroppedRows(reason=reason, column=column, count=len(lines), first=list(lines))


def test_rows_with_every_problem_are_dropped_and_named_with_their_lines(tmp_path: Path) -> None:
    rows = [
        row(0),  # line 2
        row(1, "10,x,9,11"),
        row(2, "nan,12,9,11"),
        row(3, "10,12,0,11"),
        row(4, "10,10,9,11"),
        "\n",
        row(5, "10,12,11,11"),  # line 8
        row(6, volume="-1"),
        row(7),
        row(7),
        row(3),
        "2022-01-03 09:08:00,10,12\n",
        "yesterday,10,12,9,11,5\n",
        row(9),
    ]
    read = repaired(tmp_path, HEADER + "".join(rows))

    assert [at // 60_000_000 % 60 for at in read.bars.timestamp.tolist()] == [0, 7, 9]
    assert read.dropped == [
        dropped("is not a number", "high", 3),
        dropped("is missing: the line has 3 fields and the header 6", "low", 13),
        dropped("is no time like the others (%Y-%m-%d %H:%M:%S%.f)", "timestamp", 14),
        dropped("open is not a finite number", "open", 4),
        dropped("low is zero or negative", "low", 5),
        dropped("high is below open or close", "high", 6),
        dropped("low is above open or close", "low", 8),
        dropped("volume is negative or not a finite number", "volume", 9),
        dropped("the same time as a row before", "timestamp", 11),
        dropped("an earlier time than a row before", "timestamp", 12),
    ]
    assert read.warnings[0] == "dropped 1 line: is not a number (column 'high'; line 3)"
    assert len([one for one in read.warnings if one.startswith("dropped")]) == 10


def test_a_row_with_two_problems_is_counted_once(tmp_path: Path) -> None:
    read = repaired(tmp_path, HEADER + row(0) + row(1, "x,y,9,11") + row(2, "-1,12,-1,11", "-5") + row(0) + row(3))

    assert sum(one.count for one in read.dropped) == 3
    assert len(read.bars) == 2


def test_more_lines_than_are_shown_are_counted(tmp_path: Path) -> None:
    read = repaired(tmp_path, HEADER + row(0) + row(0) * 7 + row(1))

    assert read.dropped == [
        DroppedRows(reason="the same time as a row before", column="timestamp", count=7, first=[3, 4, 5, 6, 7])
    ]
    assert read.warnings[0] == (
        "dropped 7 lines: the same time as a row before (column 'timestamp'; lines 3, 4, 5, 6, 7, …)"
    )


def test_all_rows_of_a_sound_file_are_kept(tmp_path: Path) -> None:
    read = repaired(tmp_path, HEADER + row(0) + row(1))

    assert (len(read.bars), read.dropped) == (2, [])
    assert not any("dropped" in warning for warning in read.warnings)


def test_a_file_without_a_sound_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no row that can be used: dropped 2 lines: low is zero") as caught:
        repaired(tmp_path, HEADER + row(0, "1,2,0,1") + row(1, "1,2,0,1"))
    assert caught.value.details == {
        "dropped": [{"reason": "low is zero or negative", "column": "low", "count": 2, "first": [2, 3]}]
    }
    with pytest.raises(DataError, match="has no row that can be used"):
        repaired(tmp_path, HEADER + row(0, "x,x,x,x") + "x,1,2,0,1\n")


def test_the_first_rows_may_be_unusable(tmp_path: Path) -> None:
    read = repaired(tmp_path, HEADER + "yesterday,10,12,9,11,5\n" + row(1))
    assert (len(read.bars), read.dropped[0].first) == (1, [2])
    headless = repaired(tmp_path, "20220103 093000;10;x;9;11;100\n20220103 093100;10;12;9;11;100\n")
    assert (headless.format, len(headless.bars), headless.dropped) == (
        "histdata",
        1,
        [dropped("is not a number", "high", 1)],
    )


def test_the_undamaged_rows_are_left_of_random_damage(tmp_path: Path, generator: np.random.Generator) -> None:
    bars = synthetic_bars("1m", 400)
    lines = bars.to_frame().write_csv().splitlines()
    for _ in range(20):
        damaged = set(generator.choice(400, 30, replace=False).tolist())
        text = [lines[0]]
        for at, line in enumerate(lines[1:]):
            cells = line.split(",")
            if at in damaged:
                cells[int(generator.integers(1, 6))] = str(generator.choice(["", "-1", "nan", "inf", "abc", "1e999"]))
            text += [",".join(cells)] * (2 if at % 50 == 0 else 1)
        read = repaired(tmp_path, "\n".join(text))
        kept = np.array([at not in damaged for at in range(400)])

        assert read.bars.to_frame().equals(bars.to_frame().filter(pl.Series(kept)))
        assert sum(one.count for one in read.dropped) == len(text) - 1 - int(kept.sum())


def test_quotes_are_repaired_too(tmp_path: Path) -> None:
    ticks = "time,bid,ask\n2022-01-03T09:30:00Z,1,2\n2022-01-03T09:30:01Z,3,2\n2022-01-03T09:30:01Z,1,2\n"
    read = repaired(tmp_path, ticks + "2022-01-03T09:30:00Z,1,2\n2022-01-03T09:30:01Z,1,2\n")

    assert read.dropped == [
        dropped("ask is below bid", "ask", 3),
        dropped("an earlier time than a row before", "time", 5),
    ]
    assert read.bars.volume.tolist() == [3]


def test_rows_of_a_table_are_dropped_by_row(tmp_path: Path) -> None:
    frame = synthetic_bars("1m", 10).to_frame().with_row_index("at")
    frame = frame.with_columns(pl.when(pl.col("at") == 3).then(None).otherwise(pl.col("close")).alias("close"))
    frame = frame.with_columns(pl.when(pl.col("at") == 6).then(-1.0).otherwise(pl.col("low")).alias("low"))
    frame.drop("at").write_parquet(tmp_path / "bars.parquet")
    read = read_bars(tmp_path / "bars.parquet", "X", repair="drop")

    assert read.dropped == [
        dropped("is not a number", "close", 4),
        dropped("low is zero or negative", "low", 7),
    ]
    assert read.warnings[0] == "dropped 1 row: is not a number (column 'close'; row 4)"
    assert len(read.bars) == 8


def test_the_answer_lists_the_dropped_rows(tmp_path: Path, catalog: Catalog) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(HEADER + row(0) + row(0) + row(1))
    request = ImportMarketData(path=str(path), symbol="X", repair="drop")
    answer = import_market_data(catalog, request)

    assert (answer.bars, answer.format) == (2, "csv")
    assert answer.dropped == [dropped("the same time as a row before", "timestamp", 3)]
    with pytest.raises(DataError, match="the same time as the row before"):
        import_market_data(catalog, ImportMarketData(path=str(path), symbol="X"))
