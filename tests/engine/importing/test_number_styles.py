"""Numbers as people write them: read as they are meant, or refused with both readings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.importing.number_styles import AmbiguousNumbers, decimal_mark, is_styled, read_styled
from backtestr_protocol.errors import DataError
from backtestr_protocol.import_messages import DecimalMark
from support.engine.reading import read_bars

OTHER: dict[DecimalMark, DecimalMark] = {".": ",", ",": "."}


def value(text: str, decimal: DecimalMark, *, amount: bool = False) -> float | None:
    found: float | None = read_styled(pl.Series([text]), decimal, amount=amount)[0]
    return found


@pytest.mark.parametrize(
    ("text", "decimal", "expected"),
    [
        ("100,5", ",", 100.5),
        ("1.234,50", ",", 1234.5),
        ("1 234,5", ",", 1234.5),
        ("1\u00a0234\u202f567,5", ",", 1234567.5),
        ("-0,5", ",", -0.5),
        (",5", ",", 0.5),
        ("10,050.00", ".", 10050.0),
        ("1'234.5", ".", 1234.5),
        ("1,23,456.00", ".", 123456.0),  # India
        ("$99.75", ".", 99.75),
        ("-$99.75", ".", -99.75),
        ("99,75 €", ",", 99.75),
        ("100.5", ",", None),
        ("1,23", ".", None),
        ("1,2345", ".", None),
        ("12,34,5", ".", None),
        ("1 2", ".", None),
        ("56.79K", ".", None),
        ("0.10%", ".", None),
        ("-", ".", None),
        ("", ".", None),
        ("$", ".", None),
    ],
)
def test_numbers_of_countries(text: str, decimal: DecimalMark, expected: float | None) -> None:
    assert value(text, decimal) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("56.79K", 56790.0), ("1.2M", 1.2e6), ("3b", 3e9), ("1,234.5 K", 1234500.0), ("7KM", None)]
)
def test_amounts_may_be_shortened(text: str, expected: float | None) -> None:
    assert value(text, ".", amount=True) == expected


@given(
    numbers=st.lists(st.decimals(0, 10**9, places=2), min_size=1, max_size=20),
    decimal=st.sampled_from([".", ","]),
    groups=st.sampled_from(["", "other", " ", "'"]),
)
def test_written_numbers_are_read_right_or_refused(numbers: list[object], decimal: DecimalMark, groups: str) -> None:
    separator = OTHER[decimal] if groups == "other" else groups
    texts = [f"{one:,}".replace(",", "~").replace(".", decimal).replace("~", separator) for one in numbers]
    cells = pl.Series(texts)
    try:
        found = decimal_mark([cells])
    except AmbiguousNumbers:
        pytest.fail("two decimals are never a group of three")
    if found is None:
        assert not is_styled(cells)
        assert [float(text) for text in texts] == [float(str(one)) for one in numbers]
        return
    assert found == decimal
    assert read_styled(cells, found, amount=False).to_list() == [float(str(one)) for one in numbers]


def test_a_group_of_three_alone_is_refused_with_both_readings() -> None:
    with pytest.raises(AmbiguousNumbers, match=r"'1,234' may be 1234 .decimal point. or 1\.234 .decimal comma."):
        decimal_mark([pl.Series(["1,234", "1,235"])])
    assert decimal_mark([pl.Series(["1,234"]), pl.Series(["100.5"])]) == "."
    assert decimal_mark([pl.Series(["1,234"]), pl.Series(["100,5"])]) == ","
    assert decimal_mark([pl.Series(["1.234"]), pl.Series(["12.5"])]) is None


HEADER = "Date;Open;High;Low;Close;Volume\n"


def bars_of(tmp_path: Path, text: str, **options: Any) -> list[list[float]]:
    path = tmp_path / "bars.csv"
    path.write_text(text)
    bars = read_bars(path, "X", "1d", **options).bars
    return [getattr(bars, name).tolist() for name in ("open", "high", "low", "close", "volume")]


def test_the_decimal_mark_is_that_of_the_whole_file(tmp_path: Path) -> None:
    """A volume of 12.345 is twelve thousand beside prices with a decimal comma, and a price of 1,234 is little."""
    rows = "2024-03-04;1,234;1,5;1,1;1,25;12.345\n2024-03-05;1,25;1,5;1,125;1,375;1.234.567\n"
    assert bars_of(tmp_path, HEADER + rows) == [
        [1.234, 1.25],
        [1.5, 1.5],
        [1.1, 1.125],
        [1.25, 1.375],
        [12345, 1234567],
    ]


def test_prices_that_pass_a_thousand_far_below_are_read(tmp_path: Path) -> None:
    """The first rows have no separator: the file is read again when one comes."""
    rows = [f'2024-01-{day:02},"999.50","1,000.25","999.00","1,000.00","7"\n' for day in range(1, 32)]
    plain = [f"2023-{month:02}-{day:02},9,9,9,9,9\n" for month in range(11, 13) for day in range(1, 31)]
    found = bars_of(tmp_path, HEADER.replace(";", ",") + "".join(plain + rows))
    assert (found[0][-1], found[1][-1], found[3][-1], len(found[0])) == (999.5, 1000.25, 1000.0, 91)


def test_a_file_that_nothing_decides_asks_for_the_option(tmp_path: Path) -> None:
    rows = "2024-03-04;1,234;1,500;1,100;1,250;7\n2024-03-05;1,250;1,500;1,125;1,375;8\n"
    with pytest.raises(DataError, match=r"'1,234' may be .*--decimal \. or --decimal ,") as caught:
        bars_of(tmp_path, HEADER + rows)
    assert [one.action for one in caught.value.recovery_actions] == ["choose_reading"]
    assert bars_of(tmp_path, HEADER + rows, decimal=",")[0] == [1.234, 1.25]
    assert bars_of(tmp_path, HEADER + rows, decimal=".")[0] == [1234, 1250]


def test_a_decimal_comma_that_was_asked_for_holds_for_plain_numbers_too(tmp_path: Path) -> None:
    rows = "2024-03-04;1.234;1.500;1.100;1.250;7\n2024-03-05;1.250;1.500;1.125;1.375;8\n"
    assert bars_of(tmp_path, HEADER + rows)[0] == [1.234, 1.25]
    assert bars_of(tmp_path, HEADER + rows, decimal=",")[0] == [1234, 1250]


def test_a_cell_that_is_no_number_in_the_style_of_the_file_is_named(tmp_path: Path) -> None:
    rows = "2024-03-04;100,5;102,5;99,5;101,5;7\n2024-03-05;100,5;102.75;99,5;101,5;8\n"
    with pytest.raises(DataError, match=r"line 3, column 'High': '102\.75' is not a number"):
        bars_of(tmp_path, HEADER + rows)


def test_texts_of_a_table_are_numbers_as_in_a_text_file(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"time": ["2024-03-04"], "open": ["10,050.00"], "high": ["10,225.5"], "low": ["9,975.0"], "close": ["10,150.0"]}
    )
    frame.write_parquet(tmp_path / "bars.parquet")
    assert read_bars(tmp_path / "bars.parquet", "X", "1d").bars.high[0] == 10225.5
