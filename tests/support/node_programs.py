"""Node and npm, as `make` has put them into this environment: those of the path, or those of a wheel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

BIN = Path(sys.executable).parent
NODE = BIN / "node"
# The TypeScript client, whose folder `dist` `make build-ts` makes.
BUILT_CLIENT = Path(__file__).parents[2] / "clients" / "typescript"
# Two minutes suffice for a registry that is slow; without one npm gives up earlier.
INSTALL_SECONDS = 240


def with_node(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which programs, npm among them, find this Node first."""
    assert NODE.exists(), f"there is no {NODE}; run: make .venv/.node"
    return {**environment, "PATH": os.pathsep.join([str(BIN), environment.get("PATH", os.defpath)])}


def npm(*arguments: str, directory: Path) -> None:
    """Run npm in a directory. Raises `AssertionError` with what it says if it fails."""
    done = subprocess.run(
        ["npm", *arguments],
        cwd=directory,
        env=with_node(os.environ),
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
