"""PROTOCOL.md against the package: the agreed text is untouched, and its tables are what the code has."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import get_args

import pytest

from backtestr_protocol.errors import ErrorCode
from backtestr_protocol.message_types import REQUESTS
from backtestr_protocol.topics import CLASSES

PAGE = (Path(__file__).parents[2] / "protocol" / "PROTOCOL.md").read_text("utf-8")
AGREED, ADDITIONS = PAGE.split("\n## 9. Additions of this version\n")
NORMATIVE_SHA256 = "2bffdea95727ce79e382f9f6bf86d9f3c726cb47eabd750b5ae219ec29140a33"


def section(number: int) -> str:
    return AGREED.split(f"\n## {number}. ")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row below its heading."""
    lines = [line.strip("|\n ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line] for line in lines]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_agreed_text_is_untouched() -> None:
    without_note = re.sub(r"\n(> .*\n)+", "", AGREED, count=1)
    without_marks = re.sub(r" \[→ A\d+(?:, A\d+)*\]", "", without_note)
    assert hashlib.sha256(without_marks.encode()).hexdigest() == NORMATIVE_SHA256, (
        "sections 1 to 8 are agreed: what is new goes to section 9, what changes is another protocolVersion"
    )


def test_marks_and_additions_belong_together() -> None:
    marked = {number for marks in re.findall(r"\[→ (A[^\]]+)\]", AGREED) for number in marks.split(", ")}
    added = re.findall(r"^\*\*(A\d+)\.", ADDITIONS, re.MULTILINE)
    assert added == [f"A{number}" for number in range(1, len(added) + 1)]
    assert marked == set(added)


def test_every_request_of_the_page_is_served_or_named_as_missing() -> None:
    asked = {name for cells in rows(section(6)) for name in quoted(cells[0])}
    added = {name for cells in rows(ADDITIONS) for name in quoted(cells[0])}
    not_served = ADDITIONS.split("**A14.")[1].split("\n\n")[0].split("The topics")[0]
    missing = set(quoted(not_served)) - {"UNSUPPORTED_COMMAND"}
    assert missing == asked - set(REQUESTS)
    assert added <= set(REQUESTS) - asked
    assert set(REQUESTS) - asked - added == {"Hello", "Goodbye"}


@pytest.mark.parametrize("name", sorted(set(REQUESTS) - {"Hello", "Goodbye"}))
def test_priorities_are_the_page_s(name: str) -> None:
    cells = next(cells for cells in rows(section(6) + ADDITIONS) if name in quoted(cells[0]))
    assert cells[-1] == REQUESTS[name].priority


def test_error_codes_are_the_page_s() -> None:
    assert {code for cells in rows(section(5)) for code in quoted(cells[0])} == set(get_args(ErrorCode))


def test_topics_are_the_page_s() -> None:
    on_page = {}
    for line in (section(7) + ADDITIONS).splitlines():
        if found := re.match(r"\| (\w+) \| `([a-z]+\.(?:[a-z]+)?)[^|]*\|.*\| ([\d,]+)[^|]*\|$", line):
            on_page[found[2]] = (found[1], int(found[3].replace(",", "")))
    assert on_page == {one.prefix: (one.socket, one.retained) for one in CLASSES}
