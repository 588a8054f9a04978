"""The engine computes: bars, algorithms, simulation, metrics and results, inside the workers of a broker.

numba's cache on disk detects a change of the file that contains a kernel, but not of the files whose functions the
kernel calls. It would use a kernel that was compiled from an old `protective_exits.py`. So compiled kernels are stored
in a folder of the user's cache that is named after a hash of the files from which they are made.
"""

from hashlib import sha256
from pathlib import Path

import platformdirs
from numba.core import config as numba_config

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


KERNEL_CACHE = _kernel_cache()
numba_config.CACHE_DIR = str(KERNEL_CACHE)  # type: ignore[attr-defined]  # numba makes its options at run time
