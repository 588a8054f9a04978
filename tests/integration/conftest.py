"""One broker process for all tests that leave it as they found it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.harness import ROOT, RawClient, RunningBroker, running_broker

# Heartbeats ten times a second, so that no test waits long for the next.
QUICK = "[limits]\nheartbeat_interval_ms = 100\nwatermark_interval_ms = 50\n"


@pytest.fixture(scope="session")
def broker() -> Iterator[RunningBroker]:
    """A broker on an empty catalogue, so with the SYNTH series."""
    with running_broker({"broker.toml": QUICK}) as running:
        yield running


@pytest.fixture
def raw_client(broker: RunningBroker) -> Iterator[RawClient]:
    """A raw client with an open session."""
    with RawClient(broker.connection_file) as client:
        client.hello()
        yield client


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real market data: `$BACKTESTR_TEST_DATA`, else `shared/data` beside the checkout."""
    folder = Path(os.environ.get("BACKTESTR_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real market data in {folder}; name a folder in BACKTESTR_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def goog_csv() -> Path:
    """GOOG daily, 2,148 bars, as the `backtesting` wheel carries it."""
    spec = importlib.util.find_spec("backtesting")
    if spec is None or spec.origin is None:
        pytest.skip("the backtesting wheel, whose GOOG series this runs on, is not installed")
    return Path(spec.origin).parent / "test" / "GOOG.csv"
