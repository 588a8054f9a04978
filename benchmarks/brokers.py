"""A broker process with directories of its own, for the length of a benchmark."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

START_SECONDS = 120.0


class Running(NamedTuple):
    pid: int
    connection_file: Path
    data_dir: Path


@contextlib.contextmanager
def running_broker(home: Path | None = None) -> Iterator[Running]:
    """A broker whose data are in `home / "data"`; without `home`, in a directory that goes with it."""
    with tempfile.TemporaryDirectory(prefix="bt-") as folder:
        runtime_dir, data_dir = Path(folder) / "run", (home or Path(folder)) / "data"
        environment = {
            **os.environ,
            "BACKTESTR_RUNTIME_DIR": str(runtime_dir),
            "BACKTESTR_DATA_DIR": str(data_dir),
        }
        environment.pop("BACKTESTR_CONNECTION_FILE", None)
        process = subprocess.Popen(
            [sys.executable, "-m", "backtestr_broker"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            connection_file = runtime_dir / "connection.json"
            deadline = time.monotonic() + START_SECONDS
            while not connection_file.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the broker did not start; try make run-broker to see why")
                time.sleep(0.02)
            yield Running(process.pid, connection_file, data_dir)
        finally:
            process.terminate()
            process.wait()
