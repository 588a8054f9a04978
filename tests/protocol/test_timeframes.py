"""Every timeframe has its length, and the lengths are in order."""

from __future__ import annotations

from typing import get_args

from backtestr_protocol.messages import Timeframe
from backtestr_protocol.timeframes import LENGTH_MS

SECONDS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def test_every_timeframe_has_the_length_that_its_name_states() -> None:
    assert set(LENGTH_MS) == set(get_args(Timeframe))
    assert all(length == 1000 * int(name[:-1]) * SECONDS[name[-1]] for name, length in LENGTH_MS.items())


def test_the_finest_timeframe_comes_first() -> None:
    assert list(LENGTH_MS.values()) == sorted(LENGTH_MS.values())
