"""Batchers with the shipped options, and their batches as the independent decoder reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from backtestr_engine.config import load_config
from backtestr_engine.publishing.batching import Batcher, BatchOptions, Publication
from backtestr_engine.publishing.column_batches import ColumnBatch
from backtestr_engine.publishing.payloads import Packer
from backtestr_engine.publishing.record_encoding import EncodedMaps, Number, encode_payloads
from backtestr_engine.worker.price_replays import PriceReplays
from backtestr_protocol.worker_channel import Published, ToBroker
from support.protocol.independent import messages_of


def packer(*, enabled: bool = False) -> Packer:
    return Packer(msgspec.structs.replace(load_config(None).compression, enabled=enabled), lambda: 0.0)


def batcher(packing: Packer | None = None, **classes: BatchOptions) -> Batcher:
    return Batcher({**load_config(None).batching.classes, **classes}, packing or packer())


def no_replays() -> PriceReplays:
    return PriceReplays(load_config(None).batching.classes["prices"], packer())


def numbers(first: int, stop: int) -> EncodedMaps:
    """Return messages that hold their own index."""
    return encode_payloads("Number", {"at": Number(np.arange(first, stop))}, stop - first)


def columns(first: int, stop: int) -> ColumnBatch:
    """Return the messages of `numbers` as columns, with half of each index."""
    at = np.arange(first, stop)
    return ColumnBatch("Number", {"unit": "one"}, {"at": at, "half": at / 2}, stop - first)


def messages(sent: Iterable[tuple[ToBroker, bytes | Sequence[bytes]]]) -> list[Any]:
    """Return all published messages in order; other worker messages are left out."""
    found: list[Any] = []
    for note, payload in sent:
        if isinstance(note, Published):
            body = payload if isinstance(payload, bytes) else payload[0]
            unpacked = messages_of(body)
            assert len(unpacked) == note.count
            found += unpacked
    return found


def counts(sent: Iterable[Publication]) -> list[tuple[str, int]]:
    return [(note.topic, note.count) for note, _ in sent]
