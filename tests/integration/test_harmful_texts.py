"""The signing key is in no log and no recording, and texts of any length cost little, after every kind of failure."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr_protocol.errors import AlgorithmError, BacktestrError, TimedOut
from backtestr_protocol.secret import Secret
from backtestr_protocol.texts import MAX_TEXT_BYTES
from backtestr_protocol.worker_channel import WorkerSettings, encode_settings
from integration.conftest import ONE_WORKER
from support.engine.own_algorithms import FAILS_IN_EVERY_WAY, LOOPS, WAYS_TO_FAIL
from support.harness import RawClient, RunningBroker, running_broker, wait_until
from support.protocol.hostile import hostile_lists
from support.protocol.independent import Requests

MEGABYTE = 1_000_000
ON_LOAD = {
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "GeneratorExit": "raise GeneratorExit",
    "SystemExit": "import sys; sys.exit(3)",
    "Own": "class Own(BaseException): pass\nraise Own('mine')",
    "ValueError": "raise ValueError('x' * 20_000_000)",
    "SyntaxError": "def (",
}


def forms_of(key: bytes) -> list[bytes]:
    """Return the key as bytes, and as text in the usual ways."""
    texts = [key.hex(), key.hex().upper(), repr(key)[2:-1], base64.b64encode(key).decode().rstrip("=")]
    return [key, *[text.encode() for text in texts]]


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    """Run a broker that records and logs all that it can."""
    config = ONE_WORKER + '[recorder]\nenabled = true\n[log]\nlevel = "debug"\n'
    with running_broker({"broker.toml": config}) as running:
        yield running


@pytest.fixture
def client(broker: RunningBroker) -> Iterator[Client]:
    with Client(ConnectionFile(broker.connection_file).read()) as connected:
        for name in ("fails_in_every_way", "prints"):
            connected.register_algorithm(FAILS_IN_EVERY_WAY, name)
        yield connected


def was_sent(client: Client, number: signal.Signals) -> bool:
    """Send a signal to the compute worker; return False if it has just ended, to be replaced after its task."""
    try:
        os.kill(worker_pid(client), number)
    except ProcessLookupError:
        return False
    return True


def worker_pid(client: Client) -> int:
    """Wait until the compute worker is idle, and return its process id."""
    found: list[int] = []

    def is_idle() -> bool:
        found[:] = [one.pid for one in client.status().workers if (one.worker_id, one.state) == ("compute-1", "idle")]
        return bool(found)

    wait_until(is_idle, 30.0)
    return found[0]


def failure(client: Client, way: int) -> BacktestrError:
    run = client.backtest("fails_in_every_way", "SYNTH", timeframe="1d", parameters={"way": way})
    with pytest.raises(BacktestrError) as caught:
        run.result()
    return caught.value


def size_of(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.rglob(pattern))


def test_whatever_an_algorithm_raises_is_its_error_and_costs_little(broker: RunningBroker, client: Client) -> None:
    process = psutil.Process(broker.process.pid)
    pid = worker_pid(client)
    memory, log = process.memory_info().rss, broker.log_file.stat().st_size
    database = size_of(broker.data_dir, "broker.db*")
    found = [failure(client, way) for way in range(WAYS_TO_FAIL)]
    assert {type(error) for error in found} == {AlgorithmError}
    for error in found:
        assert len(str(error).encode()) <= MAX_TEXT_BYTES
        assert all(len(str(one).encode()) <= MAX_TEXT_BYTES for one in (error.details or {}).values())
    assert "fails_in_every_way raised KeyboardInterrupt" in str(found[0])
    assert "in thrown" in (found[0].details or {})["traceback"]
    assert str(found[6]).endswith("… cut: 20,000,012 characters")
    assert worker_pid(client) == pid, "none of them has ended the worker"
    assert process.memory_info().rss - memory < 40 * MEGABYTE
    assert broker.log_file.stat().st_size - log < 10 * MEGABYTE
    assert size_of(broker.data_dir, "broker.db*") - database < 10 * MEGABYTE


@pytest.mark.parametrize("kind", ON_LOAD)
def test_whatever_a_source_raises_at_its_registration_is_its_error(client: Client, kind: str) -> None:
    with pytest.raises(AlgorithmError, match=kind) as caught:
        client.register_algorithm(ON_LOAD[kind], "never")
    assert len(str(caught.value).encode()) <= MAX_TEXT_BYTES


def test_a_check_of_what_fails_is_a_verdict_of_bounded_length(client: Client) -> None:
    source = FAILS_IN_EVERY_WAY.replace("way=Int(0", "way=Int(6").replace('"""Print', f'"""{"d" * 200_000}')
    info = client.register_algorithm(source, "fails_in_every_way")
    assert info.look_ahead is not None
    assert "raised ValueError" in (info.look_ahead.problem or "")
    assert len(info.look_ahead.problem or "") <= 4_000
    described = client.register_algorithm(source, "prints").description
    assert described.endswith(f"… cut: {200_000 + len(', in one of several ways.'):,} characters")


@pytest.mark.parametrize("how", [7, *range(7)])  # 7 closes the stream, and the next task has one again
def test_prints_beyond_the_budget_are_counted_and_left_out(broker: RunningBroker, client: Client, how: int) -> None:
    before, told = broker.log_file.stat().st_size, broker.log.count("prints_left_out")
    megabytes = 100 if how in (0, 4) else 20
    run = client.backtest("prints", "SYNTH", timeframe="1d", parameters={"megabytes": megabytes, "how": how})
    assert run.wait().status == "completed"
    wait_until(lambda: broker.log.count("prints_left_out") > told, 20.0)
    assert broker.log.count("prints_left_out") == told + 1
    assert broker.log_file.stat().st_size - before < 2 * MEGABYTE


def test_after_every_failure_no_log_and_no_recording_has_the_key(broker: RunningBroker, client: Client) -> None:
    failure(client, 0)
    with RawClient(broker.connection_file, "hostile") as hostile:
        good = hostile.requests.make("Ping", {})
        for frames in hostile_lists(1, 300, good, hostile.key):
            hostile.dealer.send_multipart(frames)
    with RawClient(broker.connection_file, "stranger") as stranger:
        stranger.dealer.send_multipart(Requests(os.urandom(32), "stranger", now_ms=lambda: 1).hello())
        assert stranger.dealer.poll(20_000)
    client.register_algorithm(LOOPS, "loops")
    with pytest.raises(TimedOut):
        client.backtest("loops", "SYNTH", timeframe="1m", time_limit_ms=100).result()
    for number in (signal.SIGSEGV, signal.SIGTERM):
        lost = broker.log.count("worker_lost")
        wait_until(partial(was_sent, client, number), 30.0)
        wait_until(lambda lost=lost: broker.log.count("worker_lost") > lost, 20.0)  # type: ignore[misc]
    recordings = broker.data_dir / "recordings"
    (recording,) = recordings.iterdir()
    shown = subprocess.run(
        [sys.executable, "-m", "backtestr_broker", "--replay-log", str(recording), "--all"],
        capture_output=True,
        timeout=60,
        check=True,
    ).stdout
    assert json.loads(shown)["problems"] == []
    key = bytes.fromhex(RawClient.read(broker.connection_file)["signing"]["key"])
    files = [file for file in broker.data_dir.rglob("*") if file.is_file()]
    assert any(file.suffix == ".msgpack" for file in files)
    texts = {str(file): file.read_bytes() for file in (*files, broker.log_file)} | {"replay-log": shown}
    assert {name for name, text in texts.items() for form in forms_of(key) if form in text} == set()


# --- a fault that ends a process ---

KNOWN = bytes(range(65, 97))
BROKEN_BROKER = """
import secrets, sys
from backtestr_broker import __main__ as program
from backtestr_broker.io.event_loop import EventLoop

