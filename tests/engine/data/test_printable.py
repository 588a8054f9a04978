"""Every text can be encoded and shown after `printable`, and one that could before is as it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.data.printable import printable


@given(st.text(st.characters(exclude_categories=()), max_size=50))
def test_every_text_can_be_encoded_and_shown(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert all(line.isprintable() for line in shown.replace("\t", "\n").split("\n"))


def test_what_can_be_shown_stays_as_it_is() -> None:
    assert printable("Größe ☃\n\tx") == "Größe ☃\n\tx"
    assert printable("a\0b\x1b[31m\ud800") == "a\\x00b\\x1b[31m\\ud800"
