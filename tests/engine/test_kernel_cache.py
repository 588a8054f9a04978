"""Compiled kernels never outlive the code that they were compiled from."""

from __future__ import annotations

from pathlib import Path

from numba.core import config as numba_config

import backtestr_engine
from backtestr_engine.walk import _walk


def test_kernels_are_cached_under_the_content_of_the_package() -> None:
    folder = Path(str(numba_config.CACHE_DIR))
    assert folder.parent.name == "kernels"
    assert str(folder) in str(_walk.stats.cache_path)
    assert not list(Path(backtestr_engine.__file__).parent.rglob("*.nbi"))
