"""A damaged file of a series is found by its checksums, whatever byte of it is wrong, and is read by nothing else."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.data.bars import Bars, resample
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.series_file import DamagedFile, SeriesFile, open_series, write_series
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_protocol.errors import DataError
from backtestr_protocol.messages import SeriesInfo

BARS = synthetic_bars("1m", 20_000, symbol="BTC")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    root = tmp_path_factory.mktemp("catalog")
    Catalog(root, cache_bytes=0).write(BARS)
    return (root / "BTC" / "1m.parquet").read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (folder := tmp_path_factory.mktemp("damaged") / "BTC").mkdir()
    return folder / "1m.parquet"


def test_a_file_is_parquet_for_every_reader_and_says_what_it_holds(content: bytes, place: Path) -> None:
    place.write_bytes(content)
    with open_series(place) as file:
        assert (file.info.symbol, file.info.timeframe, file.info.bars) == ("BTC", "1m", 20_000)
        assert file.row_groups is not None
        assert [group.first_us for group in file.row_groups] == [int(BARS.timestamp[0]), int(BARS.timestamp[16_384])]
        assert file.read().equals(BARS.to_frame())
    assert pl.read_parquet(place).equals(BARS.to_frame())


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 1 << 30), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_found(content: bytes, place: Path, at: int, bit: int) -> None:
    damaged = bytearray(content)
    damaged[at % len(content)] ^= 1 << bit
    refused(place, bytes(damaged))


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, 1 << 30), length=st.integers(1, 4096), fill=st.sampled_from([b"\0", b"\xff", b"PAR1"]))
def test_an_overwritten_part_is_found(content: bytes, place: Path, at: int, length: int, fill: bytes) -> None:
    begin = at % len(content)
    damaged = content[:begin] + (fill * length)[:length] + content[begin + length :]
    if damaged != content:
        refused(place, damaged)


@settings(max_examples=100, deadline=None)
@given(length=st.integers(0, 1 << 30), rest=st.sampled_from([b"", bytes(64), b"PAR1", b"\xff\xff\xff\xffPAR1"]))
def test_a_file_that_was_cut_is_found(content: bytes, place: Path, length: int, rest: bytes) -> None:
    refused(place, content[: length % len(content)] + rest)


def refused(place: Path, damaged: bytes) -> None:
    """Write a damaged file and load it: the error names the file and says what helps, and nothing else is raised."""
    place.write_bytes(damaged)
    with pytest.raises(DamagedFile), open_series(place) as file:
        file.read()
    catalog = Catalog(place.parent.parent, cache_bytes=0)
    with pytest.raises(DataError, match=r"BTC/1m\.parquet cannot be read: .*import the data again, or remove it"):
        catalog.load("BTC", "1m")
    for row in (10, 17_000):  # the damage is found where it is read, and harms no other row group
        start, end = int(BARS.timestamp[row]), int(BARS.timestamp[row + 10])
        with suppress(DataError):
            assert catalog.load("BTC", "1m", start, end).to_frame().equals(BARS.between(start, end).to_frame())
    catalog.series()


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "BTC").mkdir()
    os.mkfifo(tmp_path / "BTC" / "1m.parquet")
    assert Catalog(tmp_path, cache_bytes=0).series() == []
    with pytest.raises(DamagedFile, match="no regular file"), open_series(tmp_path / "BTC" / "1m.parquet"):
        pass


def test_a_file_that_was_copied_to_another_name_is_not_taken_for_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "ETH").mkdir()
    (tmp_path / "ETH" / "1m.parquet").write_bytes(content)
    catalog = Catalog(tmp_path, cache_bytes=0)
    assert catalog.series() == []
    with pytest.raises(DataError, match="it holds BTC 1m"):
        catalog.load("ETH", "1m")


def has_checksums(path: Path) -> bool:
    with open_series(path) as file:
        return file.row_groups is not None


def test_a_reader_of_a_file_that_is_replaced_has_the_old_bars(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, cache_bytes=0)
    catalog.write(BARS)
    with open_series(tmp_path / "BTC" / "1m.parquet") as file:
        catalog.write(BARS[:5])
        assert file.read().equals(BARS.to_frame())
    assert len(catalog.load("BTC", "1m")) == 5


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_range_of_a_file_is_the_slice_of_its_bars(content: bytes, place: Path, data: st.DataObject) -> None:
    place.write_bytes(content)
    around = st.integers(int(BARS.timestamp[0]) - 10**9, int(BARS.timestamp[-1]) + 10**9)
    at = st.one_of(st.none(), around, st.sampled_from(BARS.timestamp.tolist()))
    start, end = data.draw(at), data.draw(at)
    with open_series(place) as file:
        assert file.read(start, end).equals(BARS.between(start, end).to_frame())


def test_a_small_range_reads_its_row_group_alone(content: bytes, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write_bytes(content)
    checked: list[range] = []
    monkeypatch.setattr(SeriesFile, "_check", lambda _, groups: checked.append(groups))
    with open_series(place) as file:
        file.read(int(BARS.timestamp[17_000]), int(BARS.timestamp[17_010]))
    assert checked == [range(1, 2)]


def test_bars_before_1970_have_row_groups_too(tmp_path: Path) -> None:
    early = Bars("X", "1d", np.arange(-5, 5) * 86_400_000_000, *[np.ones(10)] * 5)
    info = SeriesInfo(symbol="X", timeframe="1d", start_time=-5 * 86_400_000, end_time=4 * 86_400_000, bars=10)
    write_series(tmp_path / "1d.parquet", early.to_frame(), info)
    with open_series(tmp_path / "1d.parquet") as file:
        assert file.info == info
        assert file.read(-86_400_000_000, 0).height == 1


def legacy(path: Path) -> None:
    """Write a file as version 0.1 did."""
    info = '{"symbol":"BTC","timeframe":"1m","startTime":0,"endTime":1,"bars":20000}'
    path.parent.mkdir()
    BARS.to_frame().write_parquet(path, metadata={"backtestr.series": info})


def test_a_file_of_version_0_1_is_read_apart_once_and_has_checksums_then(tmp_path: Path) -> None:
    path = tmp_path / "BTC" / "1m.parquet"
    legacy(path)
    read: list[tuple[Path, str, str]] = []

    def read_apart(path: Path, symbol: str, timeframe: str) -> Bars:
        read.append((path, symbol, timeframe))
        return BARS

    catalog = Catalog(tmp_path, cache_bytes=1 << 30, read_apart=read_apart)
    assert catalog.load("BTC", "5m").to_frame().equals(resample(BARS, "5m").to_frame())
    assert len(Catalog(tmp_path, cache_bytes=0, read_apart=read_apart).load("BTC", "1m")) == 20_000
    assert read == [(path, "BTC", "1m")]
    assert has_checksums(path)


def test_a_damaged_file_of_version_0_1_is_named(tmp_path: Path) -> None:
    path = tmp_path / "BTC" / "1m.parquet"
    legacy(path)

    def read_apart(*_: object) -> Bars:
        raise DataError("the process that read it was lost")

    with pytest.raises(DataError, match=r"BTC/1m\.parquet cannot be read: the process that read it was lost; import"):
        Catalog(tmp_path, cache_bytes=0, read_apart=read_apart).load("BTC", "1m")
    assert len(Catalog(tmp_path, cache_bytes=0).load("BTC", "1m")) == 20_000


def test_a_file_of_version_0_1_that_is_imported_anew_while_it_is_read_stays_imported(tmp_path: Path) -> None:
    path = tmp_path / "BTC" / "1m.parquet"
    legacy(path)

    def read_apart(*_: object) -> Bars:
        Catalog(tmp_path, cache_bytes=0).write(BARS[:7])
        return BARS

    assert len(Catalog(tmp_path, cache_bytes=0, read_apart=read_apart).load("BTC", "1m")) == 7


@pytest.mark.parametrize("symbol", ["crc32:00000000:" + "0" * 36, "backtestr.row_groups", '{"symbol":"A"', 'a"b\\c}'])
def test_a_symbol_that_looks_like_the_metadata_is_a_symbol(symbol: str, tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, cache_bytes=0)
    info = catalog.write(synthetic_bars("1d", 5, symbol=symbol))
    assert catalog.series() == [info]
    assert len(Catalog(tmp_path, cache_bytes=0).load(symbol, "1d")) == 5
