"""`python -m backtestr_engine` runs one worker, which the broker starts and whose settings it writes to standard input.

`python -m backtestr_engine --warm` compiles the kernels into the cache and ends, so that the first start is quick.
`--check FILE` checks the algorithms of a file for look-ahead, and `--indicators` lists the indicators. Both print JSON
(`backtestr_protocol.inspection`); the output of the file itself goes to standard error.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

# As in the package's own file, for what is imported here: polars above all.
gc.disable()

# Set before polars is imported: there are several workers, and more threads of each would only compete.
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import msgspec
import zmq

from backtestr_protocol.system.hidden_modules import hidden

# As in the broker's program: the log has no use for it.
with hidden("rich"):
    import structlog as structlog

from backtestr_engine.kernel_cache import check_kernel_cache
from backtestr_engine.library.inspection import SEED, check_file, list_indicators
from backtestr_engine.worker.lifeline import standard_input_line, take_standard_input
from backtestr_engine.worker.log import log_crash, start_logging
from backtestr_engine.worker.resources import keep_freed_memory, limit_memory, limit_processor
from backtestr_engine.worker.threads import run_worker
from backtestr_engine.worker.time_limit import time_limit
from backtestr_engine.worker.warm_up import warm
from backtestr_protocol import paths
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.system.process_ends import adopt_orphans, end_children, end_with_parent
from backtestr_protocol.worker_channel import EXIT_REFUSED, EXIT_REPLACED, decode_settings

from .config import load_config

gc.enable()

_USAGE = "a worker is started by its broker: python -m backtestr_broker (or python -m backtestr_engine --warm)"

_log = logging.getLogger("backtestr_engine")

# The seconds that a check waits for code that it has interrupted.
_PATIENCE = 2.0


def main() -> int:
    """Run the program, and return its exit code."""
    os.umask(0o077)  # no other user reads what a worker writes, whichever library writes it
    try:
        check_kernel_cache()
    except InvalidConfiguration as error:
        print(f"backtestr: {error}", file=sys.stderr)
        return EXIT_REFUSED
    if sys.argv[1:] == ["--warm"]:
        began = time.monotonic()
        warm(load_config(None).conventions, partial(print, flush=True))
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
        settings = decode_settings(standard_input_line())
        config = load_config(paths.config_dir())
    except msgspec.DecodeError:
        print(_USAGE, file=sys.stderr)
        return EXIT_REFUSED
    except InvalidConfiguration as error:
        print(f"backtestr: {error}", file=sys.stderr)
        return EXIT_REFUSED
    log, prints = start_logging(settings, config.worker.print_bytes)
    if not limit_memory(config.worker.memory_limit_bytes) and settings.kind == "interactive":  # said once, by one kind
        _log.warning("this system cannot limit memory: worker.memory_limit_bytes of engine.toml has no effect here")
    code = 0
    try:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        leaving = run_worker(
            context, settings, take_standard_input(), config, paths.data_dir(), limit_processor, prints
        )
        context.term()
        code = 0 if leaving is None else EXIT_REPLACED
    except BaseException as error:  # whatever code of an algorithm may do to this thread, the log says it
        log_crash(type(error), error, error.__traceback__)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    log.close()
    end_children()
    os._exit(code)  # a compute thread in the middle of a long calculation must not keep the process


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


if __name__ == "__main__":
    sys.exit(main())
