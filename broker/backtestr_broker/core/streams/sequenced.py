"""The payloads of topics with their sequence numbers: as they are sent, and as they are retained."""

from __future__ import annotations

import msgspec

from backtestr_protocol.topics import TopicClass


class Retained(msgspec.Struct, frozen=True):
    """A retained payload of `count` messages; `seq` is the number of the first."""

    seq: int
    count: int
    payload: bytes


class Sequenced(msgspec.Struct, frozen=True):
    """A payload's topic, by name in bytes and class, and the sequence number of its first message."""

    name: bytes
    topic_class: TopicClass
    seq: int
