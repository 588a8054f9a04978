"""Settings of every test, and how `make test` shares the tests out between two processes.

Hypothesis does not time examples, since a busy machine is no defect. The tests with real brokers form two groups, one
for each process, and come first; all other tests follow one by one, so that both processes are busy to the end.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("backtestr", deadline=None)
settings.load_profile("backtestr")

INTEGRATION = Path(__file__).parent / "integration"
# Files that share brokers (`integration/conftest.py`) stay together, and both groups take about as long.
FIRST_GROUP = (
    "test_command_line",
    "test_durability",
    "test_lifecycle",
    "test_own_algorithms",
    "test_prices",
    "test_python_client",
    "test_recovery",
    "test_registered_algorithms",
    "test_steering",
    "test_top",
    "test_worker_limits",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests with real brokers into their groups."""
    for item in items:
        if INTEGRATION in item.path.parents:
            group = "first" if item.path.stem in FIRST_GROUP else "second"
            item.add_marker(pytest.mark.xdist_group(f"integration-{group}"))
