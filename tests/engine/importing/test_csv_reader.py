"""Cells of a text: cut column by column, they are the cells that Python's `csv` reads; numbers are those of `float`."""

from __future__ import annotations

import csv
import io
import math

import polars as pl
from hypothesis import example, given
from hypothesis import strategies as st

from backtestr_engine.importing.csv_cells import read_cells
from backtestr_engine.importing.csv_layout import Layout
from backtestr_engine.importing.csv_reader import read_numbers
from backtestr_engine.importing.timestamps import TimeFormat

LAYOUT = Layout(
    format="csv",
    kind="trades",
    header=("time", "price", "size"),
    header_lines=1,
    has_header=True,
    delimiter=",",
    time=(0,),
    fields={"price": 1, "size": 2},
    written=TimeFormat("%Y"),
    zone=None,
    blank_repeats=False,
    notes=(),
)


@given(st.text('12", x\né', max_size=60))
@example('"1","2","3"\n"","",""\n')
@example('1,"2,3",4\n5,6,7\n')
@example('1,"a\nb",2\n1,2,3\n')
@example('1,"a""b",2\n')
@example('",",1,2\n1,2,"')
def test_cells_are_those_of_csv(rows: str) -> None:
    reader = csv.reader(io.StringIO(rows, newline=""))
    expected = [(reader.line_num + 1, cells) for cells in reader if any(cell.strip() for cell in cells)]
    got = read_cells(f"time,price,size\n{rows}".encode(), LAYOUT)

    assert got.lines.to_list() == [line for line, _ in expected]
    assert got.even.to_list() == [len(cells) == 3 for _, cells in expected]
    even = [cells for _, cells in expected if len(cells) == 3]
    assert [column.to_list() for column in got.columns] == [[cells[at] for cells in even] for at in range(3)]
    assert got.uneven.rows() == [(line, len(cells), cells[-1]) for line, cells in expected if len(cells) != 3]


@given(st.lists(st.text("0123456789+-._ eEinfatyNI\x1c\u0663x", max_size=9)))
@example(["1_000", "\u0661\u0662", " 7 ", "\x1c5", "1__0", "", "-inf", "infinity", "1e400", "0x10", ".", "1."])
def test_numbers_are_those_of_float(texts: list[str]) -> None:
    def number(text: str) -> float | None:
        try:
            return float(text)
        except ValueError:
            return None

    got = read_numbers(pl.Series(texts, dtype=pl.String)).to_list()
    for text, read in zip(texts, got, strict=True):
        expected = number(text)
        if expected is not None and math.isnan(expected):
            assert read is not None
            assert math.isnan(read)
        else:
            assert read == expected, text
