"""The cache of kernels is where this user can write, and holds nothing that another user could have written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import llvmlite.binding
import pytest

from backtestr_engine import kernel_cache
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.private_files import make_private

VARIABLE = "XDG_CACHE_HOME"
# It prints the folder of the cache, and where numba would keep a kernel: without a cache it keeps none.
PROBE = """\
from backtestr_engine import kernel_cache
from backtestr_engine.metrics.returns import moments
print(kernel_cache.KERNEL_CACHE, moments.stats.cache_path, sep="\\n")
"""


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
    kernel_cache._secure(cache, VARIABLE)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert list(cache.rglob("*.nbi"))


@pytest.mark.parametrize("which", ["simulation", "simulation/kernel.nbi"])
def test_kernels_that_another_user_could_have_written_are_deleted(cache: Path, which: str) -> None:
    """numba unpickles them, which executes what the pickle says."""
    (cache / which).chmod(0o777)
    kernel_cache._secure(cache, VARIABLE)
    assert list(cache.iterdir()) == []


def test_kernels_of_another_user_are_deleted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_cache, "is_trusted", lambda found: False)
    kernel_cache._secure(cache, VARIABLE)
    assert list(cache.iterdir()) == []


def test_a_cache_to_which_others_may_write_is_a_problem_and_stays(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.chmod(0o777)
    monkeypatch.setattr(kernel_cache, "_folder_name", lambda: cache.name)
    monkeypatch.setattr(kernel_cache, "_places", lambda: [(cache.parent, VARIABLE)])
    found, problem = kernel_cache._find_cache()
    assert found is None
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


def found_in(environment: dict[str, str], home: Path) -> tuple[str, str]:
    """Return the folder of the cache, and where numba keeps a kernel, in a process with these variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BACKTESTR_", "XDG_", "NUMBA_"))}
    ended = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**kept, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    folder, kernel = ended.stdout.splitlines()
    return folder, kernel


def test_the_cache_is_in_the_cache_directory_of_the_user(tmp_path: Path) -> None:
    folder, kernel = found_in({"XDG_CACHE_HOME": str(tmp_path)}, tmp_path / "home")
    assert folder.startswith(str(tmp_path / "backtestr" / "kernels"))
    assert kernel.startswith(folder)


@pytest.mark.parametrize("place", ["/proc/nope", "/dev/null"], ids=["missing", "no-directory"])
def test_the_cache_is_below_the_data_directory_where_the_user_has_none(tmp_path: Path, place: str) -> None:
    """So it is in a container that runs as a user without a home, and with a read-only installation."""
    folder, kernel = found_in({"XDG_CACHE_HOME": place, "BACKTESTR_DATA_DIR": str(tmp_path)}, Path(place))
    assert folder.startswith(str(tmp_path / "kernels"))
    assert kernel.startswith(folder)


def test_kernels_are_not_kept_where_nothing_can_be_written() -> None:
    assert found_in({"XDG_CACHE_HOME": "/proc/a", "BACKTESTR_DATA_DIR": "/proc/b"}, Path("/proc/c")) == ("None", "None")


def test_a_cache_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image of a container may have been warmed up by root, and run by another user."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    monkeypatch.setattr(kernel_cache, "_folder_name", lambda: "0123")
    monkeypatch.setattr(kernel_cache, "_places", lambda: [(theirs, VARIABLE), (ours, "BACKTESTR_DATA_DIR")])
    make_private(theirs / "0123")
    theirs_as_root = (theirs / "0123").stat().st_ino
    monkeypatch.setattr(kernel_cache, "is_of_this_user", lambda found: found.st_ino != theirs_as_root)
    assert kernel_cache._find_cache() == (ours / "0123", None)


def test_the_folder_changes_with_what_kernels_are_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {kernel_cache._folder_name()}
    with monkeypatch.context() as patch:
        patch.setattr(kernel_cache, "version", lambda package: "0.0")
        names.add(kernel_cache._folder_name())
    with monkeypatch.context() as patch:
        patch.setattr(llvmlite.binding, "get_host_cpu_name", lambda: "another")
        names.add(kernel_cache._folder_name())
    with monkeypatch.context() as patch:
        patch.setattr(kernel_cache, "kernel_source_files", list)
        names.add(kernel_cache._folder_name())
    assert len(names) == 4
