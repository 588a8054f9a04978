"""This program warms a compute worker's task runner up, and prints what its first backtest imports and compiles.

A test runs it in a process of its own, in which nothing was imported before.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import zmq
from numba.core import event

from backtestr_engine import __main__ as worker_program
from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.config import load_config
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import write_synthetic
from backtestr_engine.worker.task_runner import TaskRunner
from backtestr_engine.worker.warm_up import warm
from backtestr_protocol.zmq_frames import send
from support.engine.batches import batcher
from support.engine.tasks import Clock, assign, config, run_out

LARGE = 200_000


class Compiled(event.Listener):
    """Prints the functions that numba compiles."""

    def on_start(self, event: Any) -> None:
        """Print it."""
        print("compiled", event.data["dispatcher"])

    def on_end(self, event: Any) -> None:
        """Do nothing: it was printed when it began."""


def main() -> None:
    """Run one backtest, whose messages are sent, and read its result."""
    assert worker_program.__doc__, "it imports what a worker imports"
    conventions = load_config(None).conventions
    with (
        tempfile.TemporaryDirectory() as folder,
        zmq.Context() as context,
        context.socket(zmq.PAIR) as worker,
        context.socket(zmq.PAIR) as broker,
    ):
        worker.bind("inproc://engine")
        broker.connect("inproc://engine")
        catalog, store = Catalog(Path(folder) / "catalog", cache_bytes=1 << 28), ResultStore(Path(folder) / "results")
        write_synthetic(catalog)
        runner = TaskRunner(catalog, store, conventions, 1000, lambda: 1_700_000_000_000, batcher())
        warm(conventions)
        before = set(sys.modules)
        with event.install_listener("numba:compile", Compiled()):
            asked = config(options={"streams": {"prices": True}})
            assign(runner, asked)
            for _, frames in run_out(runner, Clock()):
                send(worker, [*frames, bytes(LARGE)])
                broker.recv_multipart()
        for name in sorted(set(sys.modules) - before):
            print("imported", name)
        assert store.read(asked.backtest_id or "")[0].status == "completed"


if __name__ == "__main__":
    main()
