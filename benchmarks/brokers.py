"""This module runs a broker process with directories of its own for the length of a benchmark."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

START_SECONDS = 120.0
WORKERS = "\n[workers]\ncompute = {}\nspare = {}\n"


class Running(NamedTuple):
    pid: int
    connection_file: Path
    data_dir: Path
    runtime_dir: Path
    log: Path


@contextlib.contextmanager
def running_broker(
    home: Path | None = None,
    config: str = "",
    program: Sequence[str] = ("-m", "backtestr_broker"),
    workers: int = 0,
    spares: int = 0,
) -> Iterator[Running]:
    """Run a broker whose data are in `home / "data"`, or without `home` in a temporary directory.

    `config` is the text of its `broker.toml`; it has no spare worker unless asked, as its start disturbs others.
    `program` has the arguments of Python, by default those of the broker; 0 `workers` are as many as it starts itself.
    """
    with tempfile.TemporaryDirectory(prefix="bt-") as folder:
        runtime_dir, data_dir = Path(folder) / "run", (home or Path(folder)) / "data"
        own_config, log = Path(folder) / "config", Path(folder) / "log"
        own_config.mkdir()
        (own_config / "broker.toml").write_text(config + WORKERS.format(workers, spares), "utf-8")
        environment = {
            **os.environ,
            "BACKTESTR_RUNTIME_DIR": str(runtime_dir),
            "BACKTESTR_DATA_DIR": str(data_dir),
            "BACKTESTR_CONFIG_DIR": str(own_config),
        }
        environment.pop("BACKTESTR_CONNECTION_FILE", None)
        with log.open("wb") as opened:
            process = subprocess.Popen(
                [sys.executable, *program],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=opened,
            )
        try:
            connection_file = runtime_dir / "connection.json"
            deadline = time.monotonic() + START_SECONDS
            while not connection_file.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the broker did not start; try make run-broker to see why")
                time.sleep(0.02)
            yield Running(process.pid, connection_file, data_dir, runtime_dir, log)
        finally:
            process.terminate()
            process.wait()
