"""The catalogue: atomic files, lazy reading, resampling on the way out, and a bounded memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.data.bars import resample
from backtestr_engine.data.catalog import Catalog, folder_name
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.data.timeframes import DAY_US
from backtestr_engine.importing.importer import import_market_data
from backtestr_protocol.errors import DataError, DiskUnwritable, ValidationError
from backtestr_protocol.import_messages import ImportMarketData
from backtestr_protocol.messages import Timeframe, is_symbol
from backtestr_protocol.system_status import CacheStatus

MINUTES = synthetic_bars("1m", 3_000, symbol="BTC")
DAY = DAY_US
START = int(MINUTES.timestamp[0])


def test_what_is_stored_comes_back(catalog: Catalog) -> None:
    info = catalog.write(MINUTES)

    assert catalog.load("BTC", "1m").to_frame().equals(MINUTES.to_frame())
    assert catalog.series() == [info]
    assert (info.bars, info.start_time) == (3_000, START // 1000)


def test_an_empty_catalogue_has_no_series(catalog: Catalog) -> None:
    assert catalog.series() == []
    with pytest.raises(DataError, match=r"unknown symbol 'BTC' \(there is none yet\)"):
        catalog.load("BTC", "1m")


def test_series_are_sorted(catalog: Catalog) -> None:
    for symbol, timeframe in (("B", "1d"), ("A", "1h"), ("B", "1m")):
        catalog.write(synthetic_bars(timeframe, 3, symbol=symbol))

    assert [(info.symbol, info.timeframe) for info in catalog.series()] == [("A", "1h"), ("B", "1m"), ("B", "1d")]


@pytest.mark.parametrize("cache_bytes", [0, 64 << 20])
def test_a_range_and_a_higher_timeframe_do_not_depend_on_the_cache(tmp_path: Path, cache_bytes: int) -> None:
    catalog = Catalog(tmp_path, cache_bytes=cache_bytes)
    catalog.write(MINUTES)
    start, end = START + 90 * 60_000_000, START + 1_000 * 60_000_000 + 1

    assert catalog.load("BTC", "1m", start, end).to_frame().equals(MINUTES.between(start, end).to_frame())
    hours = resample(MINUTES, "1h").between(start, end)
    assert catalog.load("BTC", "1h", start, end).to_frame().equals(hours.to_frame())
    assert catalog.load("BTC", "1h", start, end).to_frame().equals(hours.to_frame())


def test_the_finest_stored_timeframe_is_resampled_and_a_stored_one_is_preferred(catalog: Catalog) -> None:
    catalog.write(MINUTES)
    assert len(catalog.load("BTC", "1d")) == 3
    catalog.write(synthetic_bars("1d", 7, symbol="BTC"))
    assert len(catalog.load("BTC", "1d")) == 7
    assert len(catalog.load("BTC", "1w")) == 1


def test_a_second_load_reads_nothing(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.write(MINUTES)
    first = catalog.load("BTC", "1m")
    monkeypatch.setattr("polars.scan_parquet", None)

    assert np.shares_memory(catalog.load("BTC", "1m", START + 1).close, first.close)


def test_a_rewritten_series_is_read_again(catalog: Catalog) -> None:
    catalog.write(MINUTES)
    assert len(catalog.load("BTC", "1h")) == 50
    catalog.write(MINUTES[:600])
    assert len(catalog.load("BTC", "1h")) == 10


def test_the_least_recently_used_series_is_dropped_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog(tmp_path, cache_bytes=2 * MINUTES.nbytes)
    for symbol in ("A", "B", "C"):
        catalog.write(synthetic_bars("1m", 3_000, symbol=symbol))
    catalog.load("A", "1m")
    catalog.load("B", "1m")
    catalog.load("A", "1m")
    catalog.load("C", "1m")
    monkeypatch.setattr("polars.scan_parquet", None)

    assert len(catalog.load("A", "1m")) == len(catalog.load("C", "1m")) == 3_000
    with pytest.raises(TypeError):
        catalog.load("B", "1m")


def test_an_unknown_symbol_names_the_near_miss(catalog: Catalog) -> None:
    catalog.write(synthetic_bars("1m", 3, symbol="BTCPERP"))
    with pytest.raises(DataError) as caught:
        catalog.load("BTCPREP", "1m")
    assert caught.value.message == "unknown symbol 'BTCPREP'; did you mean 'BTCPERP'? (BTCPERP)"
    assert caught.value.details == {"path": "$.symbol", "symbol": "BTCPREP", "known": ["BTCPERP"]}


def test_a_timeframe_that_cannot_be_made_names_the_stored_ones(catalog: Catalog) -> None:
    catalog.write(synthetic_bars("1d", 3, symbol="BTC"))
    with pytest.raises(DataError, match=r"no 1m bars of BTC, and none to make them from \(there are: 1d\)") as caught:
        catalog.load("BTC", "1m")
    assert caught.value.details is not None
    assert caught.value.details["known"] == ["1d"]


def test_a_range_without_bars_names_the_stored_range(catalog: Catalog) -> None:
    catalog.write(synthetic_bars("1d", 10, symbol="BTC"))
    with pytest.raises(DataError) as caught:
        catalog.load("BTC", "1d", START + 100 * DAY, START + 200 * DAY)
    assert caught.value.message == (
        "no 1d bars of BTC from 2024-04-10 before 2024-07-19; there are bars from 2024-01-01 to 2024-01-10"
    )
    assert caught.value.details == {
        "symbol": "BTC",
        "timeframe": "1d",
        "startTime": START // 1000,
        "endTime": (START + 9 * DAY) // 1000,
        "bars": 10,
    }


@pytest.mark.parametrize("symbol", ["", "x" * 65, " BTC", "a\nb", "a\0b"])
def test_an_impossible_symbol_is_refused(symbol: str, catalog: Catalog) -> None:
    with pytest.raises(ValidationError) as caught:
        catalog.load(symbol, "1m")
    assert caught.value.details is not None
    assert caught.value.details["path"] == "$.symbol"


@pytest.mark.parametrize("symbol", ["../../etc/passwd", "..", ".", "BTC/USDT:USDT", "^GSPC", "EUR.USD", "~root", "ß€"])
def test_symbols_stay_inside_the_catalogue(symbol: str, catalog: Catalog, tmp_path: Path) -> None:
    catalog.write(synthetic_bars("1d", 3, symbol=symbol))

    assert [info.symbol for info in catalog.series()] == [symbol]
    assert len(catalog.load(symbol, "1d")) == 3
    assert [path.parent.parent for path in tmp_path.rglob("*.parquet")] == [tmp_path / "catalog"]


def test_different_symbols_have_different_folders() -> None:
    symbols = ["A.B", "A%2EB", "A/B", "A B", "A_B", "a.b"]

    assert len({folder_name(symbol) for symbol in symbols}) == len(symbols)


SYMBOLS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=64).filter(is_symbol)


@given(SYMBOLS, SYMBOLS)
def test_every_symbol_has_a_folder_of_its_own_that_a_file_system_takes(one: str, other: str) -> None:
    for symbol in (one, other):
        name = folder_name(symbol)
        assert len(name.encode()) <= 255
        assert set(name).isdisjoint("/.\\:*?\0")
    assert (folder_name(one) == folder_name(other)) == (one == other)


@pytest.mark.parametrize("character", ["贵", "é", "😀", "/"], ids=["three bytes", "two bytes", "four bytes", "slash"])
@pytest.mark.parametrize("count", [28, 29, 64])
def test_symbols_of_any_script_are_stored_listed_and_deleted(character: str, count: int, catalog: Catalog) -> None:
    symbol, other = character * count, character * (count - 1) + "x"
    for name in (symbol, other):
        catalog.write(synthetic_bars("1d", 3, symbol=name))
    assert [info.symbol for info in catalog.series()] == sorted([symbol, other])
    assert len(catalog.load(symbol, "1d")) == 3
    assert catalog.delete(symbol) == ["1d"]
    assert [info.symbol for info in catalog.series()] == [other]


def test_a_damaged_file_of_a_long_symbol_is_named_by_its_folder(catalog: Catalog, tmp_path: Path) -> None:
    catalog.write(synthetic_bars("1d", 3, symbol="贵" * 64))
    next(tmp_path.rglob("*.parquet")).write_bytes(b"no parquet")
    with pytest.raises(DataError, match="or remove it: its folder"):
        catalog.load("贵" * 64, "1d")


def test_a_damaged_file_is_named(catalog: Catalog, tmp_path: Path) -> None:
    catalog.write(MINUTES)
    file = next(tmp_path.rglob("*.parquet"))
    file.write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"BTC/1m\.parquet cannot be read"):
        catalog.load("BTC", "1m")
    catalog.write(synthetic_bars("1d", 3, symbol="ETH"))
    assert [info.symbol for info in catalog.series()] == ["ETH"]


# --- reading only the range ---


def zero_outside(path: Path, first: float, last: float) -> None:
    """Zero the bytes of a Parquet file's data before and after a part of it; its footer stays."""
    content = bytearray(path.read_bytes())
    data = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    begin, end = int(first * data), int(last * data)
    content[4:begin] = bytes(begin - 4)
    content[end:data] = bytes(data - end)
    path.write_bytes(content)


