"""These fixtures are shared by the tests of the broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.broker.clients import Client
from support.broker.database_store import Store
from support.broker.link import Link, Worker


@pytest.fixture
def make_link() -> Iterator[Callable[..., Link]]:
    """Return a maker of links whose cores are consistent when the test ends."""
    links: list[Link] = []

    def make(**options: Any) -> Link:
        links.append(Link(**options))
        return links[-1]

    yield make
    for link in links:
        link.core.check_invariants()


@pytest.fixture
def link(make_link: Callable[..., Link]) -> Link:
    """Return a link with one compute worker and one interactive worker, both ready."""
    return make_link()


@pytest.fixture
def ann(link: Link) -> Client:
    return link.client()


@pytest.fixture
def worker(link: Link) -> Worker:
    return link.worker("compute-1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "data" / "broker.db")
    yield made
    made.close()
