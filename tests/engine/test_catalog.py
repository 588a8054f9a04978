"""The catalogue: atomic files, lazy reading, resampling on the way out, and a bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backtestr_engine.bars import resample
from backtestr_engine.catalog import Catalog, folder_name
from backtestr_engine.files import replace_file
from backtestr_engine.synthetic import synthetic_bars, write_synthetic
from backtestr_engine.timeframes import LENGTH_US
from backtestr_protocol.errors import DataError, ValidationError

MINUTES = synthetic_bars("1m", 3_000, symbol="BTC")
DAY = LENGTH_US["1d"]
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
        catalog.write(synthetic_bars(timeframe, 3, symbol=symbol))  # type: ignore[arg-type]

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


def test_the_least_recently_used_series_leaves_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_timeframe_that_cannot_be_made_says_what_there_is(catalog: Catalog) -> None:
    catalog.write(synthetic_bars("1d", 3, symbol="BTC"))
    with pytest.raises(DataError, match=r"no 1m bars of BTC, and none to make them from \(there are: 1d\)") as caught:
        catalog.load("BTC", "1m")
    assert caught.value.details is not None
    assert caught.value.details["known"] == ["1d"]


def test_a_range_without_bars_says_what_range_there_is(catalog: Catalog) -> None:
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
def test_what_cannot_be_a_symbol_is_refused(symbol: str, catalog: Catalog) -> None:
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


def test_a_damaged_file_is_named(catalog: Catalog, tmp_path: Path) -> None:
    catalog.write(MINUTES)
    file = next(tmp_path.rglob("*.parquet"))
    file.write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"BTC/1m\.parquet cannot be read"):
        catalog.load("BTC", "1m")
    catalog.write(synthetic_bars("1d", 3, symbol="ETH"))
    assert [info.symbol for info in catalog.series()] == ["ETH"]


def test_no_bars_are_not_stored(catalog: Catalog) -> None:
    with pytest.raises(DataError, match="no bars to store"):
        catalog.write(MINUTES[:0])


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("old")

    def fail_half_way() -> None:
        with replace_file(path) as file:
            file.write(b"new")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk is full"):
        fail_half_way()
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]
    assert path.read_text() == "old"


def test_the_synthetic_series_are_the_same_everywhere(catalog: Catalog) -> None:
    infos = write_synthetic(catalog)

    assert [(info.symbol, info.timeframe, info.bars) for info in infos] == [
        ("SYNTH", "1m", 20_000),
        ("SYNTH", "1d", 1_000),
    ]
    assert float(catalog.load("SYNTH", "1d").close[-1]) == pytest.approx(84.95887824338064, rel=1e-12)