@pytest.mark.parametrize("timeframe", ["1m", "1h", "1d"])
def test_a_day_of_five_years_of_minutes_reads_its_row_groups_only(
    timeframe: Timeframe, catalog: Catalog, tmp_path: Path
) -> None:
    years = synthetic_bars("1m", 5 * 365 * 1440, symbol="BTC")
    catalog.write(years)
    start = START + 900 * DAY
    zero_outside(next(tmp_path.rglob("*.parquet")), 0.48, 0.51)

    day = catalog.load("BTC", timeframe, start, start + DAY)
    assert day.to_frame().equals(resample(years.between(start, start + DAY), timeframe).to_frame())
    with pytest.raises(DataError, match="cannot be read"):
        catalog.load("BTC", timeframe, start - 60 * DAY, start)  # the zeroed bytes were not read before


def test_a_short_range_is_read_once(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.write(MINUTES)
    first = catalog.load("BTC", "1m", START, START + 100 * 60_000_000)
    monkeypatch.setattr("polars.scan_parquet", None)

    assert np.shares_memory(catalog.load("BTC", "1m", START, START + 100 * 60_000_000).close, first.close)
    with pytest.raises(TypeError):
        catalog.load("BTC", "1m", START, START + 101 * 60_000_000)


def test_ranges_of_a_series_in_memory_come_from_memory(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.write(MINUTES)
    whole = catalog.load("BTC", "1m")
    monkeypatch.setattr("polars.scan_parquet", None)

    assert np.shares_memory(catalog.load("BTC", "1m", START, START + 60_000_000).close, whole.close)
    assert len(catalog.load("BTC", "1h", START, START + 2 * 3600 * 1_000_000)) == 2


def test_what_comes_from_memory_is_counted(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, cache_bytes=64 << 20)
    catalog.write(MINUTES)
    assert catalog.cache_status == CacheStatus(hits=0, misses=0, bytes=0, limit_bytes=64 << 20)
    catalog.load("BTC", "1m")
    first = catalog.cache_status
    assert (first.hits, first.misses > 0, first.bytes) == (0, True, MINUTES.nbytes)
    catalog.load("BTC", "1m")
    assert catalog.cache_status.hits > 0
    assert catalog.cache_status.misses == first.misses


@pytest.mark.parametrize("timeframe", ["5m", "1h", "4h", "1d", "1w"])
def test_any_range_of_any_timeframe_is_the_slice_of_the_whole(
    timeframe: Timeframe, tmp_path: Path, generator: np.random.Generator
) -> None:
    long = synthetic_bars("1m", 40_000, symbol="BTC")
    whole = resample(long, timeframe)
    catalog = Catalog(tmp_path, cache_bytes=0)
    catalog.write(long)
    for start, end in np.sort(generator.integers(START, int(long.timestamp[-1]), (20, 2)), axis=1).tolist():
        expected = whole.between(start, end)
        if len(expected):
            assert catalog.load("BTC", timeframe, start, end).to_frame().equals(expected.to_frame())


def test_readers_see_the_old_series_or_the_new_one_while_it_is_imported_again(tmp_path: Path) -> None:
    versions = [synthetic_bars("1m", 17_000 + 100 * seed, symbol="BTC", seed=seed) for seed in range(4)]
    Catalog(tmp_path, cache_bytes=0).write(versions[0])
    by_length = {len(bars): bars.to_frame() for bars in versions}

    def write_on() -> None:
        writer = Catalog(tmp_path, cache_bytes=0)
        for bars in versions * 10:
            writer.write(bars)

    reader, seen, day = Catalog(tmp_path, cache_bytes=0), set(), START + DAY
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_on)
        while not writing.done():
            found = reader.load("BTC", "1m").to_frame()
            assert found.equals(by_length[found.height])
            seen.add(found.height)
            part = reader.load("BTC", "1m", day, day + DAY).to_frame()
            assert any(part.equals(bars.between(day, day + DAY).to_frame()) for bars in versions)
        writing.result()
    assert len(seen) > 1  # it was replaced meanwhile


@pytest.mark.parametrize("timeframe", ["1d", "3d", "1w", "1M"])
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "Pacific/Auckland", "UTC"])
def test_any_range_of_dates_made_of_hours_of_a_zone_is_the_slice_of_the_whole(
    timeframe: Timeframe, zone: str, tmp_path: Path, generator: np.random.Generator
) -> None:
    hours = replace(synthetic_bars("1h", 24 * 120, symbol="BTC"), zone=zone)
    catalog = Catalog(tmp_path, cache_bytes=0)
    info = catalog.write(hours)
    assert (info.time_zone, catalog.load("BTC", "1h").zone) == (None if zone == "UTC" else zone, zone)
    assert catalog.series() == [info]
    whole = resample(hours, timeframe)
    assert whole.timestamp[0] % DAY == 0
    for start, end in np.sort(generator.integers(START, int(hours.timestamp[-1]), (20, 2)), axis=1).tolist():
        expected = whole.between(start, end)
        if len(expected):
            assert catalog.load("BTC", timeframe, start, end).to_frame().equals(expected.to_frame())


