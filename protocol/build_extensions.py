"""Compile the modules in C beside their sources; the product works without them, and is slower then.

    python protocol/build_extensions.py

`hatch_build.py` calls this when backtestr is installed or a wheel is made. The exit status is 1 if a module was not
built.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

WIRE = Path(__file__).parent / "backtestr_protocol" / "wire"
SOURCES = (WIRE / "_mac.c", WIRE / "_frames.c")
FLAGS = ("-O2", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden")
# Seconds; a module takes about one.
_PATIENCE = 120
_LINKING = {"darwin": ("-bundle", "-undefined", "dynamic_lookup")}.get(sys.platform, ("-shared", "-ldl"))


class NotBuilt(Exception):
    """A module was not compiled, with the reason."""


def compiler() -> list[str]:
    """Return the command of the C compiler: that of `CC`, the one that Python was built with, or another."""
    if sys.platform == "win32":
        raise NotBuilt("on Windows there is no compiled module")
    for command in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"):
        if command and shutil.which(shlex.split(command)[0]):
            return shlex.split(command)
    raise NotBuilt("there is no C compiler; on Debian and Ubuntu: apt-get install gcc python3-dev")


def build(source: Path, folder: Path, flags: Sequence[str] = FLAGS) -> Path:
    """Compile a module into `folder`, and return its file. Raises `NotBuilt`, and removes an earlier one."""
    target = folder / f"{source.stem}{sysconfig.get_config_var('EXT_SUFFIX')}"
    unfinished = target.with_suffix(".unfinished")
    try:
        command = [*compiler(), *flags, f"-I{sysconfig.get_path('include')}", str(source), "-o", str(unfinished)]
        subprocess.run([*command, *_LINKING], check=True, capture_output=True, text=True, timeout=_PATIENCE)
        unfinished.replace(target)
    except subprocess.CalledProcessError as error:
        target.unlink(missing_ok=True)
        raise NotBuilt(f"{source.name}: {error.stderr.strip() or error}") from error
    except (NotBuilt, OSError, subprocess.TimeoutExpired) as error:
        target.unlink(missing_ok=True)
        raise NotBuilt(f"{source.name}: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def build_all() -> tuple[list[Path], list[str]]:
    """Compile all modules; return those that were built, and why others were not, each in one line."""
    built: list[Path] = []
    reasons: list[str] = []
    for source in SOURCES:
        try:
            built.append(build(source, source.parent))
        except NotBuilt as error:
            reasons.append(str(error).splitlines()[0])
    return built, reasons


if __name__ == "__main__":
    _, missing = build_all()
    for reason in missing:
        print(f"not compiled, so pure Python is used: {reason}", file=sys.stderr)
    sys.exit(1 if missing else 0)
