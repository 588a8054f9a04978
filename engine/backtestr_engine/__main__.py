"""`python -m backtestr_engine` runs one worker, which the broker starts and whose settings it writes to standard input.

`python -m backtestr_engine --warm` compiles the kernels into the cache and ends, so that the first start is quick.
`--check FILE` checks the algorithms of a file for look-ahead, and `--indicators` lists the indicators. Both print JSON
(`backtestr_protocol.inspection`); the output of the file itself goes to standard error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

# Set before polars is imported: there are several workers, and more threads of each would only compete.
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import msgspec
import zmq

from backtestr_engine.library.inspection import SEED, check_file, list_indicators
from backtestr_engine.worker.log import start_logging
from backtestr_engine.worker.resources import (
    adopt_orphans,
    end_with_parent,
    keep_freed_memory,
    limit_memory,
    limit_processor,
)
from backtestr_engine.worker.threads import run_worker
from backtestr_engine.worker.time_limit import time_limit
from backtestr_engine.worker.warm_up import warm
from backtestr_protocol import paths
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.worker_channel import EXIT_REFUSED, EXIT_REPLACED, WorkerSettings

from .config import load_config

_USAGE = "a worker is started by its broker: python -m backtestr_broker (or python -m backtestr_engine --warm)"
_LIFELINE = 0

# The seconds that a check waits for code that it has interrupted.
_PATIENCE = 2.0


def main() -> int:
    """Run the program, and return its exit code."""
    if sys.argv[1:] == ["--warm"]:
        began = time.monotonic()
        warm(load_config(None).conventions)
        print(f"kernels ready in {time.monotonic() - began:.1f} s")
        return 0
    if sys.argv[1:] == ["--indicators"]:
        return _print(list_indicators())
    if len(sys.argv) == 3 and sys.argv[1] == "--check":
        return _check(Path(sys.argv[2]))
    if sys.argv[1:] or sys.stdin.isatty():
        print(_USAGE, file=sys.stderr)
        return 2
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the broker ends its workers
    end_with_parent()  # if the broker has ended already, the lifeline says so
    adopt_orphans()
    keep_freed_memory()
    try:
        settings = msgspec.json.decode(_first_line(), type=WorkerSettings)
        config = load_config(paths.config_dir())
    except msgspec.DecodeError:
        print(_USAGE, file=sys.stderr)
        return EXIT_REFUSED
    except InvalidConfiguration as error:
        print(f"backtestr: {error}", file=sys.stderr)
        return EXIT_REFUSED
    start_logging(settings.log_level, settings.log_format)
    sys.excepthook = _log_crash
    threading.excepthook = lambda crash: _log_crash(crash.exc_type, crash.exc_value, crash.exc_traceback)
    limit_memory(config.worker.memory_limit_bytes)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    leaving = run_worker(context, settings, _LIFELINE, config, paths.data_dir(), limit_processor)
    context.term()
    sys.stderr.flush()
    # A compute thread in the middle of a long calculation must not keep the process.
    os._exit(0 if leaving is None else EXIT_REPLACED)


def _log_crash(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    """Log a crash as a line in the format of the log."""
    logging.getLogger(__name__).critical("crashed", exc_info=(kind, error or kind(), traceback))


def _check(path: Path) -> int:
    try:
        seconds = load_config(paths.config_dir()).algorithms.load_time_limit_ms / 1000
    except InvalidConfiguration as error:
        print(f"backtestr: {error}", file=sys.stderr)
        return 2
    with contextlib.redirect_stdout(sys.stderr):
        checked = check_file(path, SEED, time_limit(seconds, _PATIENCE))
    return _print(checked)


def _print(answer: msgspec.Struct) -> int:
    print(msgspec.json.encode(answer).decode())
    return 0


def _first_line() -> bytes:
    """Read the first line of the lifeline without buffering, so that its end-of-file stays readable."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(_LIFELINE, 1)):
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(main())
