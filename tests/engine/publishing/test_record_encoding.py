"""Records that are encoded in bulk decode to the same maps as records that are encoded one by one."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.publishing.record_encoding import EncodedMaps, Ids, Number, Text, encode_payloads

CHOICES = ("buy", "sell", "", "a reason in more than thirty-one characters")

Row = tuple[float, int, int, bool, bool, int]

rows: st.SearchStrategy[list[Row]] = st.lists(
    st.tuples(
        st.floats(allow_nan=False),
        st.integers(0, 2**53),
        st.integers(0, len(CHOICES) - 1),
        st.booleans(),
        st.booleans(),
        st.integers(0, 2**63 - 1),
    ),
    max_size=30,
)


def unpacked(encoded: EncodedMaps) -> list[Any]:
    """Return the payloads, each decoded from its own bytes by the independent decoder."""
    return [msgpack.unpackb(encoded.between(one, one + 1)) for one in range(len(encoded))]


@given(rows)
def test_bulk_equals_one_by_one(found: list[Row]) -> None:
    prices, times, choices, has_price, has_choice, ids = zip(*found, strict=True) if found else ((),) * 6
    encoded = encode_payloads(
        "Thing",
        {
            "name": "the same in all",
            "price": Number(np.array(prices, dtype=np.float64), np.array(has_price, dtype=np.bool_)),
            "time": Number(np.array(times, dtype=np.int64)),
            "side": Text(CHOICES, np.array(choices, dtype=np.int8), np.array(has_choice, dtype=np.bool_)),
            "kind": Text(CHOICES, np.array(choices, dtype=np.int64)),
        },
        len(found),
        Ids("id", np.array(ids, dtype=np.int64)),
    )
    expected = []
    for price, time, choice, price_shown, choice_shown, one in found:
        data: dict[str, Any] = {"name": "the same in all", "time": time, "kind": CHOICES[choice], "id": str(one)}
        if price_shown:
            data["price"] = price
        if choice_shown:
            data["side"] = CHOICES[choice]
        expected.append({"type": "Thing", "data": data})
    assert unpacked(encoded) == expected


def test_a_part_is_the_bytes_of_its_maps() -> None:
    encoded = encode_payloads("Thing", {"at": Number(np.arange(5))}, 5)
    assert encoded.between(0, 5) == encoded.data
    assert encoded.between(1, 3) + encoded.between(3, 5) == encoded.between(1, 5)
    assert encoded.between(2, 2) == b""
    assert [one["data"] for one in unpacked(encoded)] == [{"at": at} for at in range(5)]


def test_no_records_are_no_bytes() -> None:
    encoded = encode_payloads("Thing", {"at": Number(np.zeros(0))}, 0, Ids("id", np.zeros(0, dtype=np.int64)))
    assert (len(encoded), encoded.data) == (0, b"")
