"""Flags of `os.open`, as far as this system has them; Python itself keeps every descriptor from child processes."""

from __future__ import annotations

import os

BINARY: int = getattr(os, "O_BINARY", 0)
"""Windows would change the ends of lines otherwise."""

WITHOUT_WAITING: int = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | BINARY
"""A pipe without a writer is opened at once, and a terminal does not become this process's own."""

FOLDER: int = getattr(os, "O_DIRECTORY", 0)
"""Only a folder is opened."""

NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)
"""A link is refused, not followed."""
