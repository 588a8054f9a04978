"""Count what the broker does, in plain integers, for `system.status` and for Prometheus metrics.

Labels come from tables of the protocol, so there are as many as those have rows. The caller gives the times.
"""

from __future__ import annotations

import msgspec

from backtestr_broker.core.clients.answers import RequestKey
from backtestr_protocol.message_types import REQUESTS
from backtestr_protocol.messages import Missed
from backtestr_protocol.topics import CLASSES, TopicClass, class_of

from .counts import CounterSnapshot, Histogram, TopicCounts

# Stands for every unknown request type: a client can invent as many as it likes.
UNKNOWN = "unknown"
SUCCESS = "success"
# The outcome of a duplicate: it gets the remembered answer, or the answer that it waits for.
REPEATED = "repeated"


def class_name(topic_class: TopicClass) -> str:
    """Return the label of a topic class, such as `orders` or `system.status`."""
    return topic_class.prefix.rstrip(".")


class Counters:
    """The counters of one broker."""

    def __init__(self) -> None:
        self.commit_failures = 0
        self.streams: dict[str, TopicCounts] = {one.prefix: TopicCounts() for one in CLASSES}
        self._requests: dict[tuple[str, str], int] = {}
        self._latencies: dict[str, Histogram] = {}
        self._running: dict[RequestKey, tuple[str, float]] = {}  # as many as `AnsweredRequests` has running
        self._ended: list[tuple[str, float]] = []  # since the last event: type and beginning

    def began(self, request_key: RequestKey, request_type: str, now: float) -> None:
        """Count a request that is executed from now on."""
        self._running[request_key] = (_known(request_type), now)

    def ended(self, request_key: RequestKey, outcome: str) -> str:
        """Count its answer, `SUCCESS` or an error's code, and return its type."""
        running = self._running.pop(request_key)
        self._count(running[0], outcome)
        self._ended.append(running)
        return running[0]

    def answered(self, request_type: str, outcome: str) -> None:
        """Count the answer to a request that was not begun."""
        self._count(_known(request_type), outcome)

    def settle(self, now: float) -> None:
        """Take the time at which the answers since the last call were sent."""
        if not self._ended:
            return
        latest, times = self._ended[0], 0
        for one in self._ended:
            if one == latest:  # as all of a burst of one type
                times += 1
            else:
                self._observe(latest, now, times)
                latest, times = one, 1
        self._observe(latest, now, times)
        self._ended.clear()

    def _observe(self, ended: tuple[str, float], now: float, times: int) -> None:
        request_type, began = ended
        if (taken := self._latencies.get(request_type)) is None:
            taken = self._latencies[request_type] = Histogram()
        taken.observe(max(0.0, now - began), times)

    def published(self, topic_class: TopicClass, count: int, size: int, *, heard: bool) -> None:
        """Count a published payload; `heard` is true if it was sent."""
        streamed = self.streams[topic_class.prefix]
        streamed.messages += count
        streamed.bytes += size
        if not heard:
            streamed.unheard += count

    def fetched(self, topic: str, missed: Missed | None = None) -> None:
        """Count a FetchMissed, and the messages of its answer; None where a worker answers, whose pages stay packed."""
        topic_class = class_of(topic)
        assert topic_class is not None, "it was found"
        streamed = self.streams[topic_class.prefix]
        streamed.fetches += 1
        if missed is not None:
            streamed.fetched += max(0, missed.to_seq + 1 - max(missed.from_seq, missed.oldest_seq))

    def running(self) -> set[RequestKey]:
        """Return the keys of the requests that have begun and have not ended."""
        return set(self._running)

    def by_class(self) -> dict[str, TopicCounts]:
        """Return the counts by the label of each topic class."""
        return {class_name(one): self.streams[one.prefix] for one in CLASSES}

    def measured(self) -> CounterSnapshot:
        """Return a copy of everything."""
        return CounterSnapshot(
            requests=self._requests.copy(),
            latencies={one: Histogram(taken.counts.copy(), taken.seconds) for one, taken in self._latencies.items()},
            streams={name: msgspec.structs.replace(one) for name, one in self.by_class().items()},
            commit_failures=self.commit_failures,
        )

    def _count(self, request_type: str, outcome: str) -> None:
        self._requests[request_type, outcome] = self._requests.get((request_type, outcome), 0) + 1

    def check_invariants(self) -> None:
        for request_type, _ in self._requests:
            assert request_type == UNKNOWN or request_type in REQUESTS
        assert all(one.unheard <= one.messages for one in self.streams.values())
        assert all(count >= 0 for taken in self._latencies.values() for count in taken.counts)


def _known(request_type: str) -> str:
    return request_type if request_type in REQUESTS else UNKNOWN
