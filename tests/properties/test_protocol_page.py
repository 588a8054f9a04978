"""PROTOCOL.md agrees with the package: its tables, the names of its fields, its example, and the references to it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from backtestr_protocol import schema
from backtestr_protocol.codec import REQUEST, Signer
from backtestr_protocol.connection import Connection
from backtestr_protocol.envelopes import Envelope
from backtestr_protocol.errors import ErrorCode, ErrorData
from backtestr_protocol.message_types import REQUESTS, STREAMED
from backtestr_protocol.messages import BacktestConfig, StreamOptions
from backtestr_protocol.metrics import METRICS
from backtestr_protocol.topics import CLASSES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "protocol" / "PROTOCOL.md").read_text("utf-8")
# Text and number of each.
HEADINGS: list[tuple[str, str]] = re.findall(r"^##+ ((\d+(?:\.\d+)?)\.? .+)$", PAGE, re.MULTILINE)
TEXTS = {".md", ".py", ".toml", ".mjs", ".js", ".ts", ".json"}
BUILT = {"node_modules", "dist", "page", "coverage", "compiled", "__pycache__"}

Struct = type[msgspec.Struct]


def section(number: str) -> str:
    """Return the text of section `6` with its subsections, or of `6.4` alone."""
    beginning, end = (rf"^### {number} ", r"^###? ") if "." in number else (rf"^## {number}\. ", r"^## ")
    return re.split(end, re.split(beginning, PAGE, flags=re.MULTILINE)[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row that begins with code."""
    lines = [line.strip("|\n ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line] for line in lines]


def spans(text: str) -> list[str]:
    """Return the code spans of a text, code blocks left out."""
    return re.findall(r"`([^`]+)`", re.sub(r"```.+?```", "", text, flags=re.DOTALL))


def blocks(text: str) -> list[str]:
    """Return the code blocks of a text."""
    return re.findall(r"```\w*\n(.+?)```", text, re.DOTALL)


def names(text: str) -> set[str]:
    """Return every name in the code of a text."""
    return {name for one in (*blocks(text), *spans(text)) for name in re.findall(r"\w+", one)}


def keys_of(braces: str) -> dict[str, bool]:
    """Return the keys of `{a, b?: [C]}` at its first level, each with whether it is optional."""
    assert braces[0] + braces[-1] == "{}", braces
    depth, parts = 0, [""]
    for character in braces[1:-1]:
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    keys = [part.partition(":")[0].strip() for part in parts if part.strip()]
    return {key.rstrip("?"): key.endswith("?") for key in keys}


def fields_of(struct: Struct) -> dict[str, bool]:
    """Return the wire names of a struct's fields, each with whether it is optional."""
    return {field.encode_name: not field.required for field in msgspec.structs.fields(struct)}


def structs(base: Struct = msgspec.Struct) -> Iterator[Struct]:
    """Yield every struct of the package."""
    for one in base.__subclasses__():
        if one.__module__.startswith(f"{schema.__package__}."):
            yield one
        yield from structs(one)


_DEFINED = schema.contracts()["$defs"]
CONTRACTS = {one.__name__: one for one in structs() if one.__name__ in _DEFINED}
# Type, data, Success data, section, priority, right; a row may have several types.
ASKED = {name: cells for cells in rows(section("6")) if len(cells) == 6 for name in spans(cells[0])}


def test_every_request_of_the_page_is_served_and_the_reverse() -> None:
    assert ASKED.keys() == REQUESTS.keys()


@pytest.mark.parametrize("name", REQUESTS)
def test_priorities_and_rights_are_the_page_s(name: str) -> None:
    assert ASKED[name][4] == REQUESTS[name].priority
    assert ASKED[name][5] == REQUESTS[name].right


@pytest.mark.parametrize("name", REQUESTS)
def test_the_section_of_a_request_names_its_fields(name: str) -> None:
    """The row has exactly the fields of data and Success data, or names the contract; the section explains them."""
    (data,), (success,), number = spans(ASKED[name][1]), spans(ASKED[name][2]), ASKED[name][3]
    row = REQUESTS[name]
    for cell, struct in ((data, row.data), (success, row.success)):
        if cell.startswith("{"):
            assert keys_of(cell) == fields_of(struct)
        else:
            assert CONTRACTS[cell] is struct
    explained = names(section(number))
    assert name in explained
    assert fields_of(row.data).keys() <= explained
    assert fields_of(row.success).keys() <= explained | names(f"`{success}`")


@pytest.mark.parametrize(
    "struct",
    [Connection, Envelope, ErrorData, BacktestConfig, StreamOptions, *STREAMED.values()],
    ids=lambda struct: struct.__name__,
)
def test_the_page_names_every_field(struct: Struct) -> None:
    """The fields of the structs within it count as well."""
    _, within = msgspec.json.schema_components([struct])
    for name in within:
        assert fields_of(CONTRACTS[name]).keys() <= names(PAGE), name


def test_a_contract_in_braces_has_the_fields_of_the_schema() -> None:
    """The page writes it as `Name` is `{…}`, or as `Name`: `{…}`."""
    written = re.findall(r"`([A-Z]\w+)`(?: is|:)\s+`(\{[^`]+\})`", PAGE)
    assert {name for name, _ in written} >= {"ErrorData", "AlgorithmInfo", "BacktestStatus", "SystemStatus", "Batch"}
    for name, braces in written:
        assert keys_of(braces) == fields_of(CONTRACTS[name]), name


def test_the_names_of_contracts_in_the_request_table_are_the_schema_s() -> None:
    cells = {name for row in ASKED.values() for cell in row[1:3] for name in names(cell)}
    assert {name for name in cells if name[0].isupper()} <= CONTRACTS.keys()


def test_metrics_are_the_page_s() -> None:
    """The table of section 6.6 has every metric in its group, in the order of the struct."""
    table = re.findall(r"^\| ([a-z]+) \| (`.+`) \|$", section("6.6"), re.MULTILINE)
    listed = [(group, name) for group, cell in table for name in spans(cell)]
    assert listed == [(one.group, one.wire_name) for one in METRICS]


def test_payloads_of_streams_are_the_page_s() -> None:
    payloads = {spans(cells[0])[0]: cells[1] for cells in rows(section("7.2"))}
    assert payloads.keys() == STREAMED.keys() - {"Batch"}
    for name, cell in payloads.items():
        if cell.startswith("`{"):
            assert keys_of(spans(cell)[0]) == fields_of(STREAMED[name]), name


def test_error_codes_are_the_page_s() -> None:
    assert {code for cells in rows(section("5")) for code in spans(cells[0])} == set(get_args(ErrorCode))


def test_topics_are_the_page_s() -> None:
    on_page = {}
    for line in section("7.1").splitlines():
        if found := re.match(r"\| (\w+) \| `([a-z]+\.(?:[a-z]+)?)[^|]*\| `(\w+)` \|.*\| ([\d,]+)[^|]*\|$", line):
            on_page[found[2]] = (found[1], found[3], int(found[4].replace(",", "")))
    assert on_page == {one.prefix: (one.socket, one.message_type, one.retained) for one in CLASSES}


def test_the_example_is_a_golden_vector() -> None:
    """The message of section 14.1 is the `Ping` of the vectors."""
    content = json.loads((ROOT / "protocol" / "vectors" / "requests.json").read_text("utf-8"))
    (ping,) = [one for one in content["cases"] if one["name"] == "Ping"]
    in_hex, decoded = blocks(section("14.1"))
    parts = {name: "".join(rest.split()) for name, rest in re.findall(r"^(\w+)((?:\s+[0-9a-f]{16,})+)", in_hex, re.M)}
    assert parts == {"key": content["key"], "signature": ping["frames"][0], "envelope": ping["frames"][1]}
    assert json.loads(decoded) == ping["expected"]["envelope"]
    envelope = bytes.fromhex(parts["envelope"])
    assert f"{len(envelope)} bytes" in section("14.1")
    assert len(envelope).to_bytes(4, "big").hex(" ") in spans(section("14.1"))
    assert Signer(bytes.fromhex(parts["key"])).sign(REQUEST, [envelope]).hex() == parts["signature"]


def test_links_lead_to_the_sections_that_they_name() -> None:
    anchors = {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"): number for text, number in HEADINGS}
    links: list[tuple[str, str]] = re.findall(r"\[([^]]+)\]\(#([^)]+)\)", PAGE)
    assert links
    for text, target in links:
        assert target in anchors, target
        if found := re.fullmatch(r"(?:section )?([\d.]+)", text):
            assert anchors[target] == found[1]


def texts() -> Iterator[tuple[Path, str]]:
    """Yield every text of the repository that may refer to the page, but for those that programs write."""
    for folder, below, names in os.walk(ROOT):
        below[:] = [one for one in below if not one.startswith(".") and one not in BUILT]
        for path in (Path(folder, name) for name in names):
            if path.suffix in TEXTS and path.name != "package-lock.json":
                yield path, path.read_text("utf-8")


def test_references_name_sections_that_exist() -> None:
    numbers = {number for _, number in HEADINGS}
    found = 0
    for path, text in texts():
        for reference in re.findall(r"PROTOCOL\.md,\W+sections?\s+(\d[\d., andto]*)", text):
            found += 1
            assert set(re.findall(r"\d+(?:\.\d+)?", reference)) <= numbers, f"{path}: {reference}"
    assert found


def test_nothing_is_left_of_the_numbered_additions() -> None:
    """Version 1 was an agreed text with additions and marks once; one page took their place."""
    assert [number for _, number in HEADINGS if "." not in number] == [str(one) for one in range(1, 15)]
    assert not [text for text, _ in HEADINGS if "Addition" in text]
    for path, text in texts():
        assert not re.search(r"\[→\s?A\d|\bA\d{1,2}\b", text), f"{path} refers to an addition"