def test_series_of_any_timeframe_are_stored_beside_each_other(catalog: Catalog, tmp_path: Path) -> None:
    timeframes = ["1s", "1m", "90m", "2h", "1d", "1w", "1M", "12M"]
    for timeframe in reversed(timeframes):
        catalog.write(synthetic_bars(timeframe, 30, symbol="BTC"))
    assert [info.timeframe for info in catalog.series()] == catalog.stored("BTC") == timeframes
    names = [path.name for path in tmp_path.rglob("*.parquet")]
    assert len({name.casefold() for name in names}) == len(timeframes)
    assert catalog.source_of("BTC", "3M") == "1s"
    assert len(catalog.load("BTC", "60m")) == 1
    assert catalog.delete("BTC", "1M") == ["1M"]
    assert "1m" in catalog.stored("BTC")


# --- deleting ---


def test_a_series_can_be_deleted_by_itself_or_with_its_symbol(catalog: Catalog, tmp_path: Path) -> None:
    catalog.write(MINUTES)
    catalog.write(synthetic_bars("1d", 3, symbol="BTC"))
    catalog.load("BTC", "1m")
    assert catalog.delete("BTC", "1m") == ["1m"]
    assert len(catalog.load("BTC", "1d")) == 3
    with pytest.raises(DataError, match=r"BTC is not stored in 1m \(there are: 1d\)"):
        catalog.delete("BTC", "1m")
    catalog.write(MINUTES)
    next(tmp_path.rglob("1m.parquet")).write_bytes(b"damaged")
    assert catalog.delete("BTC") == ["1m", "1d"]
    assert list((tmp_path / "catalog").iterdir()) == []
    with pytest.raises(DataError, match="unknown symbol 'BTC'"):
        catalog.delete("BTC")


