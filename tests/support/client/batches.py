"""Batches of prices in every form: messages or columns, in each compression."""

from __future__ import annotations

import gzip
from typing import Any

import lz4.frame
import msgspec
import numpy as np
import zstandard

from backtestr_protocol.codec import encode, encoded_payload
from backtestr_protocol.envelopes import Payload
from backtestr_protocol.stream_messages import PriceUpdate

TOPIC = "prices.S.1m"
PACK: dict[str, Any] = {
    "none": lambda raw: msgspec.Raw(raw),
    "lz4": lz4.frame.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "gzip": gzip.compress,
}


def price(number: int) -> PriceUpdate:
    """Return a price whose values are made of its number."""
    return PriceUpdate(
        symbol="S", timestamp=number, bid=number + 0.25, ask=number + 0.5, last=1.5, volume=3.0, timeframe="1m"
    )


def column(values: Any, dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "data": np.asarray(values, dtype=dtype).tobytes()}


def columns(first: int, stop: int) -> dict[str, Any]:
    at = np.arange(first, stop)
    return {
        "symbol": "S",
        "timeframe": "1m",
        "timestamp": column(at, "<i8"),
        "bid": column(at + 0.25, "<f8"),
        "ask": column(at + 0.5, "<f8"),
        "last": 1.5,
        "volume": column(np.full(len(at), 3), "<f8"),
    }


def of_messages(first: int, stop: int, compression: str = "none", **changes: Any) -> Payload:
    raw = encode([msgspec.Raw(encoded_payload("PriceUpdate", price(one))) for one in range(first, stop)])
    batch = {"count": stop - first, "compression": compression, "rawBytes": len(raw)}
    return batch_of({**batch, "messages": PACK[compression](raw), **changes})


def of_columns(first: int, stop: int, compression: str = "none", **changes: Any) -> Payload:
    raw = encode({**columns(first, stop), **changes.pop("changed", {})})
    batch = {"count": stop - first, "compression": compression, "rawBytes": len(raw), "type": "PriceUpdate"}
    return batch_of({**batch, "columns": PACK[compression](raw), **changes})


def batch_of(batch: dict[str, Any]) -> Payload:
    return Payload("Batch", msgspec.Raw(encode({name: one for name, one in batch.items() if one is not None})))
