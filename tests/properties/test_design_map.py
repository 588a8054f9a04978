"""docs/design-map.md names what exists: every path, every link, every code, request and topic."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from backtestr_protocol.errors import ErrorCode
from backtestr_protocol.message_types import REQUESTS
from backtestr_protocol.topics import class_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "design-map.md").read_text("utf-8")
DESIGNED = (
    *("IPCRequestHandler", "StreamingService", "CommandProcessor", "DataBatcher", "AdaptiveBatcher", "DataOptimizer"),
    *("StateSyncManager", "ConflictResolver", "ConnectionPool", "RecoveryManager", "CircuitBreaker", "StatusMonitor"),
    *("ErrorHandler", "price_updates", "BACKTEST_START_FAILED"),
)


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its head."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize("name", DESIGNED)
def test_every_name_of_the_design_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_every_part_names_files_that_exist() -> None:
    parts = rows("Parts")
    assert len(parts) > 20
    for _, _, where, _ in parts:
        paths = re.findall(r"`([^`]+)`", where)
        assert paths
        for path in paths:
            assert (ROOT / path).is_file(), path


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGE)
    assert len(links) > 10
    for link in links:
        assert (ROOT / "docs" / link).is_file(), link


def test_every_request_here_exists() -> None:
    for _, here, _ in rows("Requests"):
        for name in re.findall(r"`([A-Z]\w+)`", here):
            assert name in REQUESTS, name


def test_every_topic_here_exists() -> None:
    for _, here, _ in rows("Topics"):
        for name in re.findall(r"`([^`]+)`", here):
            assert class_of(re.sub(r"<\w+>", "x", name)) is not None, name


def test_every_code_here_exists() -> None:
    for _, here in rows("Codes of errors"):
        for name in re.findall(r"`([A-Z]+_[A-Z_]+|TIMEOUT|BUSY)`", here):
            assert name in get_args(ErrorCode), name


def test_the_page_is_linked_from_the_contents() -> None:
    assert "(design-map.md)" in (ROOT / "docs" / "README.md").read_text("utf-8")
