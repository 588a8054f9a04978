"""Column batches hold the messages that maps would hold."""

from __future__ import annotations

import msgpack
import numpy as np

from backtestr_engine.publishing.column_batches import ColumnBatch
from support.engine.batches import batcher, columns, counts
from support.protocol.independent import messages_of

PRICES = "prices.S.1m"


def test_a_column_batch_has_the_messages_of_the_maps() -> None:
    one = batcher()
    one.add(PRICES, columns(0, 3), 0.0)
    one.add(PRICES, columns(3, 4), 0.0)
    [(note, payload)] = one.take(1.0)
    assert note.count == 4
    batch = msgpack.unpackb(payload)["data"]
    assert batch["columns"]["unit"] == "one"
    assert batch["columns"]["at"] == {"dtype": "<i8", "data": np.arange(4, dtype="<i8").tobytes()}
    assert batch["rawBytes"] == len(msgpack.packb(batch["columns"]))
    assert "messages" not in batch
    assert messages_of(payload)[3] == {"type": "Number", "data": {"unit": "one", "at": 3, "half": 1.5}}


def test_a_single_row_of_columns_is_sent_as_a_message() -> None:
    one = batcher()
    one.add(PRICES, columns(7, 8), 0.0)
    [(_, payload)] = one.take(1.0)
    assert msgpack.unpackb(payload) == {"type": "Number", "data": {"unit": "one", "at": 7, "half": 3.5}}


def test_columns_with_different_constants_are_separate_batches() -> None:
    one = batcher()
    one.add(PRICES, columns(0, 2), 0.0)
    other = ColumnBatch("Number", {"unit": "two"}, {"at": np.array([2]), "half": np.array([1.0])}, 1)
    assert counts(one.add(PRICES, other, 0.0)) == [(PRICES, 2)]


def test_a_cut_does_not_keep_the_whole_batch() -> None:
    whole = columns(0, 1000)
    part = whole.cut(10, 12)
    assert (len(part), part.size, part.arrays["at"].tolist()) == (2, 32, [10, 11])
    assert not any(np.shares_memory(part.arrays[name], whole.arrays[name]) for name in whole.arrays)
