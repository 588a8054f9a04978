"""Rows of a text that must be refused: they are those of Python's `csv`, and numbers are those of `float`."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path

import polars as pl
from hypothesis import example, given
from hypothesis import strategies as st

from backtestr_engine.importing.csv_reader import read_numbers, read_text
from backtestr_engine.importing.layout import Layout
from backtestr_engine.importing.sources import TextFile
from backtestr_engine.importing.timestamps import TimeFormat

LAYOUT = Layout(
    kind="trades",
    time=(0,),
    fields={"price": 1, "size": 2},
    names={"timestamp": "time", "price": "price", "size": "size"},
    written=TimeFormat("%Y"),
    zone=None,
    blank_repeats=False,
    notes=(),
    decimal=".",
)


def text_file(content: str) -> TextFile:
    return TextFile(
        path=Path("ticks.csv"),
        name="ticks.csv",
        format="csv",
        content=content.encode(),
        delimiter=",",
        header=("time", "price", "size"),
        has_header=True,
        header_lines=1,
        header_line=1,
        rows_at=len("time,price,size\n"),
        first_rows=(),
        time=None,
    )


def expected_cells(line: int, cells: list[str]) -> list[tuple[int, str, str]]:
    """Return the malformed cells of a row, as line, column and text."""
    if len(cells) < 3:
        return [(line, ("time", "price", "size")[len(cells)], "")]
    if len(cells) > 3:
        return [(line, "size", cells[-1])]
    bad = [(line, name, text) for name, text in zip(("price", "size"), cells[1:], strict=True) if number(text) is None]
    return bad if is_year(cells[0].strip()) else [*bad, (line, "time", cells[0].strip())]


GROUPED = re.compile(r"\d{1,3}(?:( |,)\d{3})(?:\1\d{3})*|\d{1,2}(?:( |,)\d{2})(?:\2\d{2})*\2\d{3}")


def number(text: str) -> float | None:
    """Return what a cell is: a number of Python, or one in groups of digits."""
    try:
        return float(text)
    except ValueError:
        return float(re.sub("[ ,]", "", text)) if GROUPED.fullmatch(text.strip()) else None


def is_year(text: str) -> bool:
    return len(text) == 4 and text.isdecimal() and text.isascii() and 1900 <= int(text) < 2200


@given(st.text('12", x\né', max_size=60))
@example('1111,2,3\n"2111","1","2"\n2112,1,2,3\nx,1,2\n')
@example('"1","2","3"\n"","",""\n')
@example('1,"2,3",4\n5,6,7\n')
@example('1,"a\nb",2\n1,2,3\n')
@example('1,"a""b",2\n')
@example('",",1,2\n1,2,"')
@example(',,"1')
def test_cells_are_those_of_csv(rows: str) -> None:
    rows += "bad\n" if rows.count('"') % 2 == 0 and rows[-1:] in ("", "\n") else ""
    reader = csv.reader(io.StringIO(rows, newline=""))
    lines = [(reader.line_num + 1, cells) for cells in reader if any(cell.strip() for cell in cells)]
    malformed = [cell for line, cells in lines for cell in expected_cells(line, cells)]

    got = read_text(text_file(f"time,price,size\n{rows}"), LAYOUT)

    assert got.malformed.select("line", "column", "text").rows() == malformed
    bad = {line for line, _, _ in malformed}
    assert list(got.places()) == [line for line, _ in lines if line not in bad]
    kept = [cells for line, cells in lines if line not in bad]
    assert got.fields["price"].tolist() == [number(cells[1]) for cells in kept]


@given(st.lists(st.text("0123456789+-._ eEinfatyNI\x1c\u0663x", max_size=9)))
@example(["1_000", "\u0661\u0662", " 7 ", "\x1c5", "1__0", "", "-inf", "infinity", "1e400", "0x10", ".", "1."])
def test_numbers_are_those_of_float(texts: list[str]) -> None:
    def by_python(text: str) -> float | None:
        try:
            return float(text)
        except ValueError:
            return None

    got = read_numbers(pl.Series(texts, dtype=pl.String)).to_list()
    for text, read in zip(texts, got, strict=True):
        expected = by_python(text)
        if expected is not None and math.isnan(expected):
            assert read is not None
            assert math.isnan(read)
        else:
            assert read == expected, text
