"""Batching of the messages of topics: a message waits for others of its topic, within the bounds of its topic class.

    sent = batcher.add(topic, messages, now)    # full batches are returned at once
    batcher.next_deadline()                     # the time at which `take` has the next batch; None: nothing waits
    sent += batcher.take(now)                   # batches whose wait is over
    sent += batcher.flush(topic)                # everything that waits, as the topic ends

A batch is complete when it has as many messages as its setting says; once it has its class's `min_messages` and the
oldest has waited as long as the setting says; and when the oldest has waited `max_wait_ms`, however few they are. The
order within a topic is that of `add`. Less than one batch of each topic waits, at most `MAX_PENDING_BYTES` in all.

A batcher knows nothing of backtests: any publisher on topics of these classes can use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from backtestr_protocol.payload_compression import Priority
from backtestr_protocol.system_status import BatchingStatus
from backtestr_protocol.worker_channel import Published

from .column_batches import ColumnBatch
from .payloads import Messages, Packer
from .record_encoding import EncodedMaps

# A thousand symbols may each have most of a batch waiting: beyond this all are sent early, in small batches.
MAX_PENDING_BYTES = 8 << 20
# The weight of each further batch in the smoothed latency, which follows a change within some ten batches.
_SMOOTHING = 0.2

Publication = tuple[Published, bytes]

_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Priorities: tuple[Priority, ...] = ("real_time", "interactive", "background", "bulk")


class BatchOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The batching options of one topic class. Raises `ValueError` for bounds that contradict each other."""

    min_messages: _Positive
    max_messages: Annotated[int, msgspec.Meta(ge=1, le=65_535)]
    target_latency_ms: Annotated[float, msgspec.Meta(gt=0)]
    max_wait_ms: Annotated[float, msgspec.Meta(gt=0)]
    compression_bytes: _Positive
    priority: Priority

    def __post_init__(self) -> None:
        if self.min_messages > self.max_messages:
            raise ValueError(f"min_messages {self.min_messages} is above max_messages {self.max_messages}")
        if self.target_latency_ms > self.max_wait_ms:
            raise ValueError(f"target_latency_ms {self.target_latency_ms} is above max_wait_ms {self.max_wait_ms}")


class Setting(msgspec.Struct, frozen=True):
    """The setting in force: the messages of a batch, and the milliseconds that the oldest of them waits."""

    messages: int
    wait_ms: float


def default_setting(options: BatchOptions) -> Setting:
    """Return the largest batches, none of which waits longer than the target of its class."""
    return Setting(options.max_messages, options.target_latency_ms)


class _TopicClassState:
    """The state of one topic class: its options, the setting in force, and its counters."""

    __slots__ = ("batches", "latency", "messages", "options", "setting", "urgency")

    def __init__(self, options: BatchOptions) -> None:
        self.options = options
        self.setting = default_setting(options)
        self.urgency = _Priorities.index(options.priority)
        self.messages = self.batches = 0
        self.latency = 0.0  # seconds for which the oldest message of a batch waited, smoothed


class _Pending:
    """The messages of a topic that are not yet a batch: since when they wait, and the last progress in percent."""

    __slots__ = ("count", "parts", "percent", "since", "topic_class")

    def __init__(self, topic_class: _TopicClassState, since: float) -> None:
        self.topic_class = topic_class
        self.since = since
        self.parts: list[Messages] = []
        self.count = 0
        self.percent: float | None = None

    @property
    def due(self) -> float:
        options = self.topic_class.options
        few = self.count < options.min_messages
        return self.since + (options.max_wait_ms if few else self.topic_class.setting.wait_ms) / 1000


