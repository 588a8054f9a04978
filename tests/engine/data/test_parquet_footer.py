"""The places of row groups are those that the file has, and other bytes are refused with one error."""

from __future__ import annotations

import io
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.data.parquet_footer import row_group_begins


def footer_of(content: bytes) -> bytes:
    return content[-8 - int.from_bytes(content[-8:-4], "little") : -8]


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 3_000),
    group=st.integers(100, 1_000),
    statistics=st.booleans(),
    compression=st.sampled_from(["lz4", "uncompressed"]),
)
def test_a_row_group_lies_between_its_place_and_that_of_the_next(
    rows: int, group: int, statistics: bool, compression: str
) -> None:
    frame = pl.DataFrame({"time": range(rows), "price": [row % 7 / 3 for row in range(rows)]})
    written = io.BytesIO()
    frame.write_parquet(
        written,
        row_group_size=group,
        statistics=statistics,
        compression=compression,  # type: ignore[arg-type]  # one of two that there are
    )
    whole = written.getvalue()
    footer_begins_at = len(whole) - len(footer_of(whole)) - 8
    begins = row_group_begins(footer_of(whole))
    assert begins[0] == 4
    assert len(begins) == -(-rows // group)
    for number, (begin, end) in enumerate(pairwise([*begins, footer_begins_at])):
        alone = bytes(begin) + whole[begin:end] + bytes(footer_begins_at - end) + whole[footer_begins_at:]
        found = pl.scan_parquet(io.BytesIO(alone)).slice(number * group, group).collect()
        assert found.equals(frame[number * group : (number + 1) * group])


@given(data=st.binary(max_size=200))
def test_other_bytes_raise_one_error(data: bytes) -> None:
    try:
        row_group_begins(data)
    except ValueError:
        return
    assert data  # no footer is empty


def test_a_footer_that_ends_early_is_refused() -> None:
    with pytest.raises(ValueError, match="not that of a Parquet file"):
        row_group_begins(b"\x15")
