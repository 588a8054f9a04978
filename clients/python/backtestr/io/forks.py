"""A forked child inherits the objects of a client and not its I/O thread, so a wait for that would never end."""

from __future__ import annotations

import os


def is_forked(owner: int) -> bool:
    """Return True in a forked child of the process `owner`."""
    return os.getpid() != owner


def check_process(owner: int) -> None:
    """Raise `RuntimeError` in a forked child of the process `owner`."""
    if is_forked(owner):
        raise RuntimeError(
            f"this client belongs to process {owner}, which was forked; connect in this process ({os.getpid()}) as "
            "well: backtestr.connect()"
        )
