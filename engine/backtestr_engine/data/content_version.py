"""A checksum of bars names what was tested: the same bars have the same one, wherever and whenever they were stored.

It has the prices, volumes and times of every bar, and the time zone, and neither the symbol nor the file. The sums of
blocks are hashed in place of the bars themselves, which costs 3 ms for a million bars in place of 60.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from .bars import COLUMNS, Bars
from .block_sums import summed

_VERSION_BYTES = 16


def content_version(series: Iterable[Bars]) -> str:
    """Return the checksum of bars, 32 characters of hex; the order of the series counts."""
    version = hashlib.blake2b(digest_size=_VERSION_BYTES)
    for bars in series:
        version.update(f"{len(bars)} {bars.timeframe} {bars.zone}\n".encode())
        for name in COLUMNS:
            sums, rest = summed(getattr(bars, name).view("u1").data)
            version.update(sums)
            version.update(rest)
    return version.hexdigest()
