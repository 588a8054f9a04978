"""Payloads are compressed where that pays, and the compression is counted."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from backtestr_engine.publishing.column_batches import ColumnBatch
from backtestr_engine.publishing.payloads import total
from support.engine.batches import batcher, columns, messages, numbers, packer

PRICES = "prices.S.1m"


@pytest.mark.parametrize("make", [numbers, columns])
def test_large_batches_are_compressed_and_small_ones_are_not(make: Any) -> None:
    one = batcher(packing := packer(enabled=True))
    few, many = one.add(PRICES, make(0, 20), 0.0) + one.take(1.0), one.add(PRICES, make(0, 1000), 2.0)
    assert msgpack.unpackb(few[0][1])["data"]["compression"] == "none"
    batch = msgpack.unpackb(many[0][1])["data"]
    assert batch["compression"] == "lz4"
    assert [row["data"]["at"] for row in messages(many)] == list(range(1000))
    counted = packing.status
    assert counted is not None
    assert (counted.batches, counted.bytes_in) == (1, batch["rawBytes"])
    assert counted.bytes_out == len(batch["messages" if make is numbers else "columns"]) < counted.bytes_in


def test_incompressible_batches_are_sent_uncompressed() -> None:
    one = batcher(packing := packer(enabled=True))
    noise = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 2000)
    out = one.add(PRICES, ColumnBatch("Number", {}, {"at": noise[:1000], "more": noise[1000:]}, 1000), 0.0)
    assert msgpack.unpackb(out[0][1])["data"]["compression"] == "none"
    assert packing.status is not None
    assert packing.status.batches == 1, "the time it took is counted"


def test_the_counters_of_several_packers_are_added_up() -> None:
    packers = [packer(enabled=True) for _ in range(3)]
    assert total(one.status for one in packers) is None
    for one in packers[:2]:
        batcher(one).add(PRICES, numbers(0, 1000), 0.0)
    found, each = total(one.status for one in packers), packers[0].status
    assert found is not None
    assert each is not None
    assert (found.batches, found.bytes_in, found.bytes_out) == (2, 2 * each.bytes_in, 2 * each.bytes_out)
