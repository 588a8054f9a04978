"""`python -m backtestr_broker` serves on this machine until Ctrl-C or SIGTERM.

With `--replay-log FILE` it does not serve: it plays a recording back, and prints JSON (`ReplayedLog` in
`backtestr_protocol.inspection`).

Exit codes: 0 after a requested stop, 1 when the broker cannot start or its workers end as soon as they start, 2 for a
wrong argument or option, or a file that is no recording.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import FrameType

import msgspec
import zmq

from backtestr_protocol.system.hidden_modules import hidden

# structlog imports rich where it is installed, for tracebacks that are not ours: a quarter of what all imports take.
with hidden("rich"):
    import structlog as structlog

from backtestr_broker.core.scheduling.liveness import WELL_AFTER
from backtestr_broker.io.allow_list import AllowList
from backtestr_broker.io.descriptors import raise_descriptor_limit
from backtestr_broker.io.freed_memory import FreedMemory
from backtestr_broker.io.log import start_logging
from backtestr_broker.io.process_family import ProcessFamily
from backtestr_broker.io.runtime_directory import AlreadyRunning, RuntimeDirectory
from backtestr_broker.io.supervisor import DELAYS, launch_process
from backtestr_broker.recording.format import Unreadable
from backtestr_broker.recording.parts import parts_of
from backtestr_broker.recording.replay_log import replayed_log
from backtestr_broker.recording.timeline import SUBJECT_KINDS
from backtestr_protocol import __version__, paths
from backtestr_protocol.build import BUILD
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.keys import KeyFolder
from backtestr_protocol.log_writer import LogWriter, open_standard_descriptors, text_stream
from backtestr_protocol.messages import TICK, SeriesInfo
from backtestr_protocol.private_files import private_directory
from backtestr_protocol.system import process_ends
from backtestr_protocol.system.process_limits import leave_no_image
from backtestr_protocol.system.unix_sockets import has_unix_sockets

from .broker import Broker
from .config import BrokerConfig, TransportOptions, load_config

_WELCOME = """\
backtestr {version} is serving. Ctrl-C stops it.

  connection file   {connection_file}
  data directory    {data_dir}
  data              {series}
{keys}
In a second terminal:
  {app}the app, in a browser
  {backtestr} data                                       what there is to test on
  {backtestr} backtest sma_cross SYNTH --timeframe 1m    a first backtest
  {backtestr} import FILE.csv --symbol NAME              your own bars
  {backtestr} --help                                     everything else
In Python:
  import backtestr; client = backtestr.connect()
