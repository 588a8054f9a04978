"""Compiled kernels never outlive the code that they were compiled from."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import backtestr_engine
from backtestr_engine import kernel_cache
from backtestr_engine.simulation import symbol_loop

PACKAGE = Path(backtestr_engine.__file__).parent
COMPILERS = {"kernel", "inlined_kernel", "cached_kernel", "compiled", "njit"}


def test_kernels_are_cached_under_the_content_of_their_sources() -> None:
    kernel: Any = symbol_loop.simulate
    assert kernel_cache.KERNEL_CACHE is not None
    assert kernel_cache.KERNEL_CACHE.parent.name == "kernels"
    assert str(kernel_cache.KERNEL_CACHE) in str(kernel.stats.cache_path)
    assert not list(PACKAGE.rglob("*.nbi"))


def kernels(module: ast.Module) -> Iterator[ast.FunctionDef]:
    """Iterate over the functions of a module that numba compiles."""
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef):
            called = [one.func if isinstance(one, ast.Call) else one for one in function.decorator_list]
            if any(isinstance(one, ast.Name) and one.id in COMPILERS for one in called):
                yield function


def imported_files(module: ast.Module, file: Path) -> dict[str, Path]:
    """Return the file of the engine from which each name of a module is imported."""
    found = {}
    for statement in ast.walk(module):
        if isinstance(statement, ast.ImportFrom) and statement.module is not None:
            if statement.level == 1:
                origin = file.parent
            elif statement.module.startswith("backtestr_engine."):
                origin = PACKAGE.parent
            else:
                continue
            source = origin.joinpath(*statement.module.split(".")).with_suffix(".py")
            found.update({alias.asname or alias.name: source for alias in statement.names})
    return found


def test_one_module_alone_decides_if_kernels_are_kept() -> None:
    """numba raises while a module is imported that is to be kept where nothing can be written."""
    asking = [file for file in PACKAGE.rglob("*.py") if "njit(cache" in file.read_text("utf-8")]
    assert asking == [PACKAGE / "compiled.py"]


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_all_code_that_is_compiled_is_in_the_sources(file: Path) -> None:
    sources = kernel_cache.kernel_source_files()
    module = ast.parse(file.read_text("utf-8"))
    origins = imported_files(module, file)
    for kernel in kernels(module):
        assert file in sources, f"{kernel.name} is compiled"
        for name in (one.id for statement in kernel.body for one in ast.walk(statement) if isinstance(one, ast.Name)):
            assert origins.get(name, file) in sources, f"{kernel.name} refers to {name}"