def test_only_a_stored_series_is_loaded_as_stored(catalog: Catalog) -> None:
    catalog.write(MINUTES)

    assert len(catalog.load_stored("BTC", "1m")) == 3_000
    with pytest.raises(DataError, match=r"BTC is not stored in 1h \(there are: 1m\)"):
        catalog.load_stored("BTC", "1h")


# --- writing ---


def test_an_empty_series_is_not_stored(catalog: Catalog) -> None:
    with pytest.raises(DataError, match="no bars to store"):
        catalog.write(MINUTES[:0])


def kill_at(function: str) -> str:
    """Return a program that imports a file and is killed when it calls `function` of the file layer."""
    return f"""
import os, signal, sys
from pathlib import Path
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.importing.importer import import_market_data
from backtestr_protocol.import_messages import ImportMarketData

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

{function} = killed
path, root, symbol = sys.argv[1:]
import_market_data(Catalog(Path(root), cache_bytes=0), ImportMarketData(path=path, symbol=symbol))
"""


@pytest.mark.parametrize("function", ["Path.replace", "os.fsync"])
@pytest.mark.parametrize("symbol", ["BTC", "NEW"])
def test_an_import_that_is_killed_leaves_the_catalogue_as_it_was(
    function: str, symbol: str, catalog: Catalog, tmp_path: Path
) -> None:
    catalog.write(MINUTES)
    before = catalog.series()
    file = tmp_path / "bars.csv"
    synthetic_bars("1m", 50).to_frame().write_csv(file)
    program = [sys.executable, "-c", kill_at(function), str(file), str(tmp_path / "catalog"), symbol]
    killed = subprocess.run(program, check=False, capture_output=True)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(tmp_path.rglob("*.partial"))) == 1  # it had begun to write
    assert catalog.series() == before
    assert catalog.load("BTC", "1m").to_frame().equals(MINUTES.to_frame())
    import_market_data(catalog, ImportMarketData(path=str(file), symbol=symbol))
    assert [path.name for path in (tmp_path / "catalog" / symbol).iterdir()] == ["1m.parquet"]


