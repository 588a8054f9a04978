"""A pace: so many bars a second, without drift, and without losing any.

    pace = Pace(50.0)
    pace.due(now)       # how many bars are due by now and have not been taken
    pace.take(count)
    pace.deadline(now)  # when the next one is due

Bar k since the start is due at start + k / rate, whatever happened between: who comes late finds all that fell due.
Times are monotonic seconds.
"""

from __future__ import annotations


class Pace:
    def __init__(self, bars_per_second: float) -> None:
        """`bars_per_second`: finite and above 0. The first bar is due when somebody first asks."""
        self.rate = bars_per_second
        self._start: float | None = None  # when bar 0 was due; None while it stands still
        self._taken = 0  # bars since then
        self._wait = 0.0  # after it has stood still: seconds until the next bar

    def due(self, now: float) -> int:
        if self._start is None:
            self._start, self._taken = now + self._wait, 0
        # Division may be off by one either way, and who slept until a bar is due has to find it.
        count = max(0, int((now - self._start) * self.rate))
        while self._time_of(count) <= now:
            count += 1
        while count and self._time_of(count - 1) > now:
            count -= 1
        return max(0, count - self._taken)

    def take(self, count: int) -> None:
        """So many of the bars that are due have been seen to."""
        self._taken += count

    def deadline(self, now: float) -> float:
        """When the next bar that has not been taken is due: in the past when it is late."""
        return now if self._start is None else self._time_of(self._taken)

    def halt(self, now: float | None = None) -> None:
        """Stand still until `due` is asked again; the next bar is then as far away as it is at `now`, or due at
        once."""
        if self._start is not None:
            self._wait = 0.0 if now is None else max(0.0, self._time_of(self._taken) - now)
        self._start = None

    def _time_of(self, bar: int) -> float:
        assert self._start is not None
        return self._start + bar / self.rate
