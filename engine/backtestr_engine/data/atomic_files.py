"""Files that are written whole or not at all: after a crash, a reader finds the old content or the new one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import psutil

from backtestr_protocol.private_files import private_opener
from backtestr_protocol.system.durable_files import replace, sync_folder


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` when the block ends, and is removed when the block raises.

    No other user can read it. A half-written file of a killed process is never read; the next process that writes to
    `path` removes it.
    """
    for left in path.parent.glob(f".{path.name}.*.partial"):
        if not psutil.pid_exists(int(left.suffixes[-2].removeprefix(".").partition("-")[0])):
            left.unlink(missing_ok=True)
    # Two threads of one process may write the same file: workers of an embedded broker that ends, and of the next one.
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with open(partial, "w+b", opener=private_opener) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        replace(partial, path)
    except BaseException:  # whatever is raised, no half-written file stays
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
