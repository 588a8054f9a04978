"""Remove the checkpoints of backtests that have ended or are unknown.

A worker removes that of a backtest that it ends. What is left is of one that ended without a worker, or of an earlier
broker. A file that was written after the survey was ordered may be of a backtest that the order does not name.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path

from backtestr_protocol.file_names import name_of

_log = logging.getLogger(__name__)


def remove_checkpoints(folder: Path, unended: Collection[str], wall_ms: int) -> None:
    """Remove the files in `folder` that were last written before `wall_ms`, but not those of `unended` backtests."""
    kept = frozenset(unended)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if name_of(entry.name) not in kept and entry.stat(follow_symlinks=False).st_mtime_ns < wall_ms * 10**6:
                    os.unlink(entry.path)
    except FileNotFoundError:  # there is none yet, or its worker has just removed it
        return
    except OSError as error:
        _log.warning("a checkpoint could not be removed, which is tried again: %s", error)
