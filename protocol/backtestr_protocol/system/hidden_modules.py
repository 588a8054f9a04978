"""This module hides a module from an import: some libraries import others for what their user does not need."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hidden(name: str) -> Iterator[None]:
    """Let imports of a module fail within the block as if it were not installed, unless it is imported already.

    Other threads do not find it either, so this is for the start of a process.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python's own sign for a module that cannot be imported
    try:
        yield
    finally:
        del sys.modules[name]
