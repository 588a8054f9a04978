"""The bars that a worker keeps in memory, by the version of the file and the range that they are of."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from backtestr_protocol.messages import TickPrice, Timeframe
from backtestr_protocol.system_status import CacheStatus

from .bars import Bars
from .series_file import FileVersion


class SeriesKey(NamedTuple):
    """The version of a file that was read, and the range read of it; a rewritten file has another key."""

    path: Path
    version: FileVersion
    timeframe: Timeframe
    start_us: int | None = None
    end_us: int | None = None
    price: TickPrice | None = None
    """That of the ticks that the bars were made of."""


class BarCache:
    """Series and ranges of series in memory, at most `capacity_bytes`; the least recently used is dropped first."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._bytes = 0
        self._series: OrderedDict[SeriesKey, Bars] = OrderedDict()
        self._hits = self._misses = 0

    def get(self, key: SeriesKey) -> Bars | None:
        """Return the bars, None where they are not in memory."""
        bars = self._series.get(key)
        if bars is not None:
            self._series.move_to_end(key)
        self._hits += bars is not None
        self._misses += bars is None
        return bars

    @property
    def status(self) -> CacheStatus:
        """The counters of the cache since its start."""
        return CacheStatus(hits=self._hits, misses=self._misses, bytes=self._bytes, limit_bytes=self._capacity_bytes)

    def put(self, key: SeriesKey, bars: Bars) -> None:
        """Keep bars that fit, and drop those of other versions of their file."""
        if not self.fits(bars.nbytes):
            return
        for stale in [one for one in self._series if one.path == key.path and one.version != key.version]:
            self._bytes -= self._series.pop(stale).nbytes
        self._series[key] = bars
        self._bytes += bars.nbytes
        while self._bytes > self._capacity_bytes:
            _, dropped = self._series.popitem(last=False)
            self._bytes -= dropped.nbytes

    def fits(self, nbytes: int) -> bool:
        """Return whether so many bytes could be kept."""
        return nbytes <= self._capacity_bytes
