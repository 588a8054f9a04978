"""The cache of kernels is private, and holds nothing that another user could have written."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtestr_engine import kernel_cache
from backtestr_protocol.errors import InvalidConfiguration


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
    assert kernel_cache._problem_of(cache) is None
    assert cache.stat().st_mode & 0o777 == 0o700
    assert list(cache.rglob("*.nbi"))


@pytest.mark.parametrize("which", ["simulation", "simulation/kernel.nbi"])
def test_kernels_that_another_user_could_have_written_are_deleted(cache: Path, which: str) -> None:
    """numba unpickles them, which executes what the pickle says."""
    (cache / which).chmod(0o777)
    assert kernel_cache._problem_of(cache) is None
    assert list(cache.iterdir()) == []


def test_kernels_of_another_user_are_deleted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_cache, "is_trusted", lambda found: False)
    assert kernel_cache._problem_of(cache) is None
    assert list(cache.iterdir()) == []


def test_a_cache_to_which_others_may_write_is_a_problem_and_stays(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.chmod(0o777)
    problem = kernel_cache._problem_of(cache)
    assert problem is not None
    assert f"chmod -R go-w '{cache}'" in problem.message
    assert list(cache.rglob("*.nbi"))
    monkeypatch.setattr(kernel_cache, "_kernel_cache_problem", problem)
    with pytest.raises(InvalidConfiguration, match="XDG_CACHE_HOME"):
        kernel_cache.check_kernel_cache()


def test_a_cache_is_closed_to_others_after_numba_has_written_to_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_cache, "KERNEL_CACHE", cache)
    kernel_cache.close_kernel_cache()
    assert (cache / "simulation").stat().st_mode & 0o777 == 0o700
    assert (cache / "simulation" / "kernel.nbi").stat().st_mode & 0o777 == 0o600
