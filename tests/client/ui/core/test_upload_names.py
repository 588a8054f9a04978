"""Names of uploaded files lead nowhere, whatever a page calls them."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.ui.core.upload_names import MAX_CHARACTERS, upload_name


@given(st.text(max_size=300))
def test_a_name_is_one_part_of_a_path_on_every_system(given_name: str) -> None:
    name = upload_name(given_name)
    assert name
    assert name not in (".", "..")
    assert len(name) <= MAX_CHARACTERS + 2  # a device's first letter is escaped
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        assert path.parts == (name,)
    assert name.isascii()


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("EURUSD 1h (2024).csv.gz", "EURUSD 1h (2024).csv.gz"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\bars.parquet", "bars.parquet"),
        (".hidden.csv", "hidden.csv"),
        ("..", "upload"),
        ("", "upload"),
        ("a\0b\n.csv", "a_b_.csv"),
        ("Kurse–März.csv", "Kurse_M_rz.csv"),
        ("-rf.csv", "rf.csv"),
        ("nul.csv", "%6Eul.csv"),
        ("x" * 200 + ".parquet", "x" * 92 + ".parquet"),
    ],
)
def test_what_is_kept_of_a_name(given_name: str, name: str) -> None:
    assert upload_name(given_name) == name
