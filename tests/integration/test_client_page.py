"""The example in docs/client.md prints what the page says, and its defaults are those of `Recovery`."""

from __future__ import annotations

import re
import subprocess
import sys

import backtestr
from support.harness import ROOT, RunningBroker

PAGE = (ROOT / "docs" / "client.md").read_text("utf-8")


def test_the_example_of_the_page_prints_the_output_below_it(broker: RunningBroker) -> None:
    found = re.search(r"```python\n(?P<code>.+?)```\n\n```\n(?P<output>.+?)```", PAGE, re.DOTALL)
    assert found is not None, "docs/client.md has no example followed by its output"
    ran = subprocess.run(
        [sys.executable, "-c", found["code"]], env=broker.environment, capture_output=True, encoding="utf-8", timeout=60
    )
    assert ran.stderr == ""
    assert ran.stdout == found["output"]


def test_the_page_lists_recovery_with_its_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `?(\w+|[\d.]+)`? \| .* \|$", PAGE, re.MULTILINE)
    recovery = backtestr.Recovery()
    assert rows == [(name, str(getattr(recovery, name))) for name in recovery.__struct_fields__]
