"""Which refused requests the log tells of: each, by its id, up to so many a second. Who repeats himself in a loop must
not fill the log; the flight recorder has them all."""

from __future__ import annotations

# More than a person who tries something out makes, and 40 kB of log in a second at the most.
TOLD_PER_SECOND = 20


class Refusals:
    def __init__(self) -> None:
        self._second = -1
        self._told = 0
        self._untold = 0

    def tell(self, now: float) -> int | None:
        """How many were not told of since the last that was, or None when this one is not to be told of either."""
        second = int(now)
        if second != self._second:
            self._second, self._told = second, 0
        if self._told >= TOLD_PER_SECOND:
            self._untold += 1
            return None
        self._told += 1
        untold, self._untold = self._untold, 0
        return untold

    def check_invariants(self) -> None:
        assert self._told <= TOLD_PER_SECOND
