"""The file of ticks: every range of it has its ticks, each once and in order, whichever row groups hold them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.data import series_file, tick_file
from backtestr_engine.data.series_file import DamagedFile
from backtestr_engine.data.tick_file import open_ticks, write_ticks
from backtestr_engine.data.ticks import Ticks
from support.engine.random_ticks import START, random_quotes, random_trades

TICKS = random_quotes(50, step_us=4)


@pytest.fixture(scope="module")
def small_groups(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Provide the file of `TICKS` in row groups of four, so that ticks of one time lie in several."""
    path = tmp_path_factory.mktemp("ticks") / "tick.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(series_file, "ROW_GROUP_BARS", 4)
        patch.setattr(tick_file, "PART_TICKS", 7)
        write_ticks(path, TICKS)
        yield path


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-2, 60), max_size=4))
def test_ranges_that_follow_each_other_are_the_whole(small_groups: Path, cuts: list[int]) -> None:
    bounds = [None, *(START + cut for cut in sorted(cuts)), None]
    with open_ticks(small_groups) as file:
        found: list[int] = []
        for start, end in pairwise(bounds):
            rows = file.rows_between(start, end)
            ticks = file.read(rows)
            assert all(start is None or start <= time for time in ticks.timestamp.tolist())
            assert all(end is None or time < end for time in ticks.timestamp.tolist())
            found += rows
        assert found == list(range(50))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 50), st.integers(0, 50))
def test_parts_are_the_rows_that_are_asked_for(small_groups: Path, first: int, stop: int) -> None:
    with open_ticks(small_groups) as file:
        parts = list(file.parts(range(first, stop)))
        assert all(0 < len(part) <= 7 for part in parts)
        assert [time for part in parts for time in part.timestamp.tolist()] == TICKS.timestamp[first:stop].tolist()
        assert [bid for part in parts if part.bid is not None for bid in part.bid.tolist()] == [
            1.0 + row / 1024 for row in range(first, stop)
        ]


@pytest.mark.parametrize(
    "ticks",
    [
        random_quotes(3),
        random_trades(3),
        Ticks("X", TICKS.timestamp[:2], TICKS.bid[:2], TICKS.ask[:2], np.array([np.nan, 1.5]), np.array([np.nan, 2.0])),  # type: ignore[index]
    ],
)
def test_what_is_written_comes_back(ticks: Ticks, tmp_path: Path) -> None:
    info = write_ticks(tmp_path / "tick.parquet", ticks)
    with open_ticks(tmp_path / "tick.parquet") as file:
        assert (file.info, file.columns) == (info, ticks.columns)
        assert file.read(range(len(ticks))).to_frame().equals(ticks.to_frame())
    assert (info.timeframe, info.bars) == ("tick", len(ticks))
    assert info.start_time == int(ticks.timestamp[0]) // 1000


def test_a_version_that_is_open_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "tick.parquet"
    write_ticks(path, random_quotes(30))
    with open_ticks(path) as old:
        write_ticks(path, random_quotes(20, seed=2))
        with open_ticks(path) as new:
            assert (old.info.bars, new.info.bars) == (30, 20)
            assert old.version != new.version
            assert new.read(range(20)).timestamp.tolist() == random_quotes(20, seed=2).timestamp.tolist()
        assert old.read(range(30)).timestamp.tolist() == random_quotes(30).timestamp.tolist()


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 1 << 30), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_found(small_groups: Path, at: int, bit: int) -> None:
    content = bytearray(small_groups.read_bytes())
    content[at % len(content)] ^= 1 << bit
    damaged = small_groups.with_name("damaged.parquet")
    damaged.write_bytes(content)
    with pytest.raises(DamagedFile), open_ticks(damaged) as file:
        for _ in file.parts(range(file.info.bars)):
            pass


def test_a_file_without_checksums_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tick.parquet"
    info = '{"symbol":"X","timeframe":"tick","startTime":0,"endTime":1,"bars":50}'
    TICKS.to_frame().write_parquet(path, metadata={"backtestr.series": info})
    assert pl.read_parquet(path).height == 50
    with pytest.raises(DamagedFile, match="has no checksums"), open_ticks(path):
        pass
