"""The example of a feed loses no price and reads no further while its broker is away."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from backtestr_protocol.errors import BacktestrError, Busy, NetworkError, TimedOut, ValidationError
from support.harness import ROOT


@pytest.fixture
def csv_feed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("csv_feed", ROOT / "examples" / "csv_feed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TRY_AGAIN_AFTER", 0.0)
    return module


class AllPublished(Exception):
    """This error ends the feed, which does not end by itself."""


class Broker:
    """This stand-in for a client raises each of `refusals` once, and then takes all prices."""

    def __init__(self, expected: int, *refusals: BacktestrError) -> None:
        self.published: list[float] = []
        self.sizes: list[int] = []
        self._expected = expected
        self._refusals = list(refusals)

    def publish_prices(self, prices: list[Any]) -> int:
        self.sizes.append(len(prices))
        if self._refusals:
            raise self._refusals.pop(0)
        self.published += [price.last for price in prices]
        if len(self.published) == self._expected:
            raise AllPublished
        return len(prices)


class Rows:
    """This stand-in for the file, which `follow` reads to its end, has `count` prices and counts those read."""

    header = ("timestamp", "last")

    def __init__(self, count: int) -> None:
        self._count = count
        self.read = 0

    def new_rows(self) -> Iterator[list[str]]:
        for number in range(1, self._count + 1):
            self.read = number
            yield [str(number), str(number)]


def test_it_waits_for_a_broker_that_is_away(csv_feed: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    broker = Broker(1_000, TimedOut("no answer"), NetworkError("no broker"), Busy("too much to do"))
    rows = Rows(1_200)
    with pytest.raises(AllPublished):
        csv_feed.follow(broker, rows, "FEED", "tick")
    assert broker.published == [*range(1, 1_001)]
    assert broker.sizes == [500] * 5
    assert rows.read == 1_000, "no row was read before the earlier ones had been published"
    said = capsys.readouterr().err.splitlines()
    assert said == [f"not published yet: {why}" for why in ("no answer", "no broker", "too much to do")]


def test_it_waits_for_a_broker_that_goes_away_after_a_refusal(csv_feed: ModuleType) -> None:
    broker = Broker(1_000, ValidationError("$.prices[0].bid: no"), TimedOut("no answer"))
    with pytest.raises(AllPublished):
        csv_feed.follow(broker, Rows(1_000), "FEED", "tick")
    assert broker.published == [*range(1, 1_001)]
