"""Real brokers for tests run as processes of their own, and raw clients share no code with the Python client.

Nothing here sleeps: it waits for evidence (a connection file, an exit, a message) until a deadline.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import zmq

from backtestr_protocol.keys import KeyPair
from support.protocol.independent import (
    Fields,
    Requests,
    messages_of,
    read_connection,
    unpack_stream,
)

ROOT = Path(__file__).parents[2]
# A cold start compiles the kernels.
START_SECONDS = 90.0
ANSWER_MS = 20_000
LOG_SECONDS = 10.0
# SIGTERM and Ctrl-C must have ended everything by then (README).
STOP_SECONDS = 3.0
# TA-Lib imports pandas, and numba imports coverage, PyYAML and scipy, where they are installed, as here for other tests
# and for benchmarks. That is a half of the processor time of a worker's start, and backtestr itself uses none of them.
WITHOUT_EXTRAS = Path(__file__).parent / "without_extras"
# The one variable of ours that a broker under test inherits: it runs what the tests run.
PURE = "BACKTESTR_PURE"


class RunningBroker:
    """This broker has a process and directories of its own."""

    PROGRAM: Sequence[str] = ("-m", "backtestr_broker")
    # Whether tests have its code raise exceptions. Those of any other broker are defects.
    IS_DEFECTIVE = False

    def __init__(self, home: Path, config: Mapping[str, str] | None = None) -> None:
        """`config`: texts of `broker.toml` and `engine.toml` by file name."""
        self.runtime_dir = home / "run"
        self.data_dir = home / "data"
        self.connection_file = self.runtime_dir / "connection.json"
        config_dir = home / "config"
        config_dir.mkdir(parents=True, exist_ok=True)
        for name, text in {"broker.toml": "", **(config or {})}.items():
            (config_dir / name).write_text(_without_spare(text) if name == "broker.toml" else text, "utf-8")
        self.environment = {
            **{name: value for name, value in os.environ.items() if name == PURE or not name.startswith("BACKTESTR_")},
            "BACKTESTR_RUNTIME_DIR": str(self.runtime_dir),
            "BACKTESTR_DATA_DIR": str(self.data_dir),
            "BACKTESTR_CONFIG_DIR": str(config_dir),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(WITHOUT_EXTRAS), os.environ.get("PYTHONPATH")])),
        }
        self.log_file = home / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the broker was not started"
        return self._process

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, output: int | None = None, *, closed: bool = False, before: str = ":") -> None:
        """Start it, and wait until it serves.

        `output` is the descriptor of its log and standard output, if not that of a file. If `closed`, it has no
        standard streams at all. `before` is a shell command whose limits or umask the broker inherits.
        """
        streams = " <&- >&- 2>&-" if closed else ""
        command = ["/bin/sh", "-c", f'{before}; exec "$@"{streams}', "sh", sys.executable, *self.PROGRAM]
        with self.log_file.open("ab") as log:
            sink = log.fileno() if output is None else output
            self._process = subprocess.Popen(command, env=self.environment, stdout=sink, stderr=sink)
        try:
            wait_until(lambda: self._serves() or self.process.poll() is not None, START_SECONDS)
            assert self._serves(), f"the broker did not start ({self.process.poll()})"
        except BaseException as error:  # who enters a block in vain does not leave it, so nothing else would end it
            self.process.kill()
            self.process.wait()
            error.add_note(self.log)
            raise

    def refused_start(self, code: int = 1) -> str:
        """Start a broker that must end with `code` instead of serving, and return what it prints on standard error."""
        command = [sys.executable, "-m", "backtestr_broker"]
        refused = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=START_SECONDS)
        assert refused.returncode == code, refused.stderr
        assert "Traceback" not in refused.stderr
        return refused.stderr

    def _serves(self) -> bool:
        """Return whether the connection file exists and this process wrote it."""
        try:
            connection, _ = read_connection(self.connection_file)
        except FileNotFoundError:  # that of an earlier broker is removed when the next one starts
            return False
        return bool(connection["pid"] == self.process.pid)

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8") if self.log_file.exists() else ""

    def wait_for_log(self, text: str, times: int = 1) -> None:
        """Wait until the log has `text` so many times: a line is written a moment after that of which it tells."""
        wait_until(lambda: self.log.count(text) >= times, LOG_SECONDS)

    def worker_pids(self) -> list[int]:
        """Return the ids of the processes that the broker has started."""
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End the broker as a crash would; its workers must then end by themselves."""
        workers = [psutil.Process(pid) for pid in self.worker_pids()]
        self.process.kill()
        self.process.wait()
        _gone, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive, f"workers outlived their broker: {alive}"

    def __enter__(self) -> RunningBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        if not self.IS_DEFECTIVE:
            self.check_faults()

    def check_faults(self) -> None:
        """Raise `AssertionError` if the broker has logged a defect of its own.

        It goes on after one, or starts again within its process, so a test that is not about that may not notice, or
        wait in vain for an answer of the broker that was.
        """
        log = self.log_file.read_bytes().decode("utf-8", "replace") if self.log_file.exists() else ""
        faults = [line for line in log.splitlines() if "the broker has a defect" in line or "starts_again" in line]
        assert not faults, "\n".join(faults)


