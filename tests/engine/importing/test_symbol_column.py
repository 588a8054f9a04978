"""Files of several symbols are refused by name, or each symbol becomes a series."""

from __future__ import annotations

from pathlib import Path

import msgspec
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.importing import symbol_column as module
from backtestr_engine.importing.importer import import_market_data, read_file
from backtestr_protocol.errors import DataError, SeveralSymbols, ValidationError
from backtestr_protocol.import_messages import ImportMarketData
from support.engine.reading import read_bars

SYMBOLS = ("MSFT", "AAPL", "BRK.B")


def frame(symbols: tuple[str, ...] = SYMBOLS, rows: int = 20, column: str = "ticker") -> pl.DataFrame:
    """Return bars of several symbols, one day of all after the other."""
    parts = [
        synthetic_bars("1d", rows + at, symbol=symbol).to_frame().with_columns(pl.lit(symbol).alias(column))
        for at, symbol in enumerate(symbols)
    ]
    return pl.concat(parts).sort("timestamp", maintain_order=True)


def write(data: pl.DataFrame, path: Path) -> Path:
    data.write_parquet(path) if path.suffix == ".parquet" else data.write_csv(path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("column", ["ticker", "Symbol", "code", "Name"])
def test_several_symbols_are_refused_with_the_column_and_its_values(column: str, suffix: str, tmp_path: Path) -> None:
    path = write(frame(column=column), tmp_path / f"bars{suffix}")
    with pytest.raises(SeveralSymbols) as caught:
        read_bars(path, "X")
    assert caught.value.message == (
        f"bars{suffix} holds several symbols: column {column!r} has 3 values (MSFT, AAPL, BRK.B)"
    )
    assert caught.value.details == {
        "path": "$.symbolColumn",
        "column": column,
        "count": 3,
        "values": ["MSFT", "AAPL", "BRK.B"],
    }
    assert [one.action for one in caught.value.recovery_actions] == ["name_symbol_column"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("newest_first", [False, True])
def test_each_symbol_becomes_a_series(suffix: str, newest_first: bool, tmp_path: Path, catalog: Catalog) -> None:
    data = frame()
    path = write(data.reverse() if newest_first else data, tmp_path / f"bars{suffix}")
    answer = import_market_data(catalog, ImportMarketData(path=str(path), symbol_column="ticker"))

    assert [(one.symbol, one.timeframe, one.bars) for one in answer.series] == [
        ("AAPL", "1d", 21),
        ("BRK.B", "1d", 22),
        ("MSFT", "1d", 20),
    ]
    assert (answer.symbol, answer.bars) == ("AAPL", 21)
    assert catalog.series() == answer.series
    for at, symbol in enumerate(SYMBOLS):
        expected = synthetic_bars("1d", 20 + at, symbol=symbol).to_frame()
        assert catalog.load(symbol, "1d").to_frame().equals(expected)
    turned = [note for note in answer.warnings if "newest first" in note]
    assert len(turned) == int(newest_first)


def test_one_symbol_can_be_chosen(tmp_path: Path) -> None:
    path = write(frame(), tmp_path / "bars.csv")
    read = read_bars(path, "AAPL", symbol_column="ticker")
    assert read.bars.to_frame().equals(synthetic_bars("1d", 21, symbol="AAPL").to_frame())
    with pytest.raises(DataError, match=r"no row of 'AAPLE' in column 'ticker'; did you mean 'AAPL'\? \(AAPL, BRK"):
        read_bars(path, "AAPLE", symbol_column="ticker")


def test_a_column_of_one_value_is_no_matter(tmp_path: Path) -> None:
    path = write(frame(("AAPL",)), tmp_path / "bars.csv")
    assert read_bars(path, "Apple").bars.symbol == "Apple"


def test_the_column_must_be_there_and_its_cells_must_be_symbols(tmp_path: Path) -> None:
    path = write(frame(), tmp_path / "bars.csv")
    with pytest.raises(ValidationError, match="there is no column 'tickr'; did you mean 'ticker'"):
        read_bars(path, "AAPL", symbol_column="tickr")
    with pytest.raises(ValidationError, match=r"\$\.symbol is missing"):
        read_file(ImportMarketData(path=str(path)))
    path.write_text("symbol,time,open,high,low,close\nA,2024-03-04,1,1,1,1\n ,2024-03-04,1,1,1,1\n")
    with pytest.raises(DataError, match="line 3, column 'symbol': is empty; every row needs a symbol"):
        read_file(ImportMarketData(path=str(path), symbol_column="symbol"))
    path.write_text(f"symbol,time,open,high,low,close\n{'A' * 65},2024-03-04,1,1,1,1\n")
    with pytest.raises(ValidationError, match="a symbol is 1 to 64"):
        read_file(ImportMarketData(path=str(path), symbol_column="symbol", timeframe="1d"))


def test_nothing_is_stored_unless_every_series_is_sound(tmp_path: Path, catalog: Catalog) -> None:
    data = frame().with_row_index("at")
    broken = data.with_columns(pl.when(pl.col("at") == 30).then(-1.0).otherwise(pl.col("low")).alias("low")).drop("at")
    path = write(broken, tmp_path / "bars.csv")
    request = ImportMarketData(path=str(path), symbol_column="ticker")
    with pytest.raises(DataError, match="line 32, column 'low': low is zero or negative"):
        import_market_data(catalog, request)
    assert catalog.series() == []
    answer = import_market_data(catalog, ImportMarketData(path=str(path), symbol_column="ticker", repair="drop"))
    assert [(one.count, one.first) for one in answer.dropped] == [(1, [32])]
    assert sum(one.bars for one in answer.series) == 62


def test_a_symbol_with_one_bar_has_the_timeframe_of_the_others(tmp_path: Path) -> None:
    data = pl.concat([frame(), synthetic_bars("1d", 1).to_frame().with_columns(pl.lit("NEW").alias("ticker"))])
    path = write(data, tmp_path / "bars.parquet")
    series = read_file(ImportMarketData(path=str(path), symbol_column="ticker")).series
    assert [(one.symbol, one.timeframe, len(one)) for one in series if one.symbol == "NEW"] == [("NEW", "1d", 1)]


def test_too_many_symbols_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(frame(), tmp_path / "bars.csv")
    monkeypatch.setattr(module, "MAX_SERIES", 2)
    with pytest.raises(DataError, match="one import makes at most 2 series; import one after the other"):
        read_file(ImportMarketData(path=str(path), symbol_column="ticker"))
    assert len(read_bars(path, "AAPL", symbol_column="ticker").bars) == 21


def test_notes_that_all_series_share_are_said_once(tmp_path: Path) -> None:
    path = write(frame().drop("volume"), tmp_path / "bars.csv")
    notes = read_file(ImportMarketData(path=str(path), symbol_column="ticker", timeframe="1d")).warnings
    assert notes == ["no volume column: volume is 0"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(rows=st.lists(st.sampled_from(["A", "B", "C"]), min_size=1, max_size=60))
def test_parting_by_symbol_is_filtering(rows: list[str], tmp_path: Path) -> None:
    data = synthetic_bars("1h", len(rows)).to_frame().with_columns(pl.Series("symbol", rows))
    data = data.with_columns(data["timestamp"].gather(data.select(pl.int_range(pl.len()).over("symbol")).to_series()))
    path = write(data, tmp_path / "bars.csv")
    series = read_file(ImportMarketData(path=str(path), symbol_column="symbol", timeframe="1h", repair="drop")).series
    assert [one.symbol for one in series] == sorted(set(rows))
    for one in series:
        assert one.to_frame().equals(data.filter(pl.col("symbol") == one.symbol).drop("symbol"))


def test_a_timeframe_that_all_symbols_contradict_is_refused(tmp_path: Path) -> None:
    days = [f"2024-{month:02}-01" for month in range(1, 9)]
    lines = [f"{day},{symbol},10,12,9,11,1" for day in days for symbol in ("A", "B")]
    path = tmp_path / "months.csv"
    path.write_text("date,symbol,open,high,low,close,volume\n" + "\n".join(lines) + "\n")
    request = ImportMarketData(path=str(path), symbol_column="symbol")
    assert [one.timeframe for one in read_file(request).series] == ["1M", "1M"]
    with pytest.raises(DataError, match=r"holds longer bars than 1d: .*name 1M"):
        read_file(msgspec.structs.replace(request, timeframe="1d"))
