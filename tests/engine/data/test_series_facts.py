"""Requests about stored series: facts, storing other timeframes, and deleting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backtestr_engine.data.bars import COLUMNS, Bars, resample
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.series_facts import delete, describe, store_resampled
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_protocol.errors import BacktestrError, DataError, InvalidConfiguration, ValidationError
from backtestr_protocol.messages import DeleteMarketData, DescribeMarketData, ResampleMarketData, SeriesFacts, SeriesGap

MINUTES = synthetic_bars("1m", 3_000, symbol="X")
MINUTE_MS = 60_000
START_MS = int(MINUTES.timestamp[0]) // 1000


def without(bars: Bars, *missing: slice) -> Bars:
    kept = np.ones(len(bars), dtype=np.bool_)
    for rows in missing:
        kept[rows] = False
    return Bars(bars.symbol, bars.timeframe, *(getattr(bars, name)[kept] for name in COLUMNS))


def facts(catalog: Catalog, timeframe: str = "1m") -> SeriesFacts:
    return describe(catalog, DescribeMarketData(symbol="X", timeframe=timeframe))


def resampled(catalog: Catalog, finer: str, coarser: str) -> Any:
    return store_resampled(catalog, ResampleMarketData(symbol="X", from_timeframe=finer, to_timeframe=coarser))


def test_a_series_without_gaps(catalog: Catalog) -> None:
    catalog.write(MINUTES)

    assert facts(catalog) == SeriesFacts(
        symbol="X",
        timeframe="1m",
        start_time=START_MS,
        end_time=START_MS + 2_999 * MINUTE_MS,
        bars=3_000,
        made_from="1m",
        low=float(MINUTES.low.min()),
        high=float(MINUTES.high.max()),
        volume=float(MINUTES.volume.sum()),
        gaps=0,
        missing_bars=0,
        longest_gaps=[],
    )


def test_gaps_are_counted_and_the_longest_are_listed_first(catalog: Catalog) -> None:
    catalog.write(without(MINUTES, slice(10, 11), slice(100, 400), slice(500, 520)))
    found = facts(catalog)

    assert (found.bars, found.gaps, found.missing_bars) == (2_679, 3, 321)
    assert found.longest_gaps == [
        SeriesGap(
            start_time=START_MS + first * MINUTE_MS, end_time=START_MS + last * MINUTE_MS, missing_bars=last - first
        )
        for first, last in ((100, 400), (500, 520), (10, 11))
    ]
    hours = facts(catalog, "1h")
    assert (hours.made_from, hours.gaps, hours.missing_bars) == ("1m", 1, 4)


def test_only_ten_gaps_are_listed(catalog: Catalog) -> None:
    catalog.write(without(MINUTES, *(slice(at, at + 1) for at in range(10, 1_000, 20))))
    found = facts(catalog)

    assert (found.gaps, len(found.longest_gaps)) == (50, 10)
    assert found.longest_gaps[0].start_time == START_MS + 10 * MINUTE_MS


@pytest.mark.parametrize("coarser", ["5m", "15m", "30m", "1h", "4h", "1d", "1w"])
def test_minutes_make_every_timeframe(coarser: Any, catalog: Catalog) -> None:
    catalog.write(MINUTES)
    answer = resampled(catalog, "1m", coarser)

    assert (answer.timeframe, answer.warnings) == (coarser, [])
    assert catalog.load_stored("X", coarser).to_frame().equals(resample(MINUTES, coarser).to_frame())
    again = resampled(catalog, "1m", coarser)
    assert again.warnings[0].startswith(f"replaced {answer.bars:,} bars from 2024-01-01")


@pytest.mark.parametrize(
    ("finer", "coarser", "error", "message"),
    [
        ("1m", "1x", ValidationError, "unknown timeframe '1x'"),
        (
            "1m",
            "1m",
            InvalidConfiguration,
            r"1m bars cannot be made of 1m bars \(1m makes among others 2m, 3m, 5m, 10m, 15m, 20m, 30m, 45m, 1h, 2h",
        ),
        (
            "1h",
            "1m",
            InvalidConfiguration,
            r"1m bars cannot be made of 1h bars \(1h makes among others 2h, 3h, 4h, 6h, 8h, 12h, 1d, 3d, 1w, 2w, 1M",
        ),
        ("12M", "1d", InvalidConfiguration, r"\(12M makes nothing longer\)"),
        ("5m", "1h", DataError, r"X is not stored in 5m \(there are: 1m\)"),
    ],
)
def test_an_impossible_resampling_is_refused(
    finer: str, coarser: str, error: type[BacktestrError], message: str, catalog: Catalog
) -> None:
    catalog.write(MINUTES)
    with pytest.raises(error, match=message):
        resampled(catalog, finer, coarser)
    assert [info.timeframe for info in catalog.series()] == ["1m"]


def test_a_series_and_a_symbol_can_be_deleted(catalog: Catalog) -> None:
    catalog.write(MINUTES)
    resampled(catalog, "1m", "1h")
    assert delete(catalog, DeleteMarketData(symbol="X", timeframe="1h")).timeframes == ["1h"]
    with pytest.raises(ValidationError, match="unknown timeframe '1hour'"):
        delete(catalog, DeleteMarketData(symbol="X", timeframe="1hour"))
    with pytest.raises(DataError, match=r"unknown symbol 'x'; did you mean 'X'\?"):
        delete(catalog, DeleteMarketData(symbol="x"))
    assert delete(catalog, DeleteMarketData(symbol="X")).timeframes == ["1m"]
    assert catalog.series() == []
