"""The README's example runs and prints what the README says."""

from __future__ import annotations

import re
import subprocess
import sys

from support.harness import ROOT, RunningBroker


def test_the_first_example_prints_the_output_below_it(broker: RunningBroker) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    found = re.search(r"```python\n(?P<code>.+?)```\n\n```\n(?P<output>.+?)```", readme, re.DOTALL)
    assert found is not None, "README.md has no example followed by its output"
    ran = subprocess.run(
        [sys.executable, "-c", found["code"]],
        env={**broker.environment, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert ran.stderr == ""
    assert ran.stdout == found["output"]
