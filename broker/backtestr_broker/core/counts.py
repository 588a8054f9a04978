"""The values that the broker's counters keep: durations by bucket, messages by topic class, and a copy of all."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

import msgspec

# Upper bounds of a histogram's buckets, in seconds. What the broker answers itself takes 0.1 ms, an interactive task
# some milliseconds, an import minutes.
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Histogram(msgspec.Struct):
    """The durations of the requests of one type: `counts` by bucket, the last one for those above every bound."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count a request, or several that took as long."""
        self.counts[bisect_left(BUCKETS, seconds)] += times
        self.seconds += seconds * times


class TopicCounts(msgspec.Struct):
    """The counts of one topic class, in messages and in bytes of payload.

    `unheard` messages were retained and not sent, for want of a listener; `fetched` ones were sent again as a repair.
    """

    messages: int = 0
    bytes: int = 0
    unheard: int = 0
    fetches: int = 0
    fetched: int = 0


class CounterSnapshot(msgspec.Struct, frozen=True):
    """A copy of everything, for another thread to read."""

    requests: Mapping[tuple[str, str], int]  # by type and outcome
    latencies: Mapping[str, Histogram]  # by type
    streams: Mapping[str, TopicCounts]  # by class
    commit_failures: int