class Batcher:
    """The batches of all topics; `classes` has options by the start of the topics of a class (`"orders"`)."""

    def __init__(self, classes: Mapping[str, BatchOptions], packer: Packer) -> None:
        self._classes = {name: _TopicClassState(options) for name, options in classes.items()}
        self._packer = packer
        self._pending: dict[str, _Pending] = {}
        self._pending_bytes = 0

    def add(
        self, topic: str, messages: Messages, now: float, progress_percent: float | None = None
    ) -> list[Publication]:
        """Add further messages of a topic, and return the batches that are full.

        `progress_percent` is the progress of a backtest with the last of them.
        """
        topic_class = self._classes[topic.partition(".")[0]]
        sent: list[Publication] = []
        pending = self._pending.get(topic)
        if pending is not None and len(messages) and not _continues(pending.parts[0], messages):
            sent.append(self._out(topic, now))
        first = 0
        while (count := len(messages) - first) > 0:
            pending = self._pending.get(topic)
            wanted = max(1, topic_class.setting.messages - pending.count) if pending else topic_class.setting.messages
            if pending is None:
                pending = self._pending[topic] = _Pending(topic_class, now)
            part = messages.cut(first, first + min(wanted, count)) if first or wanted < count else messages
            pending.parts.append(part)
            pending.count += len(part)
            pending.percent = progress_percent
            self._pending_bytes += part.size
            first += len(part)
            if len(part) == wanted:
                sent.append(self._out(topic, now))
        if self._pending_bytes > MAX_PENDING_BYTES:
            sent += [self._out(one, now) for one in list(self._pending)]
        return sent

    def next_deadline(self) -> float | None:
        """Return the time at which the next batch is due, in the seconds of `add`; None when nothing waits."""
        return min((pending.due for pending in self._pending.values()), default=None)

    def take(self, now: float) -> list[Publication]:
        """Return the batches that are due by `now`, the most urgent class first."""
        due = [(pending.topic_class.urgency, topic) for topic, pending in self._pending.items() if pending.due <= now]
        return [self._out(topic, now) for _, topic in sorted(due)] if due else []

    def flush(self, topic: str | None = None) -> list[Publication]:
        """Return what waits on a topic, or on all of them; this wait is not counted as latency."""
        topics = list(self._pending) if topic is None else [topic] if topic in self._pending else []
        return [self._out(one, None) for one in topics]

    @property
    def classes(self) -> list[str]:
        return list(self._classes)

    def options(self, name: str) -> BatchOptions:
        return self._classes[name].options

    def setting(self, name: str) -> Setting:
        return self._classes[name].setting

    def set(self, name: str, setting: Setting) -> None:
        """Set the setting of a class, within its bounds."""
        options = self._classes[name].options
        assert 1 <= setting.messages <= options.max_messages
        assert 0 < setting.wait_ms <= options.max_wait_ms
        self._classes[name].setting = setting

    def latency(self, name: str) -> float:
        """Return the smoothed seconds for which the oldest message of a batch of a class waited here."""
        return self._classes[name].latency

    def batches(self, name: str) -> int:
        """Return the number of batches of a class that were returned."""
        return self._classes[name].batches

    def status(self, further_ms: float) -> dict[str, BatchingStatus]:
        """Return the status of each class that had messages; `further_ms` is their wait from here to their sending."""
        return {
            name: BatchingStatus(
                size=topic_class.setting.messages,
                wait_ms=round(topic_class.setting.wait_ms, 3),
                latency_ms=round(1000 * topic_class.latency + further_ms, 3),
                messages=topic_class.messages,
                batches=topic_class.batches,
            )
            for name, topic_class in self._classes.items()
            if topic_class.messages
        }

    def _out(self, topic: str, now: float | None) -> Publication:
        pending = self._pending.pop(topic)
        topic_class = pending.topic_class
        self._pending_bytes -= sum(part.size for part in pending.parts)
        topic_class.messages += pending.count
        topic_class.batches += 1
        if now is not None:
            topic_class.latency += _SMOOTHING * (now - pending.since - topic_class.latency)
        payload = self._packer.payload(
            pending.parts, pending.count, topic_class.options.priority, topic_class.options.compression_bytes
        )
        return Published(topic=topic, count=pending.count, progress_percent=pending.percent), payload

    def payload(self, topic: str, messages: Messages) -> bytes:
        """Return one payload of `messages`, which are asked for and wait for no others."""
        options = self._classes[topic.partition(".")[0]].options
        return self._packer.payload([messages], len(messages), options.priority, options.compression_bytes)

    def check_invariants(self) -> None:
        assert self._pending_bytes == sum(part.size for pending in self._pending.values() for part in pending.parts)
        assert self._pending_bytes <= MAX_PENDING_BYTES
        for pending in self._pending.values():
            assert pending.count == sum(len(part) for part in pending.parts)
            assert 0 < pending.count < pending.topic_class.options.max_messages


def at_once(topic: str, messages: EncodedMaps, options: BatchOptions, packer: Packer) -> list[Publication]:
    """Return all of `messages` at once, in the largest batches of the class: they fell due together."""
    sent: list[Publication] = []
    for first in range(0, len(messages), options.max_messages):
        part = messages.cut(first, min(first + options.max_messages, len(messages)))
        payload = packer.payload([part], len(part), options.priority, options.compression_bytes)
        sent.append((Published(topic=topic, count=len(part)), payload))
    return sent


def _continues(pending: Messages, messages: Messages) -> bool:
    if isinstance(pending, ColumnBatch) and isinstance(messages, ColumnBatch):
        return pending.continues(messages)
    return type(pending) is type(messages)
