"""Fixtures of the engine's tests: the shipped conventions, an empty catalogue, and bars to put into it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.publishing.batching import Batcher
from backtestr_engine.simulation.conventions import Conventions
from support.engine.batches import batcher as new_batcher
from support.engine.cases import shipped_conventions

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def conventions() -> Conventions:
    return shipped_conventions()


@pytest.fixture
def batcher() -> Batcher:
    """Provide a batcher with the shipped options."""
    return new_batcher()


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "catalog", cache_bytes=64 << 20)


@pytest.fixture(scope="session")
def google() -> Bars:
    """Provide GOOG daily, 2,148 bars, from the installed `backtesting` wheel."""
    spec = importlib.util.find_spec("backtesting")
    if spec is None or spec.origin is None:
        pytest.skip("the backtesting wheel, whose GOOG series this runs on, is not installed")
    rows = pl.read_csv(Path(spec.origin).parent / "test" / "GOOG.csv", try_parse_dates=True)
    time = rows.to_series(0).cast(pl.Datetime("us")).to_physical().to_numpy()
    columns = [rows[name].cast(pl.Float64).to_numpy() for name in ("Open", "High", "Low", "Close", "Volume")]
    bars = Bars("GOOG", "1d", time, *columns)
    assert len(bars) == 2148
    return bars


@pytest.fixture
def real_data() -> Path:
    """Provide a folder of real CSV files, which the project does not carry."""
    folder = Path(os.environ.get("BACKTESTR_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: set BACKTESTR_TEST_DATA (looked in {folder})")
    return folder


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(20_240_101)