def _without_spare(options: str) -> str:
    """Return the text of a `broker.toml` without spare workers, unless it says something of them."""
    if "spare" in options:
        return options
    if "[workers]\n" in options:
        return options.replace("[workers]\n", "[workers]\nspare = 0\n")
    return f"{options}\n[workers]\nspare = 0\n"


class RawClient:
    """This client of raw pyzmq and msgpack was written from PROTOCOL.md (see `protocol/independent.py`)."""

    def __init__(self, connection_file: Path, client_id: str = "raw-client", *, keys: KeyPair | None = None) -> None:
        """`keys`: its own pair, if not that of the connection file, where connections are encrypted."""
        self.connection, self.key = read_connection(connection_file)
        self.keys = keys
        self.requests = Requests(self.key, client_id, now_ms=lambda: time.time_ns() // 1_000_000)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.sockets: list[zmq.Socket[bytes]] = []
        self.dealer = self.open(zmq.DEALER)
        self.dealer.rcvhwm = 0  # the broker drops what a client is slow to read: here nothing is lost
        self.dealer.connect(self.connection["endpoints"]["requests"])

    @staticmethod
    def read(connection_file: Path) -> Fields:
        """Return the content of a connection file."""
        return read_connection(connection_file)[0]

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        for socket in self.sockets:
            socket.close()
        self.context.term()

    def open(self, kind: int) -> zmq.Socket[bytes]:
        """Open a socket that is closed with this client."""
        socket = self.context.socket(kind)
        socket.linger = 0
        if (curve := self.connection["curve"]) is not None:
            public, secret = curve["clientPublicKey"], curve["clientSecretKey"].encode()
            if self.keys is not None:
                public, secret = self.keys.public, self.keys.secret.reveal()
            socket.curve_serverkey = curve["serverPublicKey"].encode()
            socket.curve_publickey, socket.curve_secretkey = public.encode(), secret
        self.sockets.append(socket)
        return socket

    def hello(self) -> Fields:
        """Open a session and return Welcome."""
        welcome = self.exchange(self.requests.hello())
        self.requests.welcomed(welcome)
        return welcome

    def ask(self, type_name: str, data: Any, *, message_id: str | None = None) -> Fields:
        """Send a request and return its Success data. Raises `AssertionError` for a Failure."""
        return self.exchange(self.requests.make(type_name, data, message_id=message_id))

    def refused(self, type_name: str, data: Any) -> Fields:
        """Send a request that must fail and return its ErrorData."""
        envelope, _ = self.send_and_receive(self.requests.make(type_name, data))
        assert envelope["payload"]["type"] == "Failure", envelope
        error: Fields = envelope["payload"]["data"]
        return error

    def ask_with_attachments(self, type_name: str, data: Any) -> tuple[Fields, list[bytes]]:
        envelope, attachments = self.send_and_receive(self.requests.make(type_name, data))
        assert envelope["payload"]["type"] == "Success", envelope
        return envelope["payload"]["data"], attachments

    def exchange(self, frames: list[bytes]) -> Fields:
        envelope, _ = self.send_and_receive(frames)
        assert envelope["payload"]["type"] == "Success", envelope
        data: Fields = envelope["payload"]["data"]
        return data

    def send_and_receive(self, frames: list[bytes]) -> tuple[Fields, list[bytes]]:
        self.dealer.send_multipart(frames)
        return self.receive()

    def receive(self, timeout_ms: int = ANSWER_MS) -> tuple[Fields, list[bytes]]:
        assert self.dealer.poll(timeout_ms), "no answer came"
        return self.requests.answer(self.dealer.recv_multipart())

    def subscribe(self, socket_name: str, topic: str) -> Subscription:
        return Subscription(self, socket_name, topic)


class Subscription:
    """This subscription is a raw SUB socket on one stream socket of the broker."""

    def __init__(self, raw_client: RawClient, socket_name: str, topic: str) -> None:
        self._key = raw_client.key
        self.topic = topic
        self.socket = raw_client.open(zmq.SUB)
        self.socket.rcvhwm = 0
        self.socket.connect(raw_client.connection["endpoints"][socket_name])
        self.socket.subscribe(topic.encode())
        if socket_name == "system":
            self._wait_for_heartbeat()

    def _wait_for_heartbeat(self) -> None:
        """Wait for a heartbeat: subscriptions take effect in order, so no message of the topic is missed afterwards."""
        self.socket.subscribe(b"system.status")
        while self.receive()[0] != "system.status":
            pass
        if self.topic != "system.status":
            self.socket.unsubscribe(b"system.status")

    def receive(self, timeout_ms: int = ANSWER_MS) -> tuple[str, Fields]:
        """Return topic and envelope of the next message."""
        assert self.socket.poll(timeout_ms), f"nothing came on {self.topic!r}"
        topic, envelope, _ = unpack_stream(self._key, self.socket.recv_multipart())
        return topic, envelope

    def until(self, holds: Callable[[Fields], bool], timeout_s: float = 60.0) -> list[Fields]:
        """Return the envelopes up to the first with a message, alone or in a batch, for whose data `holds` is true."""
        deadline = time.monotonic() + timeout_s
        found: list[Fields] = []
        while True:
            left = max(0, round((deadline - time.monotonic()) * 1000))
            topic, envelope = self.receive(left)
            if not topic.startswith(self.topic):
                continue
            found.append(envelope)
            if any(holds(one["data"]) for one in messages_of(envelope["payload"])):
                return found


def dense(raw_client: RawClient, subscription: Subscription, last_seq: int) -> list[Fields]:
    """Return the payload data of messages 1 to `last_seq` of the subscription's topic.

    Retained messages are fetched, as PROTOCOL.md has a late listener do it; those that arrive twice must agree.
    """
    found: dict[int, Fields] = {}
    reached = 0
    while reached < last_seq:
        page = {"topic": subscription.topic, "fromSeq": reached + 1, "toSeq": last_seq}
        retained = raw_client.ask("FetchMissed", page)
        for one in retained["messages"]:
            found.update(messages(one))
        if retained["toSeq"] <= reached:
            break
        reached = retained["toSeq"]
    live: dict[int, Fields] = {}
    while last_seq not in live:
        topic, envelope = subscription.receive()
        if topic == subscription.topic:
            arrived = messages(envelope)
            assert not live or arrived[0][0] == max(live) + 1, f"{topic} jumped to {arrived[0][0]}"
            live.update(arrived)
    for seq in found.keys() & live.keys():
        assert found[seq] == live[seq]
    found.update(live)
    assert sorted(found) == list(range(1, last_seq + 1)), f"{subscription.topic} is not dense"
    return [found[seq]["data"] for seq in range(1, last_seq + 1)]


def messages(envelope: Fields) -> list[tuple[int, Fields]]:
    """Return the payloads of a stream message, each with its sequence number, batches taken apart."""
    return list(enumerate(messages_of(envelope["payload"]), envelope["seq"]))


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """Make a temporary directory whose path is short enough for a socket's name (107 bytes), as pytest's may not be."""
    with tempfile.TemporaryDirectory(prefix="bt-") as name:
        yield Path(name)


@contextlib.contextmanager
def running_broker(config: Mapping[str, str] | None = None) -> Iterator[RunningBroker]:
    """Run a broker process for the length of the block."""
    with short_directory() as home, RunningBroker(home, config) as broker:
        yield broker


def wait_until(holds: Callable[[], bool], timeout_s: float) -> None:
    """Wait for evidence that no file descriptor announces; check every 10 ms."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {timeout_s} s without success"
        select.select([], [], [], 0.01)
