"""SYNTH: the same random walk on every machine."""

from __future__ import annotations

import numpy as np
import pytest

from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars, write_synthetic


def test_the_synthetic_series_are_the_same_everywhere(catalog: Catalog) -> None:
    infos = write_synthetic(catalog)

    assert [(info.symbol, info.timeframe, info.bars) for info in infos] == [
        ("SYNTH", "1m", 20_000),
        ("SYNTH", "1d", 1_000),
    ]
    assert float(catalog.load("SYNTH", "1d").close[-1]) == pytest.approx(84.95887824338064, rel=1e-12)


def test_synthetic_bars_have_no_gap_between_prices() -> None:
    bars = synthetic_bars("5m", 300, seed=3)

    np.testing.assert_array_equal(bars.open[1:], bars.close[:-1])
    assert (bars.low <= np.minimum(bars.open, bars.close)).all()
    assert (bars.high >= np.maximum(bars.open, bars.close)).all()
    assert not np.array_equal(bars.close, synthetic_bars("5m", 300, seed=4).close)
