"""Compiled kernels never outlive the code that they were compiled from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import backtestr_engine
from backtestr_engine.simulation import symbol_loop


def test_kernels_are_cached_under_the_content_of_the_package() -> None:
    kernel: Any = symbol_loop._simulate
    assert backtestr_engine.KERNEL_CACHE.parent.name == "kernels"
    assert str(backtestr_engine.KERNEL_CACHE) in str(kernel.stats.cache_path)
    assert not list(Path(backtestr_engine.__file__).parent.rglob("*.nbi"))
