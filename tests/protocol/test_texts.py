"""Texts and details of errors are bounded, whatever the code of a user puts into them."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol.codec import encode
from backtestr_protocol.texts import (
    MAX_DETAILS_BYTES,
    MAX_TEXT_BYTES,
    bounded,
    bounded_details,
    described,
    traceback_of,
)
from support.protocol.strategies import VALUES, laws


@laws
@given(text=st.text(st.characters(), max_size=300), limit=st.integers(64, 200))
def test_a_text_is_whole_or_is_cut_and_says_so(text: str, limit: int) -> None:
    cut = bounded(text, limit)
    assert len(cut.encode()) <= limit
    written = text.encode("utf-8", "backslashreplace").decode()
    if cut != written:
        assert len(written.encode()) > limit
        head, _, note = cut.partition("… cut: ")
        assert written.startswith(head)
        assert note == f"{len(text):,} characters"


def test_a_text_of_20_million_characters_states_its_length() -> None:
    assert bounded("x" * 20_000_000).endswith("xx… cut: 20,000,000 characters")
    assert len(bounded("ä" * 20_000_000).encode()) <= MAX_TEXT_BYTES
    assert bounded("x" * MAX_TEXT_BYTES) == "x" * MAX_TEXT_BYTES


def test_a_text_that_is_cut_again_keeps_the_length_of_the_whole() -> None:
    again = bounded(f"somewhere: {bounded('x' * 20_000_000)}", 4_000)
    assert again.endswith("xx… cut: 20,000,000 characters")
    assert len(again.encode()) <= 4_000


def test_lone_surrogates_are_written_as_in_source() -> None:
    assert bounded("a\ud800b") == "a\\ud800b"
    encode(bounded("\udfff" * MAX_TEXT_BYTES))


class Silent(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class Odd(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("why"), "ValueError: why"),
        (KeyError(), "KeyError"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (Silent(), "Silent: its text could not be made"),
        (Odd(), "Odd: its text could not be made"),
    ],
)
def test_an_error_is_described_by_type_and_text(error: BaseException, text: str) -> None:
    assert described(error) == text
    assert type(error).__name__ in traceback_of(error)


def test_a_traceback_is_bounded_and_shows_no_values() -> None:
    def fail(secret: str) -> None:
        raise ValueError(len(secret) * "x" * 1_000_000)

    with pytest.raises(ValueError, match="x") as caught:
        fail("the value of a variable")
    text = traceback_of(caught.value)
    assert "in fail" in text
    assert "the value of" not in text.replace('fail("the value of a variable")', "")
    assert len(text.encode()) <= MAX_TEXT_BYTES


def test_errors_in_a_circle_have_a_traceback() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert "ValueError: one" in traceback_of(one)


# --- details ---


@laws
@given(details=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), VALUES, max_size=5))
def test_usual_details_are_unchanged(details: dict[str, Any]) -> None:
    assert bounded_details(details) == details


def test_no_details_stay_none() -> None:
    assert bounded_details(None) is None


class Hostile:
    def __repr__(self) -> str:
        raise SystemExit


class HostileText(str):
    def __getitem__(self, _at: Any) -> str:
        raise SystemExit


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else "end"


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 20_000_000,
        ["x" * 1_000] * 20_000,
        {str(number): "x" * 100 for number in range(20_000)},
        {5: Hostile(), (1, 2): b"bytes"},
        Hostile(),
        HostileText("text"),
        2**70,
        -(2**70),
        math.nan,
        "\ud800",
        nested(900),
        CIRCLE,
        {1, 2},
        object(),
        [0] * 10_000_000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_is_in_details_is_bounded_and_can_be_sent(value: Any) -> None:
    sent = encode(bounded_details({"value": value, "traceback": "short"}))
    assert len(sent) <= 2 * MAX_DETAILS_BYTES
    assert "value" in msgpack.unpackb(sent)
