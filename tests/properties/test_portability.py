"""Only the room `backtestr_protocol.system` asks for what some systems lack, and no module asks which system it is on.

Elsewhere such a name stands behind a `hasattr` of the same name, in the same module.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from types import ModuleType

import pytest

from support.harness import ROOT

PACKAGES = ("protocol/backtestr_protocol", "broker/backtestr_broker", "engine/backtestr_engine")
CLIENT = "clients/python/backtestr"
SYSTEM = ROOT / "protocol" / "backtestr_protocol" / "system"
# How a module asks which system this is, instead of what it has.
NAMES_OF_SYSTEMS = {("sys", "platform"), ("os", "name"), ("os", "uname"), ("platform", "system")}
# Modules that only systems with owners of files have, and who asks for them behind that question.
GUARDED_IMPORTS = {("private_files", "grp"), ("private_files", "pwd")}


def _names() -> ModuleType:
    path = ROOT / "tests" / "support" / "without_posix" / "windows_names.py"
    spec = importlib.util.spec_from_file_location("windows_names", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WINDOWS = _names()
FILES = [file for package in (*PACKAGES, CLIENT) for file in sorted((ROOT / package).rglob("*.py"))]


def used(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield each `module.name` in the code, by the module's own name."""
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {one.asname or one.name: one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            yield from ((node.module, one.name) for one in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield modules[node.value.id], node.attr


def asked_for(tree: ast.AST) -> set[str]:
    """Return the names in `hasattr(module, name)` and `getattr(module, name, default)`."""
    return {
        str(node.args[1].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("hasattr", "getattr")
        and isinstance(node.args[1], ast.Constant)
    }


def imported(tree: ast.AST) -> set[str]:
    found = {one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names}
    return found | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("package", [*PACKAGES, CLIENT])
def test_no_module_needs_what_windows_lacks(package: str) -> None:
    missing = []
    for file in FILES:
        if not file.is_relative_to(ROOT / package) or file.is_relative_to(SYSTEM):
            continue
        tree = ast.parse(file.read_text("utf-8"))
        guarded = asked_for(tree)
        missing += [
            f"{file.name}: {module}.{name}"
            for module, name in used(tree)
            if WINDOWS.is_missing(module, name) and name not in guarded
        ]
        missing += [
            f"{file.name}: import {name}"
            for name in imported(tree) & WINDOWS.MISSING_MODULES
            if (file.stem, name) not in GUARDED_IMPORTS
        ]
    assert not missing, "put it into a module of backtestr_protocol.system that finds out whether the system has it"


def test_no_module_asks_which_system_this_is() -> None:
    asking = [
        f"{file.name}: {module}.{name}"
        for file in FILES
        for module, name in used(ast.parse(file.read_text("utf-8")))
        if (module, name) in NAMES_OF_SYSTEMS
    ]
    assert not asking, "find out what the system has, instead of its name"


def test_the_law_sees_what_it_forbids() -> None:
    tree = ast.parse("import os\nimport signal as s\nfrom os import fork\nos.getuid()\ns.SIGKILL\nos.O_RDONLY")
    found = {f"{module}.{name}" for module, name in used(tree) if WINDOWS.is_missing(module, name)}
    assert found == {"os.getuid", "signal.SIGKILL", "os.fork"}
    assert asked_for(ast.parse("hasattr(os, 'getuid')\ngetattr(signal, 'SIGHUP', None)")) == {"getuid", "SIGHUP"}
