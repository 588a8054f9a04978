"""The cache keeps what fits, drops the least recently used first, and forgets other versions of a file."""

from __future__ import annotations

from pathlib import Path

from backtestr_engine.data.bar_cache import BarCache, SeriesKey
from backtestr_engine.data.series_file import FileVersion
from backtestr_engine.data.synthetic import synthetic_bars

BARS = synthetic_bars("1m", 100)


def key(name: str, inode: int = 1) -> SeriesKey:
    return SeriesKey(Path(name), FileVersion(inode, 0, 0), "1m")


def test_the_least_recently_used_is_dropped() -> None:
    cache = BarCache(2 * BARS.nbytes)
    for name in ("a", "b"):
        cache.put(key(name), BARS)
    assert cache.get(key("a")) is BARS
    cache.put(key("c"), BARS)
    assert [cache.get(key(name)) is BARS for name in "abc"] == [True, False, True]
    assert cache.status.bytes == 2 * BARS.nbytes
    assert (cache.status.hits, cache.status.misses) == (3, 1)


def test_another_version_of_a_file_takes_the_place_of_the_first() -> None:
    cache = BarCache(10 * BARS.nbytes)
    cache.put(key("a", 1), BARS)
    cache.put(key("a", 2), BARS)
    assert cache.get(key("a", 1)) is None
    assert cache.status.bytes == BARS.nbytes


def test_bars_that_are_too_large_are_not_kept() -> None:
    cache = BarCache(BARS.nbytes - 1)
    assert not cache.fits(BARS.nbytes)
    cache.put(key("a"), BARS)
    assert cache.get(key("a")) is None
