from __future__ import annotations

from collections.abc import Iterator

import pytest

from clients.link import Link


@pytest.fixture
def link() -> Iterator[Link]:
    link = Link()
    yield link
    link.check_invariants()
