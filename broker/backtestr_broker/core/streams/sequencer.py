"""Sequence numbers and repair: every message of a topic has the next number, and nothing else moves it.

Each topic has a ring of its latest payloads, bounded in messages by its class and all together in bytes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import islice

import msgspec

from backtestr_protocol.errors import ValidationError, unknown
from backtestr_protocol.messages import Missed, MissedMessage
from backtestr_protocol.topics import TopicClass, class_of

# All rings together; beyond it the topics that were quiet longest lose their oldest messages, and say so when asked.
MAX_RETAINED_BYTES = 256 << 20
# One answer to FetchMissed; `toSeq` says how far it went.
MAX_ANSWER_BYTES = 8 << 20
# Names that a wrong one is compared with, the latest to move: comparing with all of them can take a second.
COMPARED = 50


class _Kept(msgspec.Struct, frozen=True):
    seq: int
    count: int
    payload: bytes


class _Topic:
    __slots__ = ("kept", "kept_messages", "last_seq", "name", "topic_class")

    def __init__(self, name: bytes, topic_class: TopicClass) -> None:
        self.name = name
        self.topic_class = topic_class
        self.last_seq = 0
        self.kept: deque[_Kept] = deque()
        self.kept_messages = 0

    @property
    def oldest_seq(self) -> int:
        return self.kept[0].seq if self.kept else self.last_seq + 1


class Sequenced(msgspec.Struct, frozen=True):
    """Where a payload stands: its topic's name in bytes, its class, and the number of its first message."""

    name: bytes
    topic_class: TopicClass
    seq: int


class Sequencer:
    def __init__(self) -> None:
        self._topics: OrderedDict[str, _Topic] = OrderedDict()  # the longest quiet first
        self._bytes = 0
        self._moved: set[str] = set()

    def create(self, topic: str) -> None:
        """Make `topic` known before its first message. Raises `ValueError` for what is no topic's name."""
        if topic not in self._topics:
            topic_class = class_of(topic)
            if topic_class is None:
                raise ValueError(f"{topic!r} is no topic")
            self._topics[topic] = _Topic(topic.encode(), topic_class)

    def append(self, topic: str, payload: bytes, count: int = 1) -> Sequenced:
        """Give the next `count` numbers to `payload`, a single payload or a `Batch` of `count`, and keep it."""
        self.create(topic)
        entry = self._topics[topic]
        self._topics.move_to_end(topic)
        seq = entry.last_seq + 1
        entry.last_seq += count
        entry.kept.append(_Kept(seq, count, payload))
        entry.kept_messages += count
        self._bytes += len(payload)
        while entry.kept_messages - entry.kept[0].count >= entry.topic_class.retained:
            self._drop_oldest(entry)
        if self._bytes > MAX_RETAINED_BYTES:
            self._make_room()
        self._moved.add(topic)
        return Sequenced(entry.name, entry.topic_class, seq)

    def last_seq(self, topic: str) -> int:
        """The number of the latest message, 0 when there was none."""
        entry = self._topics.get(topic)
        return entry.last_seq if entry else 0

    def fetch(self, topic: str, from_seq: int, to_seq: int | None) -> Missed:
        """What is kept of `from_seq`, 1 or more, to `to_seq` (None: to the latest).

        Raises `NotFound`, and `ValidationError` for a range that ends before it begins.
        """
        entry = self._topics.get(topic)
        if entry is None:
            raise unknown("topic", topic, islice(reversed(self._topics), COMPARED))
        if to_seq is not None and to_seq < from_seq:
            raise ValidationError(f"$.toSeq: {to_seq}, expected at least fromSeq, {from_seq}", path="$.toSeq")
        last = entry.last_seq if to_seq is None else min(to_seq, entry.last_seq)
        messages: list[MissedMessage] = []
        size = 0
        for kept in entry.kept:
            if kept.seq > last:
                break
            if kept.seq + kept.count <= from_seq:
                continue
            if messages and size + len(kept.payload) > MAX_ANSWER_BYTES:
                last = kept.seq - 1
                break
            messages.append(MissedMessage(seq=kept.seq, payload=msgspec.Raw(kept.payload)))
            size += len(kept.payload)
        return Missed(topic=topic, from_seq=from_seq, to_seq=last, oldest_seq=entry.oldest_seq, messages=messages)

    def drop(self, topic: str) -> None:
        """Forget a topic and what is kept of it."""
        entry = self._topics.pop(topic, None)
        if entry is not None:
            self._bytes -= sum(len(kept.payload) for kept in entry.kept)
            self._moved.discard(topic)

    def __len__(self) -> int:
        """How many topics there are."""
        return len(self._topics)

    def last_seqs(self) -> dict[str, int]:
        """The number of the latest message of every topic that had one."""
        return {topic: entry.last_seq for topic, entry in self._topics.items() if entry.last_seq}

    def latest(self, count: int) -> list[tuple[Sequenced, str]]:
        """The topics that moved last, the latest first, each with where its last message stands."""
        newest = islice(reversed(self._topics.items()), count)
        return [(Sequenced(one.name, one.topic_class, one.last_seq), topic) for topic, one in newest]

    @property
    def has_moved(self) -> bool:
        return bool(self._moved)

    def take_moved(self) -> dict[str, int]:
        """The latest number of each topic that moved since this was last asked."""
        moved = {topic: self._topics[topic].last_seq for topic in sorted(self._moved)}
        self._moved.clear()
        return moved

    def forget_move(self, topic: str) -> None:
        """Leave `topic` out of the next watermarks (their own topic, which would keep them going for ever)."""
        self._moved.discard(topic)

    def _drop_oldest(self, entry: _Topic) -> None:
        dropped = entry.kept.popleft()
        entry.kept_messages -= dropped.count
        self._bytes -= len(dropped.payload)

    def _make_room(self) -> None:
        for entry in self._topics.values():
            while entry.kept:
                self._drop_oldest(entry)
                if self._bytes <= MAX_RETAINED_BYTES:
                    return

    def check_invariants(self) -> None:
        assert self._bytes == sum(len(kept.payload) for entry in self._topics.values() for kept in entry.kept)
        assert self._moved <= self._topics.keys()
        for entry in self._topics.values():
            assert entry.kept_messages == sum(kept.count for kept in entry.kept)
            following = entry.oldest_seq
            for kept in entry.kept:
                assert kept.seq == following, f"{entry.name!r} is not dense at {kept.seq}"
                following += kept.count
            assert following == entry.last_seq + 1
            assert len(entry.kept) <= 1 or entry.kept_messages - entry.kept[0].count < entry.topic_class.retained
