"""Compiled kernels never outlive the code that they were compiled from."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import backtestr_engine
from backtestr_engine.simulation import symbol_loop
from backtestr_protocol.errors import InvalidConfiguration

PACKAGE = Path(backtestr_engine.__file__).parent
COMPILERS = {"kernel", "inlined_kernel", "cached_kernel", "njit"}


def test_kernels_are_cached_under_the_content_of_their_sources() -> None:
    kernel: Any = symbol_loop._simulate
    assert backtestr_engine.KERNEL_CACHE.parent.name == "kernels"
    assert str(backtestr_engine.KERNEL_CACHE) in str(kernel.stats.cache_path)
    assert not list(PACKAGE.rglob("*.nbi"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a cache with one kernel, made with umask 0002."""
    folder = tmp_path / "kernels" / "0123"
    (folder / "simulation").mkdir(parents=True)
    (folder / "simulation" / "kernel.nbi").write_bytes(b"pickled")
    (folder / "simulation" / "kernel.nbi").chmod(0o644)
    folder.chmod(0o755)
    return folder


def test_a_cache_of_this_user_is_made_private_and_kept(cache: Path) -> None:
    assert backtestr_engine._problem_of(cache) is None
    assert cache.stat().st_mode & 0o777 == 0o700
    assert list(cache.rglob("*.nbi"))


@pytest.mark.parametrize("which", ["simulation", "simulation/kernel.nbi"])
def test_kernels_that_another_user_could_have_written_are_deleted(cache: Path, which: str) -> None:
    """numba unpickles them, which executes what the pickle says."""
    (cache / which).chmod(0o777)
    assert backtestr_engine._problem_of(cache) is None
    assert list(cache.iterdir()) == []


def test_kernels_of_another_user_are_deleted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backtestr_engine, "is_trusted", lambda found: False)
    assert backtestr_engine._problem_of(cache) is None
    assert list(cache.iterdir()) == []


def test_a_cache_to_which_others_may_write_is_a_problem_and_stays(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.chmod(0o777)
    problem = backtestr_engine._problem_of(cache)
    assert problem is not None
    assert f"chmod -R go-w '{cache}'" in problem.message
    assert list(cache.rglob("*.nbi"))
    monkeypatch.setattr(backtestr_engine, "_kernel_cache_problem", problem)
    with pytest.raises(InvalidConfiguration, match="XDG_CACHE_HOME"):
        backtestr_engine.check_kernel_cache()


def test_a_cache_is_closed_to_others_after_numba_has_written_to_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backtestr_engine, "KERNEL_CACHE", cache)
    backtestr_engine.close_kernel_cache()
    assert (cache / "simulation").stat().st_mode & 0o777 == 0o700
    assert (cache / "simulation" / "kernel.nbi").stat().st_mode & 0o777 == 0o600


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


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_all_code_that_is_compiled_is_in_the_sources(file: Path) -> None:
    sources = backtestr_engine.kernel_source_files()
    module = ast.parse(file.read_text("utf-8"))
    origins = imported_files(module, file)
    for kernel in kernels(module):
        assert file in sources, f"{kernel.name} is compiled"
        for name in (one.id for statement in kernel.body for one in ast.walk(statement) if isinstance(one, ast.Name)):
            assert origins.get(name, file) in sources, f"{kernel.name} refers to {name}"
