"""What holds for every test: Hypothesis does not time examples, since a busy machine is no defect. And where tests are
spread over two processes (`make test`), those with brokers of their own stay together and take turns."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("backtestr", deadline=None)
settings.load_profile("backtestr")

INTEGRATION = Path(__file__).parent / "integration"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if INTEGRATION in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("integration"))
