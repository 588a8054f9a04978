"""Limit how often one thing is logged or answered, and count what was suppressed in between."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

# Keys of one limit that are remembered. The one used least recently is forgotten, and begins a new interval when it
# comes again.
MAX_KEYS = 1024


class _Interval:
    __slots__ = ("passed", "started", "suppressed")

    def __init__(self, started: float) -> None:
        self.started = started
        self.passed = 0
        self.suppressed = 0


class LogLimit:
    """Lets the first `passes` of each key through in an interval of `interval` seconds, and counts the rest.

    An interval begins with the first that it lets through. Keys are the caller's: a connection, a socket, or none.
    """

    def __init__(self, interval: float, *, passes: int = 1) -> None:
        self._interval = interval
        self._passes = passes
        self._intervals: OrderedDict[Hashable, _Interval] = OrderedDict()  # the one used least recently first

    def check(self, now: float, key: Hashable = None) -> int | None:
        """Return how many of `key` were suppressed since the last that passed, or None where this one is, too."""
        current = self._intervals.get(key)
        if current is None:
            current = self._intervals[key] = _Interval(now)
            if len(self._intervals) > MAX_KEYS:
                self._intervals.popitem(last=False)
        else:
            self._intervals.move_to_end(key)
            if now - current.started >= self._interval:
                current.started, current.passed = now, 0
        if current.passed >= self._passes:
            current.suppressed += 1
            return None
        current.passed += 1
        suppressed, current.suppressed = current.suppressed, 0
        return suppressed

    def check_invariants(self) -> None:
        assert len(self._intervals) <= MAX_KEYS
        assert all(0 < one.passed <= self._passes for one in self._intervals.values())
