"""The user whose program has connected to the server, where the system says so."""

from __future__ import annotations

import os
from pathlib import Path

from backtestr.ui.core.connection_table import Address, user_of

_TABLE = Path("/proc/net/tcp")
_ROOT = 0


def is_of_another_user(client: Address | None, server: Address | None) -> bool:
    """Return True if the client's end of a connection belongs to another user than this one and root.

    Only Linux tells, by a file that other systems do not have. A connection that is not found, such as one that has
    ended meanwhile, is not of another user: who has no cookie gets nothing private anyway.
    """
    if not hasattr(os, "getuid") or client is None or server is None:
        return False
    try:
        user = user_of(_TABLE.read_text("ascii"), client, server)
    except (OSError, ValueError):
        return False
    return user not in (None, _ROOT, os.getuid())
