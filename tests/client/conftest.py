from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.client.link import Link
from support.harness import short_directory


@pytest.fixture
def link() -> Iterator[Link]:
    link = Link()
    yield link
    link.check_invariants()


@pytest.fixture
def home() -> Iterator[Path]:
    """Give a directory with a path short enough for the name of a socket in it."""
    with short_directory() as directory:
        yield directory
