"""The lines that combinations of a sweep share: averages, and channels of highs and lows, by their number of bars.

They come from the functions that the algorithms call. What fits into `LINES_BYTES` is kept from one combination to the
next; combinations that need more are taken in parts that do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from backtestr_engine.data.arrays import Floats, Integers
from backtestr_engine.data.bars import Bars
from backtestr_engine.indicators import ema, highest, lowest, sma

LINES_BYTES = 32 << 20
"""The most bytes of lines: forty averages of 100,000 bars, and all that a space on fewer bars names."""

_PERIOD_BITS = 20


def _channel(bars: Bars, timeperiod: int) -> Floats:
    return np.stack((highest(bars.high, timeperiod), lowest(bars.low, timeperiod)))


LINES: dict[str, Callable[[Bars, int], Floats]] = {
    "sma_cross": lambda bars, timeperiod: sma(bars.close, timeperiod),
    "ema_cross": lambda bars, timeperiod: ema(bars.close, timeperiod),
    "donchian_breakout": _channel,
}
"""The lines of an algorithm by the value of each of its parameters."""

PARAMETERS = {"sma_cross": ("fast", "slow"), "ema_cross": ("fast", "slow"), "donchian_breakout": ("entry", "exit")}


class SharedLines:
    """The lines of an algorithm, up to the last bar; `buffer` has those that are kept.

    A line that begins later than others, as its warm-up is shorter, has any values before. The buffer has room for all
    lines from the begin, as the system gives memory when it is written to: a buffer that grew would be there twice.
    """

    def __init__(self, algorithm: str, bars: int, seen_with: Callable[[int], Bars]) -> None:
        """Take the name of an algorithm, the most bars that it sees, and those that it sees with so many of warm-up."""
        self._line = LINES[algorithm]
        self._seen_with = seen_with
        self._shape = (2, bars) if self._line is _channel else (bars,)
        self._most = max(2, LINES_BYTES // (8 * int(np.prod(self._shape))))
        self.buffer: Floats = np.empty((self._most, *self._shape))
        self._places: dict[int, int] = {}

    def forget(self) -> None:
        """Forget all lines: they are computed anew where they are needed."""
        self._places.clear()

    def parts(self, periods: Integers, warm_up: Integers) -> Iterator[tuple[int, Integers]]:
        """Iterate over combinations in parts: the first of a part, and the places in `buffer` of its lines.

        `periods` has shape (combinations, 2), and `warm_up` the bars of warm-up of each.
        """
        keys = (warm_up[:, np.newaxis] << _PERIOD_BITS) | periods
        parts = [(0, len(keys))] if len(keys) else []
        while parts:
            first, end = parts.pop()
            needed, which = np.unique(keys[first:end], return_inverse=True)
            if len(needed) > self._most:
                middle = (first + end) // 2
                parts += [(middle, end), (first, middle)]
                continue
            yield first, self._placed(needed)[which.reshape(-1, 2)]

    def _placed(self, needed: Integers) -> Integers:
        """Return the places of the lines of `needed` keys, computed where they are missing."""
        wanted = needed.tolist()
        missing = [key for key in wanted if key not in self._places]
        self._make_room(len(missing), set(wanted))
        taken = set(self._places.values())
        free = (place for place in range(len(self.buffer)) if place not in taken)
        for key, place in zip(missing, free, strict=False):
            line = self._line(self._seen_with(key >> _PERIOD_BITS), key & ((1 << _PERIOD_BITS) - 1))
            self.buffer[place, ..., self._shape[-1] - line.shape[-1] :] = line
            self._places[key] = place
        return np.array([self._places[key] for key in wanted], dtype=np.int64)

    def _make_room(self, missing: int, wanted: set[int]) -> None:
        for key in [key for key in self._places if key not in wanted]:
            if len(self.buffer) - len(self._places) >= missing:
                break
            del self._places[key]
