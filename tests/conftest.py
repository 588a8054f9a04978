"""Settings of every test: Hypothesis does not time examples, since a busy machine is no defect.

Tests run in pure Python, also those parts that other processes execute, unless `BACKTESTR_PURE=0` asks for the compiled
modules, as the Makefile does for those of the whole. Then a test of what is not compiled would say nothing, so without
them no test runs.

What pytest has collected stays to the end: the collector looks at it no more, and rarely at the rest, which takes a
twelfth of the processor time.
"""

from __future__ import annotations

import gc
import os

# Before any of our modules is imported.
os.environ.setdefault("BACKTESTR_PURE", "1")

import pytest
from hypothesis import settings

settings.register_profile("backtestr", deadline=None)
settings.load_profile("backtestr")


def pytest_configure() -> None:
    from backtestr_protocol.compiled_modules import BUILD

    if os.environ["BACKTESTR_PURE"] == "0" and BUILD.reason is not None:
        raise pytest.UsageError(f"BACKTESTR_PURE=0 asks for compiled modules, and this is {BUILD}")


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
