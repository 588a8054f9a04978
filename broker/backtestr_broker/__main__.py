"""`python -m backtestr_broker` serves on this machine until Ctrl-C or SIGTERM.

With `--replay-log FILE` it does not serve: it plays a recording back, and prints JSON (`ReplayedLog` in
`backtestr_protocol.inspection`).

Exit codes: 0 after a requested stop, 1 when the broker cannot start or its workers end as soon as they start, 2 for a
wrong argument or option, or a file that is no recording.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from types import FrameType

import msgspec
import zmq

from backtestr_broker.io.allow_list import AllowList
from backtestr_broker.io.log import start_logging
from backtestr_broker.io.process_family import ProcessFamily
from backtestr_broker.io.runtime_directory import AlreadyRunning, RuntimeDirectory
from backtestr_broker.io.supervisor import launch_process
from backtestr_broker.recording.format import Unreadable
from backtestr_broker.recording.parts import parts_of
from backtestr_broker.recording.replay_log import replayed_log
from backtestr_broker.recording.timeline import SUBJECT_KINDS
from backtestr_protocol import __version__, paths
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.keys import KeyFolder
from backtestr_protocol.messages import SeriesInfo

from .broker import Broker
from .config import BrokerConfig, load_config

_WELCOME = """\
backtestr {version} is serving. Ctrl-C stops it.

  connection file   {connection_file}
  data directory    {data_dir}
  data              {series}
{keys}
In a second terminal:
  {backtestr} data                                       what there is to test on
  {backtestr} backtest sma_cross SYNTH --timeframe 1m    a first backtest
  {backtestr} import FILE.csv --symbol NAME              your own bars
  {backtestr} --help                                     everything else
In Python:
  import backtestr; client = backtestr.connect()
"""


_SHOWN_SERIES = 6


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m backtestr_broker",
        description="Serve backtests on this machine until Ctrl-C or SIGTERM.",
        epilog="BACKTESTR_RUNTIME_DIR, BACKTESTR_DATA_DIR and BACKTESTR_CONFIG_DIR say where sockets, data and options "
        "are; config/broker.toml and config/engine.toml explain every option.",
    )
    parser.add_argument("--version", action="version", version=f"backtestr {__version__}")
    parser.add_argument("--replay-log", type=Path, metavar="FILE", help="play a recording back, and print JSON")
    about = parser.add_mutually_exclusive_group()
    for kind in SUBJECT_KINDS:
        about.add_argument(f"--{kind}", metavar="ID", help=f"with --replay-log: the timeline of this {kind}")
    about.add_argument("--all", action="store_true", help="with --replay-log: the timeline of everything")
    given = parser.parse_args(arguments)
    if given.replay_log is not None:
        return _replay(given)
    if given.all or any(getattr(given, kind) is not None for kind in SUBJECT_KINDS):
        parser.error("a timeline is of a recording: name one with --replay-log")
    try:
        config = load_config(paths.config_dir())
    except InvalidConfiguration as error:
        print(f"backtestr: {error}", file=sys.stderr)
        return 2
    start_logging(config.log)
    directory = RuntimeDirectory(paths.runtime_dir(), paths.connection_file())
    try:
        directory.acquire()
    except (AlreadyRunning, InvalidConfiguration, OSError) as error:
        print(f"backtestr: {error}", file=sys.stderr)
        return 1
    try:
        return _serve(config, directory)
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


def _serve(config: BrokerConfig, directory: RuntimeDirectory) -> int:
    def address(name: str) -> str:
        if config.transport.kind == "ipc" or name == "engine":  # workers are always on this machine
            return directory.socket_address(name)
        return f"tcp://{config.transport.host}:*"

    def on_serving(series: list[SeriesInfo]) -> None:
        directory.publish(broker.connection)
        print(
            _WELCOME.format(
                version=__version__,
                connection_file=directory.connection_file,
                data_dir=paths.data_dir(),
                series=_listing(series),
                keys=_keys_line(allow_list),
                backtestr=_command(),
            ),
            flush=True,
        )

    allow_list = AllowList(KeyFolder(paths.keys_dir())) if config.curve.enabled else None
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    family = ProcessFamily()
    launch = partial(launch_process, family=family)
    try:
        broker = Broker(config, paths.data_dir(), context, address, launch, on_serving, allow_list)
        _stop_on_signals(broker)
        gc.collect()
        gc.freeze()  # these objects stay: no collection needs to stop the broker to look at them again
        broker.run()
    finally:
        directory.withdraw()
        context.term()
        family.close()
    if broker.event_loop.gave_up:
        print("backtestr: the engine workers end as soon as they start; the log above says why", file=sys.stderr)
        return 1
    print("backtestr has stopped. Backtests that had not ended run again when it is started.", flush=True)
    return 0


def _stop_on_signals(broker: Broker) -> None:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        broker.event_loop.stop()

    def wake(_signal: int, _frame: FrameType | None) -> None:
        broker.wake()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    signal.signal(signal.SIGCHLD, wake)  # a worker has ended


def _listing(series: list[SeriesInfo]) -> str:
    """Return the first few series on a line, such as `SYNTH 1m (20,000 bars)`."""
    shown = [f"{one.symbol} {one.timeframe} ({one.bars:,} bars)" for one in series[:_SHOWN_SERIES]]
    more = [f"and {len(series) - _SHOWN_SERIES} more"] if len(series) > _SHOWN_SERIES else []
    return ", ".join(shown + more)


def _keys_line(allow_list: AllowList | None) -> str:
    """Return a line with the names whose keys may connect; an empty text without an allow-list."""
    if allow_list is None:
        return ""
    names = ", ".join(sorted(allow_list.names)) or f"nobody yet; make one with {_command()} keys new NAME"
    return f"  allowed keys      {names}\n"


def _command() -> str:
    """Return the command that the user can type: its name when that is on the path."""
    if shutil.which("backtestr"):
        return "backtestr"
    beside = Path(sys.executable).with_name("backtestr")
    return str(beside) if beside.exists() else f"{sys.executable} -m backtestr"


if __name__ == "__main__":
    sys.exit(main())
