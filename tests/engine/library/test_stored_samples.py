"""Parts of stored series for the look-ahead check."""

from __future__ import annotations

import msgspec
import numpy as np

from backtestr_engine.data.bars import COLUMNS
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.library.samples import SHORT_BARS
from backtestr_engine.library.stored_samples import MAX_SERIES, SeriesPart, series_parts, stored_samples


def test_each_timeframe_has_its_longest_series(catalog: Catalog) -> None:
    assert series_parts(catalog) == []
    for number in range(MAX_SERIES + 1):
        catalog.write(synthetic_bars("1m", 2_000 + number, symbol=f"M{number}"))
    catalog.write(synthetic_bars("1d", 50, symbol="D"))
    catalog.write(synthetic_bars("1d", 1, symbol="ONE"))
    parts = series_parts(catalog)

    assert [part.symbol for part in parts] == ["M4", "D", "M3", "M2"]
    assert [len(part.bars()) for part in parts] == [SHORT_BARS, 50, SHORT_BARS, SHORT_BARS]


def test_a_part_is_from_the_middle_and_survives_its_journey(catalog: Catalog) -> None:
    whole = synthetic_bars("1m", 4_000, symbol="M")
    catalog.write(whole)
    (part,) = series_parts(catalog)
    bars = msgspec.msgpack.decode(msgspec.msgpack.encode(part), type=SeriesPart).bars()

    for name in COLUMNS:
        assert np.array_equal(getattr(bars, name), getattr(whole[2_000:3_000], name))


def test_an_unreadable_series_is_left_out(catalog: Catalog) -> None:
    catalog.write(synthetic_bars("1d", 50, symbol="GOOD"))
    info = catalog.write(synthetic_bars("1d", 60, symbol="BAD"))
    (path,) = [one for one in catalog._root.rglob("1d.parquet") if "BAD" in str(one)]
    content = bytearray(path.read_bytes())
    content[100] ^= 0xFF
    path.write_bytes(bytes(content))

    assert info.bars == 60
    assert [part.symbol for part in series_parts(catalog)] == ["GOOD"]


def test_series_of_one_timeframe_are_a_panel_for_what_compares_them() -> None:
    series = [synthetic_bars("1m", 30, symbol="A"), synthetic_bars("1d", 20, symbol="B"), synthetic_bars("1m", 40)]
    alone = stored_samples(series, across=False)
    panels = stored_samples(series, across=True)

    assert [sample.name for sample in alone] == ["A 1m", "B 1d", "SYNTH 1m"]
    assert [sample.name for sample in panels] == ["A, SYNTH 1m", "B 1d"]
    assert isinstance(panels[0].bars, Panel)
    assert panels[0].bars.symbols == ("A", "SYNTH")
