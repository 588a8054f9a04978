"""Compiled kernels are kept in the user's cache, in a folder that is named after the files from which they are made.

numba's cache on disk detects a change of the file that contains a kernel, but not of the files whose functions the
kernel calls. It would use a kernel that was compiled from an old `protective_exits.py`. So the folder is named after a
hash of all of them.

Kernels on disk are code, and numba unpickles them: nobody but this user may have written them.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from hashlib import sha256
from pathlib import Path

import platformdirs
from numba.core import config as numba_config

from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.private_files import is_trusted, private_directory

# The files and folders that contain kernels, and the functions, constants and types that kernels refer to.
KERNEL_SOURCES = (
    "algorithms/signals.py",
    "data/arrays.py",
    "metrics",
    "publishing/record_encoding.py",
    "research/monte_carlo.py",
    "simulation",
)


def kernel_source_files() -> list[Path]:
    """Return the files from which kernels are compiled, sorted."""
    sources = [Path(__file__).parent / name for name in KERNEL_SOURCES]
    return sorted(file for source in sources for file in (source.rglob("*.py") if source.is_dir() else (source,)))


def _kernel_cache() -> Path:
    content = sha256()
    for file in kernel_source_files():
        content.update(file.read_bytes())
    return Path(platformdirs.user_cache_dir("backtestr")) / "kernels" / content.hexdigest()[:16]


def _problem_of(cache: Path) -> InvalidConfiguration | None:
    """Make the cache private and return None, or the reason for which it must not be used.

    A cache that holds files of others, or files that others may write, is emptied: kernels can be compiled again.
    """
    try:
        private_directory(cache, "XDG_CACHE_HOME")
        if not all(map(_is_own, cache.rglob("*"))):
            logging.getLogger(__name__).warning("%s held files that others could write, and is emptied", cache)
            shutil.rmtree(cache)
            private_directory(cache, "XDG_CACHE_HOME")
    except InvalidConfiguration as error:
        return error
    except OSError as error:
        return InvalidConfiguration(f"the cache of kernels {cache} cannot be read: {error.strerror}; remove it")
    return None


def _is_own(path: Path) -> bool:
    try:
        return is_trusted(path.lstat())
    except FileNotFoundError:  # another process has just given a file its name
        return True


KERNEL_CACHE = _kernel_cache()
_kernel_cache_problem = _problem_of(KERNEL_CACHE)
if _kernel_cache_problem is None:
    numba_config.CACHE_DIR = str(KERNEL_CACHE)  # type: ignore[attr-defined]  # numba makes its options at run time


def check_kernel_cache() -> None:
    """Raise `InvalidConfiguration` if the cache of kernels cannot be used; then no kernel must be run."""
    if _kernel_cache_problem is not None:
        raise _kernel_cache_problem


def close_kernel_cache() -> None:
    """Take the rights of others from all files of the cache: numba writes them with the umask of its process."""
    for one in KERNEL_CACHE.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process has just given a file its name
            one.chmod(0o700 if one.is_dir() else 0o600)
