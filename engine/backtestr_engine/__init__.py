"""The engine computes: bars, algorithms, simulation, metrics and results, inside the workers of a broker.

numba's cache on disk detects a change of the file that contains a kernel, but not of the files whose functions the
kernel calls. It would use a kernel that was compiled from an old `protective_exits.py`. So compiled kernels are stored
in a folder of the user's cache that is named after a hash of every file of this package.
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
