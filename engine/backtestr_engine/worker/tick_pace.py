"""The pace of ticks that are published at a multiple of real time: each at its own moment, without drift or loss.

It is used as a `Pace` is. A silence lasts as long as it did, but no longer than a minute of the market's time, as a gap
between bars of a minute does: a night or a weekend is not waited for.
"""

from __future__ import annotations

import numpy as np

from backtestr_engine.data.arrays import Floats, Integers
from backtestr_protocol.price_messages import MAX_RATE

LONGEST_SILENCE_US = 60_000_000
# Ticks whose moments are computed together: as many as are published at once. Those of a whole series would take as
# much memory as one of its columns.
_WINDOW = 10_000


class TickPace:
    """The pace of the ticks from number `position` on; the first is due at the first call of `due`.

    `timestamps` are in microseconds, `speed` is times real time. Ticks that come faster than `MAX_RATE` follow each
    other at that rate, and catch up in the next silence.
    """

    def __init__(self, timestamps: Integers, position: int, speed: float) -> None:
        self._timestamps = timestamps
        self._speed = speed
        self._next = position  # the first tick that has not been taken
        self._start: float | None = None  # when offset 0 was; None while it is halted
        self._wait = 0.0  # seconds from the end of a halt until the next tick
        self._played_us = 0  # from the first tick to the end of the window, without what is too long of silences
        self._offsets: Floats = np.zeros(0)  # seconds from the first tick to those of the window
        self._window_begins = self._window_ends = position

    def due(self, now: float) -> int:
        """Return the number of ticks that are due and have not been taken, or as many as a window has of them."""
        if self._start is None:
            self._start = now + self._wait - self._offset_of_next()
        return int(np.searchsorted(self._start + self._left(), now, "right"))

    def take(self, count: int) -> None:
        """Count so many of the ticks that are due as taken."""
        self._next += count

    def deadline(self, now: float) -> float:
        """Return the time at which the next tick that has not been taken is due; it is in the past for a late one."""
        return now if self._start is None else self._start + self._offset_of_next()

    def halt(self, now: float | None = None) -> None:
        """Halt until the next call of `due`.

        The wait for the next tick then continues as it was at `now`. Without `now` a tick is due at once.
        """
        if self._start is not None:
            self._wait = 0.0 if now is None else max(0.0, self.deadline(now) - now)
        self._start = None

    def _offset_of_next(self) -> float:
        left = self._left()
        return float(left[0]) if len(left) else 0.0

    def _left(self) -> Floats:
        """Return the offsets of the ticks of the window that have not been taken: of the next one if there are none."""
        if self._next >= self._window_ends:
            self._compute_window()
        return self._offsets[self._next - self._window_begins :]

    def _compute_window(self) -> None:
        first, stop = self._next, min(self._next + _WINDOW, len(self._timestamps))
        latest = float(self._offsets[-1]) if len(self._offsets) else -np.inf
        before = max(0, first - 1) if len(self._offsets) else first
        steps = np.diff(self._timestamps[before:stop], prepend=self._timestamps[before:][:1])[first - before :]
        played = self._played_us + np.cumsum(np.minimum(steps, LONGEST_SILENCE_US))
        ranks = np.arange(len(played)) / MAX_RATE
        earliest = np.maximum(played / 1e6 / self._speed, latest + 1 / MAX_RATE)
        self._offsets = np.maximum.accumulate(earliest - ranks) + ranks
        self._played_us = int(played[-1]) if len(played) else self._played_us
        self._window_begins, self._window_ends = first, stop
