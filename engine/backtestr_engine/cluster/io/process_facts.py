"""Read the facts of this process that the bits of its results depend on."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import llvmlite.binding
from numba.core import config as numba_config

import backtestr_engine
from backtestr_engine.cluster.fingerprint import FEATURES, arithmetic_features

# Whose versions decide on results, or on the bytes of rows.
_PACKAGES = ("backtestr", "numpy", "numba", "llvmlite", "TA-Lib", "polars")
# Variables that change what is compiled, or which of its functions numpy takes.
_VARIABLES = ("NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES", "NUMBA_OPT", "NUMBA_FASTMATH")


@cache
def process_facts() -> dict[str, str]:
    """Return the facts by name. They do not change while the process lives."""
    facts = {name: _version(name) for name in _PACKAGES}
    facts["engine code"] = _hash_of_code()
    facts["python"] = f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}"
    facts["system"] = f"{sysconfig.get_platform()} {' '.join(platform.libc_ver())}".strip()
    named = str(getattr(numba_config, "CPU_NAME", None) or "host")
    facts["compiled for"] = f"{named} {getattr(numba_config, 'CPU_FEATURES', None) or ''}".strip()
    facts["compiled"] = "no" if getattr(numba_config, "DISABLE_JIT", False) else "yes"
    facts[FEATURES] = arithmetic_features(dict(llvmlite.binding.get_host_cpu_features()))
    facts["variables"] = " ".join(f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ) or "none"
    return facts


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _hash_of_code() -> str:
    """Return a hash of all files of the engine: kernels, and the code around them."""
    root = Path(backtestr_engine.__file__).parent
    content = sha256()
    for path in sorted(root.rglob("*.py")):
        content.update(path.relative_to(root).as_posix().encode())
        content.update(path.read_bytes())
    return content.hexdigest()[:16]
