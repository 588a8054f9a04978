"""Tests that share a broker run in one process of pytest-xdist, so that the broker is started once."""

from __future__ import annotations

import pytest

from support.harness import RunningBroker


def test_a_test_is_grouped_by_the_broker_that_it_shares(request: pytest.FixtureRequest, broker: RunningBroker) -> None:
    """A name has the group of its test; with a pytest that does not read it each process starts every broker."""
    if not request.config.getoption("loadgroup", default=False):
        pytest.skip("the tests are not grouped: run them by make test-whole")
    assert broker.is_running
    assert request.node.nodeid.endswith("@broker")