secrets.token_bytes = lambda count: bytes(range(65, 65 + count))

def broken(self, *_):
    key = self._core
    raise ZeroDivisionError("a fault of the broker")

EventLoop._supervise = broken
sys.exit(program.main([]))
"""
BROKEN_WORKER = """
import sys
from backtestr_engine import __main__ as program
from backtestr_engine.worker import threads

def broken(context, settings, *_):
    key = settings.key
    raise ZeroDivisionError("a fault of the worker")

threads._exchange = broken
sys.exit(program.main())
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_broker_that_crashes_says_why_and_shows_no_key(tmp_path: Path, form: str) -> None:
    environment = RunningBroker(tmp_path, {"broker.toml": f'[log]\nformat = "{form}"\n'}).environment
    environment["BACKTESTR_PURE"] = "1"  # a method of a compiled class cannot be replaced
    done = subprocess.run([sys.executable, "-c", BROKEN_BROKER], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert b"ZeroDivisionError: a fault of the broker" in done.stderr
    assert b"in broken" in done.stderr
    assert [form for form in forms_of(KNOWN) if form in done.stderr + done.stdout] == []


def test_a_worker_that_crashes_says_why_and_shows_no_key(tmp_path: Path) -> None:
    settings = WorkerSettings(worker_id="compute-1", kind="compute", endpoint="inproc://x", key=Secret(KNOWN))
    done = subprocess.run(
        [sys.executable, "-c", BROKEN_WORKER],
        env=RunningBroker(tmp_path).environment,
        input=encode_settings(settings),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert b"ZeroDivisionError: a fault of the worker" in done.stderr
    assert b"in broken" in done.stderr
    assert [form for form in forms_of(KNOWN) if form in done.stderr + done.stdout] == []
