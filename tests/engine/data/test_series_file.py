"""A damaged file of a series is found by its checksums, whatever byte of it is wrong, and is read by nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.data.bars import Bars, resample
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.series_file import DamagedFile, check_whole, read_footer
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_protocol.errors import DataError

BARS = synthetic_bars("1m", 3_000, symbol="BTC")


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
    footer = check_whole(place)
    assert (footer.info.symbol, footer.info.timeframe, footer.info.bars) == ("BTC", "1m", 3_000)
    assert read_footer(place) == footer
    assert footer.checksum is not None
    assert pl.read_parquet(place).height == 3_000


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
    with pytest.raises(DamagedFile):
        check_whole(place)
    catalog = Catalog(place.parent.parent, cache_bytes=0)
    with pytest.raises(DataError, match=r"BTC/1m\.parquet cannot be read: .*import the data again, or remove it"):
        catalog.load("BTC", "1m")
    with pytest.raises(DataError, match=r"1m\.parquet cannot be read"):
        catalog.load("BTC", "1m", int(BARS.timestamp[10]), int(BARS.timestamp[20]))
    catalog.series()


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "BTC").mkdir()
    os.mkfifo(tmp_path / "BTC" / "1m.parquet")
    assert Catalog(tmp_path, cache_bytes=0).series() == []
    with pytest.raises(DamagedFile, match="no regular file"):
        check_whole(tmp_path / "BTC" / "1m.parquet")


def test_a_file_that_was_copied_to_another_name_is_not_taken_for_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "ETH").mkdir()
    (tmp_path / "ETH" / "1m.parquet").write_bytes(content)
    catalog = Catalog(tmp_path, cache_bytes=0)
    assert catalog.series() == []
    with pytest.raises(DataError, match="it holds BTC 1m"):
        catalog.load("ETH", "1m")


def legacy(path: Path) -> None:
    """Write a file as version 0.1 did."""
    info = '{"symbol":"BTC","timeframe":"1m","startTime":0,"endTime":1,"bars":3000}'
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
    assert len(Catalog(tmp_path, cache_bytes=0, read_apart=read_apart).load("BTC", "1m")) == 3_000
    assert read == [(path, "BTC", "1m")]
    assert read_footer(path).checksum is not None


def test_a_damaged_file_of_version_0_1_is_named(tmp_path: Path) -> None:
    path = tmp_path / "BTC" / "1m.parquet"
    legacy(path)

    def read_apart(*_: object) -> Bars:
        raise DataError("the process that read it was lost")

    with pytest.raises(DataError, match=r"BTC/1m\.parquet cannot be read: the process that read it was lost; import"):
        Catalog(tmp_path, cache_bytes=0, read_apart=read_apart).load("BTC", "1m")
    assert len(Catalog(tmp_path, cache_bytes=0).load("BTC", "1m")) == 3_000


@pytest.mark.parametrize("symbol", ["crc32:00000000:00000000", '{"symbol":"A"', 'a"b\\c}'])
def test_a_symbol_that_looks_like_the_metadata_is_a_symbol(symbol: str, tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, cache_bytes=0)
    info = catalog.write(synthetic_bars("1d", 5, symbol=symbol))
    assert catalog.series() == [info]
    assert len(Catalog(tmp_path, cache_bytes=0).load(symbol, "1d")) == 5
