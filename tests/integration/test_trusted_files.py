"""A broker makes private files whatever the umask is, and uses none that another user could have written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import backtestr
from backtestr.cli.console import EXIT_NO_BROKER
from backtestr_protocol.errors import InvalidConfiguration
from integration.conftest import ONE_WORKER, TCP
from integration.test_end_to_end import SYNTH, run_to_end
from support.harness import RawClient, RunningBroker, short_directory

RECORDED = ONE_WORKER + TCP + "[recorder]\nenabled = true\n"
ALGORITHM = """
from backtestr_engine.authoring import Signals, algorithm

@algorithm("mine")
def mine(bars):
    return Signals.of(entries=bars.close > bars.open)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with short_directory() as path:
        yield path


def test_everything_that_a_broker_makes_is_private_with_umask_0(home: Path) -> None:
    broker = RunningBroker(home, {"broker.toml": RECORDED})
    broker.start(before="umask 0")
    try:
        with RawClient(broker.connection_file) as client:
            client.hello()
            client.ask("RegisterAlgorithm", {"name": "mine", "source": ALGORITHM})
            assert run_to_end(client, SYNTH)["status"] == "completed"
            client.ask("UpdateState", {"key": "a", "value": 1})
        made = [broker.data_dir, broker.runtime_dir]
        made += [one for folder in tuple(made) for one in folder.rglob("*")]
        modes = {one: stat.S_IMODE(one.stat().st_mode) for one in made if not one.is_socket()}
    finally:
        assert broker.stop() == 0
    names = {one.name for one in modes}
    assert names >= {
        "broker.db",
        "recordings",
        "SYNTH",
        "mine.json",
        "records.bin",
        "server.secret",
        "connection.json",
    }
    assert {str(path): oct(mode) for path, mode in modes.items() if mode & 0o077} == {}


def leave_a_file_named_orders(broker: RunningBroker) -> None:
    (broker.runtime_dir / "orders").write_text("of another program")


@pytest.mark.parametrize(
    ("loosen", "says"),
    [
        (lambda one: one.data_dir.chmod(0o777), "name a directory of your own in BACKTESTR_DATA_DIR"),
        (lambda one: (one.data_dir / "broker.db").chmod(0o666), "/data/broker.db' "),
        (lambda one: (one.data_dir / "broker.db-wal").chmod(0o666), "/data/broker.db-wal' "),
        (lambda one: one.data_dir.parent.chmod(0o777), "exchange"),
        (lambda one: one.runtime_dir.chmod(0o777), "name a directory of your own in BACKTESTR_RUNTIME_DIR"),
        (leave_a_file_named_orders, "orders belongs to another program"),
    ],
    ids=["data directory", "database", "its log", "the directory above", "runtime directory", "a file named orders"],
)
def test_an_unsafe_start_is_refused_with_one_sentence(
    home: Path, loosen: Callable[[RunningBroker], object], says: str
) -> None:
    broker = RunningBroker(home, {})
    (home / "config" / "broker.toml").unlink()  # it would be looked at first
    for folder in (broker.data_dir, broker.runtime_dir):
        folder.mkdir(mode=0o700)
    for name in ("broker.db", "broker.db-wal"):
        (broker.data_dir / name).touch(0o600)
    loosen(broker)
    said = broker.refused_start()
    assert says.strip().rstrip("'") in said
    assert len(said.splitlines()) == 1
    assert not broker.connection_file.exists()


# Its usual place is in /tmp without XDG_RUNTIME_DIR, where another user may have taken it.
WITHOUT_A_RUNTIME_DIRECTORY = """
import platformdirs, sys

def refuse(_app):
    raise PermissionError("/tmp/runtime-0 belongs to another user")

platformdirs.user_runtime_dir = refuse
from {module} import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("module", "arguments", "code"),
    [("backtestr_broker.__main__", [], 1), ("backtestr.cli.entry", ["status"], EXIT_NO_BROKER)],
)
def test_without_a_safe_runtime_directory_broker_and_commands_say_one_sentence(
    module: str, arguments: list[str], code: int
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BACKTESTR_")}
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_RUNTIME_DIRECTORY.format(module=module), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == code, ended.stderr
    sentence = "no safe runtime directory: /tmp/runtime-0 belongs to another user; name one in BACKTESTR_RUNTIME_DIR"
    assert sentence in ended.stderr.splitlines()[0]
    assert "Traceback" not in ended.stderr


def test_an_embedded_broker_refuses_an_unsafe_data_directory(home: Path) -> None:
    home.chmod(0o777)
    with pytest.raises(InvalidConfiguration, match=f"chmod -R go-w '{home}'"), backtestr.embedded(home):
        pass
    home.chmod(0o700)


def test_a_worker_and_the_inspection_refuse_an_unsafe_cache_of_kernels(home: Path) -> None:
    (home / "backtestr").mkdir()
    (home / "backtestr").chmod(0o777)
    for arguments in (["--warm"], []):
        ended = subprocess.run(
            [sys.executable, "-m", "backtestr_engine", *arguments],
            env={**os.environ, "XDG_CACHE_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 2
        assert f"chmod go-w '{home}/backtestr'" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
