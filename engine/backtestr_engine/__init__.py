"""The engine: bars, algorithms, fills, metrics and results, and the worker that runs them for a broker.

numba's cache on disk notices a change of the file that a kernel is in, but not of the files whose functions it calls:
a kernel compiled from yesterday's `exits.py` would run on. So compiled kernels live in a folder of the user's cache
that is named after the content of every file of this package.
"""

from hashlib import sha256
from pathlib import Path

import platformdirs
from numba.core import config as numba_config


def _kernel_cache() -> Path:
    content = sha256()
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        content.update(source.read_bytes())
    return Path(platformdirs.user_cache_dir("backtestr")) / "kernels" / content.hexdigest()[:16]


KERNEL_CACHE = _kernel_cache()
numba_config.CACHE_DIR = str(KERNEL_CACHE)  # type: ignore[attr-defined]  # numba makes its options at run time