def test_a_full_disk_leaves_the_catalogue_as_it_was(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.write(MINUTES)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        DiskUnwritable, match=r"BTC/1m\.parquet cannot be written, and is as it was: .*No space left on device"
    ):
        catalog.write(MINUTES[:10])
    assert len(catalog.load("BTC", "1m")) == 3_000
    assert list(tmp_path.rglob("*.partial")) == []


@pytest.mark.parametrize("symbol", ["CON", "nul", "Com1", "LPT9"])
def test_a_symbol_that_windows_takes_for_a_device_has_a_folder_all_the_same(
    symbol: str, catalog: Catalog, tmp_path: Path
) -> None:
    catalog.write(synthetic_bars("1d", 3, symbol=symbol))
    (folder,) = (path.parent.name for path in tmp_path.rglob("*.parquet"))
    assert folder.startswith("%")
    assert [info.symbol for info in catalog.series()] == [symbol]
    assert len(catalog.load(symbol, "1d")) == 3


def test_a_file_system_that_ignores_case_loses_no_series(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, the folder of `btc` is that of `BTC`, and is listed under the name that it was made with."""
    catalog.write(synthetic_bars("1d", 3, symbol="BTC"))
    (tmp_path / "catalog" / "btc").symlink_to(tmp_path / "catalog" / "BTC")
    monkeypatch.setattr(os, "listdir", lambda _folder: ["BTC"])
    with pytest.raises(DataError, match=r"BTC is stored here.*does not tell it from btc.*data delete BTC"):
        catalog.write(synthetic_bars("1d", 5, symbol="btc"))
    assert len(catalog.load("BTC", "1d")) == 3
