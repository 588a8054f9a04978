"""The exit codes of all commands, as `backtestr --help` lists them."""

from __future__ import annotations

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_NO_BROKER = 3
EXIT_INTERRUPTED = 130
