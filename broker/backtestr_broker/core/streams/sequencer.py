"""Give every message of a topic the next sequence number, and retain the latest for repair.

Each topic has a ring of its latest payloads, bounded in messages by its class and all together in bytes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import islice

import msgspec

from backtestr_protocol.errors import ValidationError, unknown
from backtestr_protocol.messages import Missed, MissedMessage
from backtestr_protocol.topics import TopicClass, class_of

from .sequenced import Retained, Sequenced

# Bytes of all rings together. Beyond, the topics that were quiet longest lose their oldest messages: a repair tells.
MAX_RETAINED_BYTES = 256 << 20
# Bytes of one answer to FetchMissed; `toSeq` is the last message in it.
MAX_ANSWER_BYTES = 8 << 20
# Names that a wrong one is compared with, the latest to advance: comparing with all of them can take a second.
COMPARED = 50


class _Topic:
    __slots__ = ("last_seq", "name", "retained", "retained_messages", "topic_class")

    def __init__(self, name: bytes, topic_class: TopicClass) -> None:
        self.name = name
        self.topic_class = topic_class
        self.last_seq = 0
        self.retained: deque[Retained] = deque()
        self.retained_messages = 0

    @property
    def oldest_seq(self) -> int:
        return self.retained[0].seq if self.retained else self.last_seq + 1


def _topic_of_one_name(topic: str) -> _Topic | None:
    """Return a topic that is there before its first message, as those of one name are (`system.errors`), else None."""
    topic_class = class_of(topic)
    return _Topic(topic.encode(), topic_class) if topic_class is not None and topic_class.prefix == topic else None


class Sequencer:
    """All topics, with their sequence numbers and retained messages."""

    def __init__(self) -> None:
        self._topics: OrderedDict[str, _Topic] = OrderedDict()  # the longest quiet first
        self._bytes = 0
        self._advanced: set[str] = set()

    def create(self, topic: str) -> None:
        """Make `topic` known before its first message. Raises `ValueError` for a name that no topic has."""
        self._entry(topic)

    def _entry(self, topic: str) -> _Topic:
        if (entry := self._topics.get(topic)) is None:
            topic_class = class_of(topic)
            if topic_class is None:
                raise ValueError(f"{topic!r} is no topic")
            entry = self._topics[topic] = _Topic(topic.encode(), topic_class)
        return entry

    def append(self, topic: str, payload: bytes, count: int = 1) -> Sequenced:
        """Give the next `count` numbers to `payload`, one message or a `Batch` of `count`, and retain it."""
        entry = self._entry(topic)
        self._topics.move_to_end(topic)
        seq = entry.last_seq + 1
        entry.last_seq += count
        entry.retained.append(Retained(seq, count, payload))
        entry.retained_messages += count
        self._bytes += len(payload)
        while entry.retained_messages - entry.retained[0].count >= entry.topic_class.retained:
            self._drop_oldest(entry)
        if self._bytes > MAX_RETAINED_BYTES:
            self._make_room()
        self._advanced.add(topic)
        return Sequenced(entry.name, entry.topic_class, seq)

    def skip(self, topic: str, count: int) -> TopicClass:
        """Give the next `count` numbers to messages that are not here, and return the class of the topic.

        Nothing from before them is retained then, so that what is retained has no hole.
        """
        entry = self._entry(topic)
        self._topics.move_to_end(topic)
        while entry.retained:
            self._drop_oldest(entry)
        entry.last_seq += count
        self._advanced.add(topic)
        return entry.topic_class

    def oldest_seq(self, topic: str) -> int:
        """Return the number of the oldest message that is retained, or the next one's when none is."""
        entry = self._topics.get(topic)
        return entry.oldest_seq if entry else 1

    def last_seq(self, topic: str) -> int:
        """Return the number of the latest message, 0 when there was none."""
        entry = self._topics.get(topic)
        return entry.last_seq if entry else 0

    def fetch(self, topic: str, from_seq: int, to_seq: int | None) -> Missed:
        """Return what is retained of `from_seq`, 1 or more, to `to_seq` (None: to the latest).

        A topic without messages answers `to_seq` 0. Raises `NotFound`, and `ValidationError` for a range that ends
        before it begins.
        """
        entry = self._topics.get(topic) or _topic_of_one_name(topic)
        if entry is None:
            raise unknown("topic", topic, islice(reversed(self._topics), COMPARED))
        if to_seq is not None and to_seq < from_seq:
            raise ValidationError(f"$.toSeq: {to_seq}, expected at least fromSeq, {from_seq}", path="$.toSeq")
        last = entry.last_seq if to_seq is None else min(to_seq, entry.last_seq)
        messages: list[MissedMessage] = []
        size = 0
        for retained in entry.retained:
            if retained.seq > last:
                break
            if retained.seq + retained.count <= from_seq:
                continue
            if messages and size + len(retained.payload) > MAX_ANSWER_BYTES:
                last = retained.seq - 1
                break
            messages.append(MissedMessage(seq=retained.seq, payload=msgspec.Raw(retained.payload)))
            size += len(retained.payload)
        return Missed(topic=topic, from_seq=from_seq, to_seq=last, oldest_seq=entry.oldest_seq, messages=messages)

    def drop(self, topic: str) -> None:
        """Forget a topic and its retained messages."""
        entry = self._topics.pop(topic, None)
        if entry is not None:
            self._bytes -= sum(len(retained.payload) for retained in entry.retained)
            self._advanced.discard(topic)

    def __len__(self) -> int:
        """Return the number of topics."""
        return len(self._topics)

    def last_seqs(self) -> dict[str, int]:
        """Return the number of the latest message of every topic that had one."""
        return {topic: entry.last_seq for topic, entry in self._topics.items() if entry.last_seq}

    def latest(self, count: int) -> list[tuple[Sequenced, str]]:
        """Return the topics that advanced last, the latest first, each with its last message's number."""
        newest = islice(reversed(self._topics.items()), count)
        return [(Sequenced(one.name, one.topic_class, one.last_seq), topic) for topic, one in newest]

    @property
    def has_advanced(self) -> bool:
        """True if a topic advanced since `take_advanced`."""
        return bool(self._advanced)

    def take_advanced(self) -> dict[str, int]:
        """Return the latest number of each topic that advanced since this was last called."""
        advanced = {topic: self._topics[topic].last_seq for topic in sorted(self._advanced)}
        self._advanced.clear()
        return advanced

    def forget_advance(self, topic: str) -> None:
        """Leave `topic` out of the next watermarks: their own topic would have them published again and again."""
        self._advanced.discard(topic)

    def _drop_oldest(self, entry: _Topic) -> None:
        dropped = entry.retained.popleft()
        entry.retained_messages -= dropped.count
        self._bytes -= len(dropped.payload)

    def _make_room(self) -> None:
        for entry in self._topics.values():
            while entry.retained:
                self._drop_oldest(entry)
                if self._bytes <= MAX_RETAINED_BYTES:
                    return

    def check_invariants(self) -> None:
        assert self._bytes == sum(
            len(retained.payload) for entry in self._topics.values() for retained in entry.retained
        )
        assert self._advanced <= self._topics.keys()
        for entry in self._topics.values():
            assert entry.retained_messages == sum(retained.count for retained in entry.retained)
            following = entry.oldest_seq
            for retained in entry.retained:
                assert retained.seq == following, f"{entry.name!r} is not dense at {retained.seq}"
                following += retained.count
            assert following == entry.last_seq + 1
            assert (
                len(entry.retained) <= 1
                or entry.retained_messages - entry.retained[0].count < entry.topic_class.retained
            )