"""

# Characters from the command's name to what is said of it.
_WIDTH = 44

_SHOWN_SERIES = 6
# The seconds that welcome and farewell wait for a reader, so that they stand in the right place among the log's lines.
_WELCOME_SECONDS = 0.2
_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2
_LOOPBACK = "127.0.0.1"

_log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m backtestr_broker",
        description="Serve backtests on this machine until Ctrl-C or SIGTERM.",
        epilog="BACKTESTR_RUNTIME_DIR, BACKTESTR_DATA_DIR and BACKTESTR_CONFIG_DIR say where sockets, data and options "
        "are; config/broker.toml and config/engine.toml explain every option.",
    )
    # Not argparse's own action, which breaks the line at the width of the terminal.
    parser.add_argument("--version", action="store_true", help="show the version and what is compiled, and exit")
    parser.add_argument("--replay-log", type=Path, metavar="FILE", help="play a recording back, and print JSON")
    about = parser.add_mutually_exclusive_group()
    for kind in SUBJECT_KINDS:
        about.add_argument(f"--{kind}", metavar="ID", help=f"with --replay-log: the timeline of this {kind}")
    about.add_argument("--all", action="store_true", help="with --replay-log: the timeline of everything")
    given = parser.parse_args(arguments)
    if given.version:
        print(f"backtestr {__version__} ({BUILD})")
        return 0
    if given.replay_log is not None:
        return _replay(given)
    if given.all or any(getattr(given, kind) is not None for kind in SUBJECT_KINDS):
        parser.error("a timeline is of a recording: name one with --replay-log")
    os.umask(0o077)  # no other user reads what the broker writes, whichever library writes it
    try:
        config = load_config(paths.config_dir())
    except (InvalidConfiguration, OSError) as error:
        print(f"backtestr: {error}", file=sys.stderr)
        return 2
    leave_no_image()
    open_standard_descriptors()
    log = start_logging(config.log)
    output = LogWriter(_STANDARD_OUTPUT, lambda _count: "")
    # Whatever writes on these from now on, such as a library's warning, does not wait for a reader either.
    sys.stdout = text_stream(output.write_bytes, _STANDARD_OUTPUT)
    sys.stderr = text_stream(log.write_bytes, _STANDARD_ERROR)
    try:
        return _run(config, output, log)
    except KeyboardInterrupt:  # while serving, Ctrl-C is a request to stop
        print("backtestr: interrupted before it served", file=sys.stderr)
        return 1
    except Exception:  # of whatever kind: the last words belong in the log, without values of variables
        _log.critical("crashed", exc_info=True)
        return 1
    finally:
        output.close()
        log.close()


def _run(config: BrokerConfig, output: LogWriter, log: LogWriter) -> int:
    """Take the runtime directory and serve; return the exit code."""
    try:
        directory = RuntimeDirectory(paths.runtime_dir(), paths.connection_file())
        directory.acquire()
    except (AlreadyRunning, InvalidConfiguration) as error:
        print(f"backtestr: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # the directory is there, and something in it cannot be made
        place = f"the runtime directory cannot be used: {error.strerror}: {error.filename}"
        print(f"backtestr: {place}; name another in BACKTESTR_RUNTIME_DIR", file=sys.stderr)
        return 1
    try:
        return _serve(config, directory, output, log)
    except (InvalidConfiguration, zmq.ZMQError) as error:
        print(f"backtestr: {error}", file=sys.stderr)
        return 1
    finally:
        directory.release()


def _replay(given: argparse.Namespace) -> int:
    named = [(kind, name) for kind in SUBJECT_KINDS if (name := getattr(given, kind)) is not None]
    try:
        log = replayed_log(parts_of(given.replay_log), named[0] if named else None, everything=given.all)
    except (Unreadable, OSError) as error:
        print(f"backtestr: {error}", file=sys.stderr)
        return 2
    print(msgspec.json.encode(log).decode())
    return 0


class _Stop:
    """Takes the signals that end the broker, whichever of its starts is running."""

    def __init__(self) -> None:
        self.requested = False
        self.broker: Broker | None = None
        for number in process_ends.END_SIGNALS:
            signal.signal(number, self._stop)
        # Called in a thread when a worker has ended, where no signal says so.
        self.on_end = None if process_ends.wake_at_ends(self._wake) else self._wake

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self.requested = True
        if self.broker is not None:
            self.broker.event_loop.stop()

    def _wake(self) -> None:
        if self.broker is not None:
            self.broker.wake()


def _serve(config: BrokerConfig, directory: RuntimeDirectory, output: LogWriter, log: LogWriter) -> int:
    """Serve until a signal comes. A broker that a fault has ended is started again, later after each in a row."""
    stop = _Stop()
    in_a_row = 0
    while True:
        began = time.monotonic()
        broker = _serve_once(config, directory, output, log, stop)
        if stop.requested or not broker.event_loop.starts_again:
            break
        in_a_row = 0 if time.monotonic() - began >= WELL_AFTER else in_a_row + 1
        until = time.monotonic() + DELAYS[min(in_a_row, len(DELAYS) - 1)]
        while not stop.requested and time.monotonic() < until:
            time.sleep(0.05)
    if broker.event_loop.gave_up:
        print("backtestr: the engine workers end as soon as they start; the log above says why", file=sys.stderr)
        return 1
    log.drain(_WELCOME_SECONDS)
    print("backtestr has stopped. Backtests that had not ended run again when it is started.", flush=True)
    return 0


def _serve_once(
    config: BrokerConfig, directory: RuntimeDirectory, output: LogWriter, log: LogWriter, stop: _Stop
) -> Broker:
    """Run a broker to its end, and return it."""

    def address(name: str) -> str:
        if has_unix_sockets() if name == "engine" else config.transport.kind == "ipc":
            return directory.socket_address(name)
        # Workers are always on this machine.
        return f"tcp://{_LOOPBACK if name == 'engine' else config.transport.host}:*"

    def on_serving(series: list[SeriesInfo]) -> None:
        log.drain(_WELCOME_SECONDS)
        print(
            _WELCOME.format(
                version=__version__,
                connection_file=directory.connection_file,
                data_dir=paths.data_dir(),
                series=_listing(series),
                keys=_keys_line(allow_list),
                backtestr=_command(),
                app=_app_command().ljust(len(_command()) + _WIDTH),
            ),
            flush=True,
        )
        output.drain(_WELCOME_SECONDS)
        directory.publish(broker.connection)

    allow_list = _allow_list(config.transport)
    raise_descriptor_limit()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    family = ProcessFamily()
    launch = partial(launch_process, family=family, on_end=stop.on_end)
    try:
        memory = FreedMemory(time.monotonic())
        broker = Broker(config, paths.data_dir(), context, address, launch, on_serving, allow_list, memory)
        stop.broker = broker
        if stop.requested:  # before there was a broker to stop
            broker.event_loop.stop()
        gc.collect()
        gc.freeze()  # these objects stay: no collection needs to stop the broker to look at them again
        with broker.wake.at_signals():
            broker.run()
    finally:
        directory.withdraw()
        context.term()
        directory.remove_leftovers()  # the next start in this process needs the names of its sockets
        family.close()
    return broker


def _allow_list(transport: TransportOptions) -> AllowList | None:
    """Return the keys that may connect, with encrypted connections."""
    if transport.is_encrypted:
        private_directory(paths.data_dir(), "BACKTESTR_DATA_DIR")  # before keys are read from it
        return AllowList(KeyFolder(paths.keys_dir()), transport.host)
    if transport.kind == "tcp":
        logging.getLogger(__name__).warning(
            "transport.tcp_readable_by_local_users: connections are not encrypted, and every user of this machine can "
            "read all prices, progress, orders and positions"
        )
    return None


def _listing(series: list[SeriesInfo]) -> str:
    """Return the first few series on a line, such as `SYNTH 1m (20,000 bars)`."""
    shown = [
        f"{one.symbol} ({one.bars:,} ticks)"
        if one.timeframe == TICK
        else f"{one.symbol} {one.timeframe} ({one.bars:,} bars)"
        for one in series[:_SHOWN_SERIES]
    ]
    more = [f"and {len(series) - _SHOWN_SERIES} more"] if len(series) > _SHOWN_SERIES else []
    return ", ".join(shown + more)


def _keys_line(allow_list: AllowList | None) -> str:
    """Return a line with the keys that may connect; an empty text without an allow-list."""
    if allow_list is None:
        return ""
    names = ", ".join(sorted(allow_list.names)) or f"none yet; make one with {_command()} keys new NAME"
    return f"  keys              the connection file's on this machine; elsewhere: {names}\n"


def _command() -> str:
    """Return the command that the user can type: its name when that is on the path."""
    if shutil.which("backtestr"):
        return "backtestr"
    beside = Path(sys.executable).with_name("backtestr")
    return str(beside) if beside.exists() else f"{sys.executable} -m backtestr"


def _app_command() -> str:
    """Return the command that opens the app: in a checkout one that builds the page first."""
    return "make run-ui" if (Path(__file__).parents[2] / "clients" / "app").is_dir() else f"{_command()} ui"


if __name__ == "__main__":
    sys.exit(main())
