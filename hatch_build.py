"""This hook compiles what is compiled of backtestr when it is installed, also for development, or a wheel is made.

Where that fails, the build goes on with one line about it: everything has a twin in Python. Each step takes the root of
the project, and returns the files that were built and the reasons why others were not.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def modules_in_c(root: Path) -> tuple[list[Path], list[str]]:
    """Compile the modules in C."""
    built, reasons = runpy.run_path(str(root / "protocol" / "build_extensions.py"))["build_all"]()
    return built, reasons


def hot_modules(root: Path) -> tuple[list[Path], list[str]]:
    """Compile the modules in Python that each message passes."""
    built, reasons = runpy.run_path(str(root / "compile_hot_modules.py"))["build_all"]()
    return built, reasons


# By what is built. For development `make setup` compiles the hot modules itself, since it has other work meanwhile.
STEPS = {"standard": (modules_in_c, hot_modules), "editable": (modules_in_c,)}


class CustomBuildHook(BuildHookInterface[Any]):
    """The hook that hatchling calls before it makes a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put the products into the wheel, which is then one for this Python and machine.

        With `BACKTESTR_PURE=1` nothing is compiled, and the wheel is one for all of them.
        """
        root = Path(self.root)
        if os.environ.get("BACKTESTR_PURE", "0") not in ("", "0"):
            return
        for step in STEPS[version]:
            built, reasons = step(root)
            for reason in reasons:
                self.app.display_warning(f"not compiled, so pure Python is used: {reason}")
            if built:
                build_data["artifacts"] += [one.relative_to(root).as_posix() for one in built]
                build_data["pure_python"] = False
                build_data["infer_tag"] = True
