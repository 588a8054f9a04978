"""Compiled kernels are kept on disk, in a folder that is named after all that they are made from.

The folder is in the user's cache directory; where nothing can be written there, it is below the data directory. Where
that cannot be written either, kernels are compiled anew in each process.

numba's cache on disk detects a change of the file that contains a kernel, but not of the files whose functions the
kernel calls. It would use a kernel that was compiled from an old `protective_exits.py`. So the folder is named after a
hash of all of them, and of the compiler and the processor.

Kernels on disk are code, and numba unpickles them: nobody but this user may have written them.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import tempfile
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import llvmlite.binding
from numba.core import config as numba_config

from backtestr_protocol import paths
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.private_files import is_of_this_user, is_trusted, make_private, private_directory

# The files and folders that contain kernels, and the functions, constants and types that kernels refer to.
KERNEL_SOURCES = (
    "algorithms/signals.py",
    "backtest/order_links.py",
    "bit_masks.py",
    "compiled.py",
    "data/arrays.py",
    "metrics",
    "publishing/record_encoding.py",
    "research/monte_carlo.py",
    "research/sweep_kernels.py",
    "simulation",
    "vectors.py",
)


def kernel_source_files() -> list[Path]:
    """Return the files from which kernels are compiled, sorted."""
    sources = [Path(__file__).parent / name for name in KERNEL_SOURCES]
    return sorted(file for source in sources for file in (source.rglob("*.py") if source.is_dir() else (source,)))


# The file that says that every kernel of the warm-up is in the cache.
_COMPLETE = "complete"


def _folder_name() -> str:
    """Return a name that changes with everything that a compiled kernel depends on."""
    content = sha256(str(Path(__file__).parent).encode())  # numba keeps the kernels of each installation apart
    for file in kernel_source_files():
        content.update(file.read_bytes())
    processor = f"{llvmlite.binding.get_host_cpu_name()} {llvmlite.binding.get_host_cpu_features().flatten()}"
    compilers = [sys.implementation.cache_tag or "", *map(version, ("numpy", "numba", "llvmlite"))]
    content.update(" ".join([*compilers, processor]).encode())
    return content.hexdigest()[:16]


def _places() -> list[tuple[Path, str]]:
    """Return the folders that a cache may be in, the first choice first, each with the variable that moves it."""
    places = []
    if (of_user := paths.cache_dir()) is not None:
        places.append((of_user / "kernels", "XDG_CACHE_HOME"))
    with contextlib.suppress(InvalidConfiguration):  # who needs the data directory says that there is none
        places.append((paths.data_dir() / "kernels", "BACKTESTR_DATA_DIR"))
    return places


def _is_usable(cache: Path) -> bool:
    """Create the folder of a cache; return False if this user cannot, or cannot write to it."""
    try:
        make_private(cache)
        if not is_of_this_user(cache.stat()):  # an image's, for instance: root has warmed up, and another user runs
            return False
        tempfile.TemporaryFile(dir=cache).close()
    except OSError:
        return False
    return True


def _secure(cache: Path, variable: str) -> None:
    """Make a cache private. Raises `InvalidConfiguration`, with the reason for which it must not be used.

    A cache that holds files of others, or files that others may write, is emptied: kernels can be compiled again.
    """
    private_directory(cache, variable)
    try:
        if not all(map(_is_own, cache.rglob("*"))):
            logging.getLogger(__name__).warning("%s held files that others could write, and is emptied", cache)
            shutil.rmtree(cache)
            private_directory(cache, variable)
    except OSError as error:
        raise InvalidConfiguration(
            f"the cache of kernels {cache} cannot be read: {error.strerror}; remove it"
        ) from error


def _is_own(path: Path) -> bool:
    try:
        return is_trusted(path.lstat())
    except FileNotFoundError:  # another process has just given a file its name
        return True


def _find_cache() -> tuple[Path | None, InvalidConfiguration | None]:
    """Return the folder of the cache, or None and, where it exists and is unsafe, the reason."""
    name = _folder_name()
    for place, variable in _places():
        cache = place / name
        if _is_usable(cache):
            try:
                _secure(cache, variable)
            except InvalidConfiguration as error:
                return None, error
            return cache, None
    return None, None


KERNEL_CACHE, _kernel_cache_problem = _find_cache()
"""The folder in which kernels are kept; None where no folder can be written to."""

# `compiled` keeps kernels on disk if this is set. A folder that the user has named for numba is second best to ours.
if KERNEL_CACHE is not None:
    numba_config.CACHE_DIR = str(KERNEL_CACHE)  # type: ignore[attr-defined]  # numba makes its options at run time


def kernels_version() -> str:
    """Return a text that changes with everything that a compiled kernel depends on."""
    return _folder_name() if KERNEL_CACHE is None else KERNEL_CACHE.name


def check_kernel_cache() -> None:
    """Raise `InvalidConfiguration` if the cache of kernels is unsafe; then no kernel must be run."""
    if _kernel_cache_problem is not None:
        raise _kernel_cache_problem


def is_complete() -> bool:
    """Return True if all kernels of the warm-up are on disk, so that it loads them within a second."""
    return KERNEL_CACHE is not None and (KERNEL_CACHE / _COMPLETE).exists()


def close_kernel_cache() -> None:
    """Note that the cache is complete, and take the rights of others from its files: numba writes with the umask."""
    if KERNEL_CACHE is None:
        return
    with contextlib.suppress(OSError):  # the disk is full: the next start says that it compiles, and does not
        (KERNEL_CACHE / _COMPLETE).touch(0o600)
    for one in KERNEL_CACHE.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process has just given a file its name
            one.chmod(0o700 if one.is_dir() else 0o600)
