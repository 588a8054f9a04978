"""The types of columns have the names of PROTOCOL.md, whatever polars calls them."""

from __future__ import annotations

import polars as pl
import pytest

from backtestr_protocol.column_types import column_type


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (pl.Float64(), "float64"),
        (pl.Float32(), "float32"),
        (pl.String(), "utf8"),
        (pl.Boolean(), "bool"),
        (pl.Int8(), "int8"),
        (pl.Int64(), "int64"),
        (pl.UInt32(), "uint32"),
        (pl.Datetime("us", "UTC"), "timestamp[us, UTC]"),
        (pl.Datetime("ms"), "timestamp[ms]"),
        (pl.Date(), "Date"),
    ],
)
def test_a_type_has_its_name(kind: pl.DataType, name: str) -> None:
    assert column_type(kind) == name
