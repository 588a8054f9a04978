"""The places of columns in an Arrow file are those that its writer gave them; damaged files raise one error."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.core.arrow_layout import record_batches
from backtestr_protocol.column_types import column_type

FRAME = pl.DataFrame(
    {
        "id": pl.Series(range(1_000), dtype=pl.Int64),
        "text": ["é" * (row % 5) for row in range(1_000)],
        "flag": [row % 2 == 0 for row in range(1_000)],
        "nulls": [None if row % 10 == 0 else float(row) for row in range(1_000)],
        "value": np.random.default_rng(0).normal(size=1_000),
    }
)
TYPES = [column_type(kind) for kind in FRAME.dtypes]


def written(frame: pl.DataFrame = FRAME, **how: Any) -> bytes:
    frame.write_ipc(buffer := io.BytesIO(), **{"compat_level": pl.CompatLevel.oldest()} | how)
    return buffer.getvalue()


CONTENT = written()


@pytest.mark.parametrize("rows", [1_000, 300_000], ids=["one batch", "several batches"])
def test_the_values_are_where_the_layout_says(rows: int) -> None:
    frame = pl.concat([FRAME] * (rows // 1_000)).rechunk()
    content = written(frame)
    batches = record_batches(memoryview(content), TYPES)
    assert sum(batch.rows for batch in batches) == rows
    assert (len(batches) > 1) == (rows > 1_000)
    for number, kind in ((0, "<i8"), (4, "<f8")):
        parts = [np.frombuffer(content, kind, batch.rows, batch.columns[number].offset) for batch in batches]
        assert np.array_equal(np.concatenate(parts), frame[:, number].to_numpy())
    assert [sum(batch.columns[number].nulls for batch in batches) for number in range(5)] == [0, 0, 0, rows // 10, 0]


def test_other_columns_and_compressed_values_are_refused() -> None:
    for types in (TYPES[:-1], [*TYPES, "bool"], ["utf8", *TYPES[1:]]):
        with pytest.raises(ValueError, match="columns with"):
            record_batches(memoryview(CONTENT), types)
    with pytest.raises(ValueError, match="it is compressed"):
        record_batches(memoryview(written(compression="lz4")), TYPES)


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"ARROW1" * 2, b"x" * 100, CONTENT[:-1], CONTENT[8:]])
def test_what_is_no_whole_arrow_file_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"it does not begin|leads out of it"):
        record_batches(memoryview(content), TYPES)


@given(seed=st.integers(0, 1 << 32), changes=st.integers(1, 40))
def test_damaged_files_raise_one_error_or_lead_nowhere_else(seed: int, changes: int) -> None:
    """Bytes of the footer and of the messages are changed, where the references are."""
    chance = random.Random(seed)
    content = bytearray(CONTENT)
    for _ in range(changes):
        at = chance.choice([chance.randrange(1_500), len(content) - 1 - chance.randrange(1_500)])
        content[at] = chance.choice([0, 255, chance.randrange(256)])
    try:
        batches = record_batches(memoryview(content), TYPES)
    except ValueError:
        return
    for batch in batches:
        assert all(0 <= one.offset <= one.offset + one.size <= len(content) for one in batch.columns)
