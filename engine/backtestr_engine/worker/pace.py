"""A pace allows so many bars a second, without drift and without losing any.

    pace = Pace(50.0)
    pace.due(now)       # the number of bars that are due by now and have not been taken
    pace.take(count)
    pace.deadline(now)  # when the next bar is due

Bar k since the start is due at start + k / rate, however late the caller is: a late caller finds all bars that fell
due. Times are monotonic seconds.
"""

from __future__ import annotations


class Pace:
    """The pace of one backtest or price replay."""

    def __init__(self, bars_per_second: float) -> None:
        """Set the rate, from 0.001 up, so that no wait is endless; the first bar is due at the first call of `due`."""
        self.rate = bars_per_second
        self._start: float | None = None  # when bar 0 was due; None while it is halted
        self._taken = 0  # bars since then
        self._wait = 0.0  # seconds from the end of a halt until the next bar

    def due(self, now: float) -> int:
        """Return the number of bars that are due and have not been taken."""
        if self._start is None:
            self._start, self._taken = now + self._wait, 0
        # Division may be off by one either way, and a caller that slept until a bar is due must find it.
        count = max(0, int((now - self._start) * self.rate))
        while self._time_of(count) <= now:
            count += 1
        while count and self._time_of(count - 1) > now:
            count -= 1
        return max(0, count - self._taken)

    def take(self, count: int) -> None:
        """Count so many of the bars that are due as taken."""
        self._taken += count

    def deadline(self, now: float) -> float:
        """Return the time at which the next bar that has not been taken is due; it is in the past for a late bar."""
        return now if self._start is None else self._time_of(self._taken)

    def halt(self, now: float | None = None) -> None:
        """Halt until the next call of `due`.

        The wait for the next bar then continues as it was at `now`. Without `now` a bar is due at once.
        """
        if self._start is not None:
            self._wait = 0.0 if now is None else max(0.0, self._time_of(self._taken) - now)
        self._start = None

    def _time_of(self, bar: int) -> float:
        assert self._start is not None
        return self._start + bar / self.rate
