"""The warm-up of a backtest: stored bars before its start, which the algorithm sees and the simulation does not.

The signals of these bars are dropped, and nothing else in a backtest or its metrics knows of them: only the values that
indicators have on the first tested bar depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.algorithms.parameters import Value
from backtestr_engine.data.bar_source import BarSource
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.instants import parse_instant
from backtestr_engine.data.panel import Panel
from backtestr_protocol.errors import DataError, InvalidConfiguration
from backtestr_protocol.messages import BacktestConfig, TickPrice

_GAPS = 4
"""Bars of so many times the time that they would take without gaps are read first: nights and weekends of shares."""


class WarmUpBars(msgspec.Struct, frozen=True):
    """The bars that the algorithm sees: `panel` has those of the warm-up, and then those that are tested, `tested`.

    `given` counts the bars of warm-up of each symbol; `wanted` is None where neither request nor algorithm names a
    number. `has_earlier` is true if bars are stored before the start.
    """

    panel: Panel
    tested: Panel
    given: tuple[int, ...]
    wanted: int | None
    has_earlier: bool = False

    @property
    def fewest(self) -> int:
        return min(self.given)


def warm_up_of(
    config: BacktestConfig, algorithm: Algorithm, values: Mapping[str, Value], panel: Panel, catalog: BarSource
) -> WarmUpBars:
    """Return `panel` with the warm-up of a backtest in front: the last stored bars of each symbol before its start.

    A test that begins where the stored bars begin wants no warm-up, unless the request says so. Raises
    `InvalidConfiguration` for a request of warm-up where the algorithm declares to take none, `AlgorithmError` for a
    declaration that fails, and `DataError`.
    """
    wanted = wanted_warm_up(config, algorithm, values)
    start_us = (
        int(panel.timestamp[0]) if config.start_date is None else parse_instant(config.start_date, path="$.startDate")
    )
    none = (0,) * len(panel.series)
    if wanted == 0:
        return WarmUpBars(panel, panel, none, 0)
    earlier = [_before(catalog, bars, start_us, wanted or 1, config.price) for bars in panel.series]
    has_earlier = any(len(bars) for bars in earlier)
    if wanted is None or not has_earlier:
        wanted = 0 if config.warmup is None and wanted is not None else wanted
        return WarmUpBars(panel, panel, none, wanted, has_earlier)
    series = [_joined(catalog, *parts, config.price) for parts in zip(earlier, panel.series, strict=True)]
    # Both panels are cut from what was read in one go, as the series may have been imported anew meanwhile.
    given = tuple(int(np.searchsorted(bars.timestamp, start_us)) for bars in series)
    tested = [bars[count:] for bars, count in zip(series, given, strict=True)]
    return WarmUpBars(Panel.of(series), Panel.of(tested), given, wanted, has_earlier)


def wanted_warm_up(config: BacktestConfig, algorithm: Algorithm, values: Mapping[str, Value]) -> int | None:
    """Return the bars of warm-up that a backtest wants; None where neither request nor algorithm names a number.

    Raises `InvalidConfiguration` and `AlgorithmError` as `warm_up_of` does.
    """
    declared = algorithm.warm_up(values)
    if config.warmup is None:
        return declared if config.start_date is not None else 0
    if config.warmup and declared == 0:
        raise InvalidConfiguration(
            f"{algorithm.name} takes no warm-up, since its signals count from the first bar that it sees: leave warmup "
            f"out, not {config.warmup}",
            paths=["$.warmup", "$.algorithmId"],
        )
    return config.warmup


def _joined(catalog: BarSource, earlier: Bars, bars: Bars, price: TickPrice | None) -> Bars:
    """Return `earlier` and `bars`, which follow each other in a stored series, as one slice of it."""
    if not len(earlier):
        return bars
    first_us, end_us = int(earlier.timestamp[0]), int(bars.timestamp[-1]) + 1
    return catalog.load(bars.symbol, bars.timeframe, first_us, end_us, price=price)


def _before(catalog: BarSource, bars: Bars, start_us: int, count: int, price: TickPrice | None) -> Bars:
    """Return the last `count` stored bars that open before `start_us`, or those there are."""
    length = bars.closed_at(0) - int(bars.timestamp[0])
    for first_us in (start_us - _GAPS * count * length, None):
        try:
            found = catalog.load(bars.symbol, bars.timeframe, first_us, start_us, price=price)
        except DataError as error:
            if "startTime" not in (error.details or {}):  # not that there are no bars in that range
                raise
            found = bars[:0]
        if len(found) >= count:
            break
    return found[max(0, len(found) - count) :]
