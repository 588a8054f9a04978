"""Batching at the source: messages of a topic wait a little for more of them, and never longer than their class allows.

    sent = batcher.add(topic, run, now)     # what became a whole batch goes out at once
    batcher.next_deadline()                 # when `take` has something next; None: nothing waits
    sent += batcher.take(now)               # what has waited long enough
    sent += batcher.flush(topic)            # all that waits, because its end is near

A batch goes out when it has as many messages as its setting says; once it has its class's `min_messages` and the oldest
has waited as long as the setting says; and when the oldest has waited `max_wait_ms`, however few they are. The order
within a topic is that of `add`. What waits is always less than a batch of each topic, and together `MAX_HELD_BYTES`.

It knows nothing of backtests: whatever publishes on topics of these classes can put its runs in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from backtestr_protocol.payload_compression import Priority
from backtestr_protocol.system_status import BatchingStatus
from backtestr_protocol.worker_channel import Published

from .column_batches import ColumnRun
from .payloads import Packer, Run
from .record_encoding import Encoded

# A thousand symbols may each have most of a batch waiting: beyond this all of it goes out, early and in small batches.
MAX_HELD_BYTES = 8 << 20
# Of each further batch in the latency that is shown and tuned by: it follows a change within some ten batches.
_SMOOTHING = 0.2

Publication = tuple[Published, bytes]

_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Priorities: tuple[Priority, ...] = ("real_time", "interactive", "background", "bulk")


class BatchOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one class of topics is batched. Raises `ValueError` for bounds that contradict each other."""

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
    """What of its class's bounds is in force: a batch's messages, and milliseconds that the oldest of them waits."""

    messages: int
    wait_ms: float


def default_setting(options: BatchOptions) -> Setting:
    """Batches as large as they may be, none later than its class aims at."""
    return Setting(options.max_messages, options.target_latency_ms)


class _Flow:
    """One class of topics: its options, the setting in force, and what was counted."""

    __slots__ = ("batches", "latency", "messages", "options", "setting", "urgency")

    def __init__(self, options: BatchOptions) -> None:
        self.options = options
        self.setting = default_setting(options)
        self.urgency = _Priorities.index(options.priority)
        self.messages = self.batches = 0
        self.latency = 0.0  # seconds that the oldest message of a batch waited, smoothed


class _Held:
    """What is not yet a batch: its runs, since when the oldest waits, and the percent that came last."""

    __slots__ = ("count", "flow", "percent", "runs", "since")

    def __init__(self, flow: _Flow, since: float) -> None:
        self.flow = flow
        self.since = since
        self.runs: list[Run] = []
        self.count = 0
        self.percent: float | None = None

    @property
    def due(self) -> float:
        options = self.flow.options
        few = self.count < options.min_messages
        return self.since + (options.max_wait_ms if few else self.flow.setting.wait_ms) / 1000


