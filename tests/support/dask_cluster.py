"""A real Dask scheduler with worker processes on loopback, started and ended by the test that uses it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from support.harness import wait_until

START_SECONDS = 60.0


class DaskCluster:
    """The scheduler and the workers of one test. Nothing of it outlives `stop`."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.environment = {**environment, "DASK_DISTRIBUTED__WORKER__DAEMON": "False", "POLARS_MAX_THREADS": "1"}
        self.address = ""
        self._scheduler: subprocess.Popen[bytes] | None = None
        self._workers: list[subprocess.Popen[bytes]] = []
        self._numbered = 0

    def start_scheduler(self, port: int = 0) -> str:
        """Start a scheduler, and return its address once it serves."""
        told = self.home / f"scheduler-{port}-{self._numbered}.json"
        self._numbered += 1
        self._scheduler = self._run(
            "scheduler",
            ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--scheduler-file", str(told)],
        )
        wait_until(lambda: _is_whole(told), START_SECONDS)
        self.address = str(json.loads(told.read_text("utf-8"))["address"])
        return self.address

    def start_worker(
        self, *, nanny: bool = True, preload: str | None = None, name: str = ""
    ) -> subprocess.Popen[bytes]:
        """Start a worker process, which a nanny starts again when it ends. It may not have registered yet."""
        self._numbered += 1
        arguments = [
            self.address,
            *("--nthreads", "1", "--nworkers", "1", "--memory-limit", "0", "--no-dashboard", "--host", "127.0.0.1"),
            *("--local-directory", str(self.home), "--name", name or f"w{self._numbered}"),
            "--nanny" if nanny else "--no-nanny",
        ]
        if preload is not None:
            file = self.home / f"preload-{self._numbered}.py"
            file.write_text(preload, "utf-8")
            arguments += ["--preload", str(file)]
        worker = self._run("worker", arguments)
        self._workers.append(worker)
        return worker

    def stop_scheduler(self) -> None:
        """Kill the scheduler, as a crash of its machine would."""
        assert self._scheduler is not None
        self._scheduler.kill()
        self._scheduler.wait()

    def stop_workers(self) -> None:
        for worker in self._workers:
            _end(worker)
        self._workers.clear()

    def stop(self) -> None:
        """End everything."""
        self.stop_workers()
        if self._scheduler is not None:
            _end(self._scheduler)

    @property
    def scheduler_pid(self) -> int:
        assert self._scheduler is not None
        return self._scheduler.pid

    @property
    def worker_pids(self) -> list[int]:
        """The processes that were started as workers: nannies, or those that compute."""
        return [worker.pid for worker in self._workers]

    @property
    def log(self) -> str:
        return "".join(path.read_text("utf-8", "replace") for path in sorted(self.home.glob("*.log")))

    def _run(self, kind: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments]
        with (self.home / f"{kind}-{self._numbered}.log").open("ab") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.home)


def _is_whole(told: Path) -> bool:
    try:
        return "address" in json.loads(told.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with its children."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for one in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(family, timeout=10)