class Batcher:
    """`classes`: the options of each class of topics by what its topics begin with (`"orders"`)."""

    def __init__(self, classes: Mapping[str, BatchOptions], packer: Packer) -> None:
        self._flows = {name: _Flow(options) for name, options in classes.items()}
        self._packer = packer
        self._held: dict[str, _Held] = {}
        self._held_bytes = 0

    def add(self, topic: str, run: Run, now: float, progress_percent: float | None = None) -> list[Publication]:
        """Take in further messages of a topic; what became whole batches. `progress_percent`: how far a backtest is
        with the last of them."""
        flow = self._flows[topic.partition(".")[0]]
        sent: list[Publication] = []
        held = self._held.get(topic)
        if held is not None and len(run) and not _continues(held.runs[0], run):
            sent.append(self._out(topic, now))
        first = 0
        while (count := len(run) - first) > 0:
            held = self._held.get(topic)
            wanted = max(1, flow.setting.messages - held.count) if held else flow.setting.messages
            if held is None:
                held = self._held[topic] = _Held(flow, now)
            part = run.cut(first, first + min(wanted, count)) if first or wanted < count else run
            held.runs.append(part)
            held.count += len(part)
            held.percent = progress_percent
            self._held_bytes += part.size
            first += len(part)
            if len(part) == wanted:
                sent.append(self._out(topic, now))
        if self._held_bytes > MAX_HELD_BYTES:
            sent += [self._out(one, now) for one in list(self._held)]
        return sent

    def next_deadline(self) -> float | None:
        """When something has waited long enough, in the seconds of `add`; None when nothing waits."""
        return min((held.due for held in self._held.values()), default=None)

    def take(self, now: float) -> list[Publication]:
        """What has waited long enough by `now`, the most urgent class first."""
        due = [(held.flow.urgency, topic) for topic, held in self._held.items() if held.due <= now]
        return [self._out(topic, now) for _, topic in sorted(due)] if due else []

    def flush(self, topic: str | None = None) -> list[Publication]:
        """What waits on a topic, or on all of them: its waiting is cut short, and not counted as latency."""
        topics = list(self._held) if topic is None else [topic] if topic in self._held else []
        return [self._out(one, None) for one in topics]

    @property
    def classes(self) -> list[str]:
        return list(self._flows)

    def options(self, name: str) -> BatchOptions:
        return self._flows[name].options

    def setting(self, name: str) -> Setting:
        return self._flows[name].setting

    def set(self, name: str, setting: Setting) -> None:
        """Batch a class so from now on; within its bounds."""
        options = self._flows[name].options
        assert 1 <= setting.messages <= options.max_messages
        assert 0 < setting.wait_ms <= options.max_wait_ms
        self._flows[name].setting = setting

    def latency(self, name: str) -> float:
        """Seconds that the oldest message of a batch of that class waited here lately."""
        return self._flows[name].latency

    def batches(self, name: str) -> int:
        """How many batches of that class went out."""
        return self._flows[name].batches

    def status(self, further_ms: float) -> dict[str, BatchingStatus]:
        """Of each class that had messages; `further_ms` is what they waited after this, to be sent."""
        return {
            name: BatchingStatus(
                size=flow.setting.messages,
                wait_ms=round(flow.setting.wait_ms, 3),
                latency_ms=round(1000 * flow.latency + further_ms, 3),
                messages=flow.messages,
                batches=flow.batches,
            )
            for name, flow in self._flows.items()
            if flow.messages
        }

    def _out(self, topic: str, now: float | None) -> Publication:
        held = self._held.pop(topic)
        flow = held.flow
        self._held_bytes -= sum(run.size for run in held.runs)
        flow.messages += held.count
        flow.batches += 1
        if now is not None:
            flow.latency += _SMOOTHING * (now - held.since - flow.latency)
        payload = self._packer.payload(held.runs, held.count, flow.options.priority, flow.options.compression_bytes)
        return Published(topic=topic, count=held.count, progress_percent=held.percent), payload

    def check_invariants(self) -> None:
        assert self._held_bytes == sum(run.size for held in self._held.values() for run in held.runs)
        assert self._held_bytes <= MAX_HELD_BYTES
        for held in self._held.values():
            assert held.count == sum(len(run) for run in held.runs)
            assert 0 < held.count < held.flow.options.max_messages


def at_once(topic: str, run: Encoded, options: BatchOptions, packer: Packer) -> list[Publication]:
    """All of `run`, in batches as large as its class allows: for what fell due together and waited for that."""
    sent: list[Publication] = []
    for first in range(0, len(run), options.max_messages):
        part = run.cut(first, min(first + options.max_messages, len(run)))
        payload = packer.payload([part], len(part), options.priority, options.compression_bytes)
        sent.append((Published(topic=topic, count=len(part)), payload))
    return sent


def _continues(held: Run, run: Run) -> bool:
    if isinstance(held, ColumnRun) and isinstance(run, ColumnRun):
        return held.continues(run)
    return type(held) is type(run)
