"""Round trips: Ping through the whole path beside a raw pyzmq echo, over ipc, interleaved in one run.

    make bench-rtt

Both sides of each pair run in blocks that alternate, so that a noisy machine is noisy for both; medians are compared.
Then the broker is left alone for a while, and its processor time is read.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
import zmq
from brokers import running_broker
from turns import Work, in_turn, print_table

from backtestr.client import Client
from backtestr.discovery import ConnectionFile
from backtestr.effects import Answered, Send, Welcomed
from backtestr.session import Session
from backtestr_protocol.connection import Connection
from backtestr_protocol.messages import Nothing

PAYLOAD_BYTES = 200
FLOOR = "raw pyzmq echo"

ECHO = """
import sys, zmq
router = zmq.Context().socket(zmq.ROUTER)
router.bind(sys.argv[1])
while True:
    router.send_multipart(router.recv_multipart())
"""


def echo_trip(context: zmq.Context[zmq.Socket[bytes]], address: str) -> Work:
    """The floor: one frame of 200 bytes to a ROUTER and back."""
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    dealer.connect(address)
    payload = b"x" * PAYLOAD_BYTES

    def trip() -> None:
        dealer.send(payload)
        dealer.recv()

    return trip


def session_trip(context: zmq.Context[zmq.Socket[bytes]], connection: Connection) -> Work:
    """Ping as the protocol has it, both ways signed, verified, counted and correlated, on one thread."""
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    dealer.connect(connection.endpoints.requests)
    session = Session("bench", "bench")
    ping = Nothing()

    def send(effects: Iterable[object]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                dealer.send_multipart(effect.frames)

    def wait_for(kind: type) -> None:
        while True:
            effects = session.receive(dealer.recv_multipart(), time.monotonic(), time.time_ns() // 1_000_000)
            if any(isinstance(effect, kind) for effect in effects):
                return

    send(session.connected(connection.signer(), time.monotonic(), time.time_ns() // 1_000_000))
    wait_for(Welcomed)

    def trip() -> None:
        _, effects = session.request("Ping", ping, time.monotonic(), time.time_ns() // 1_000_000, 10.0)
        send(effects)
        wait_for(Answered)

    return trip


def idle_cpu_percent(pid: int, seconds: float) -> float:
    """Processor time of the broker process, without its workers, as percent of one core."""
    process = psutil.Process(pid)
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    spent = after.user + after.system - before.user - before.system
    return float(100 * spent / seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--blocks", type=int, default=30, help="alternations (default 30)")
    parser.add_argument("--trips", type=int, default=200, help="round trips in a block (default 200)")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds of idling to measure (default 10)")
    arguments = parser.parse_args()
    with running_broker() as broker, tempfile.TemporaryDirectory(prefix="bt-") as folder:
        address = f"ipc://{Path(folder) / 'echo'}"
        echo = subprocess.Popen([sys.executable, "-c", ECHO, address])
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            connection = ConnectionFile(broker.connection_file).read()
            with Client(connection) as client:
                kinds: dict[str, Work] = {
                    FLOOR: echo_trip(context, address),
                    "Ping, one thread": session_trip(context, connection),
                    "client.ping()": client.ping,
                }
                in_turn(kinds, 1, arguments.trips)
                took = in_turn(kinds, arguments.blocks, arguments.trips)
            print_table("over ipc", took, dict.fromkeys(kinds, FLOOR), "µs")
            print(f"idle broker: {idle_cpu_percent(broker.pid, arguments.idle):.2f} % of a core")
        finally:
            echo.kill()
            echo.wait()
            context.destroy(linger=0)


if __name__ == "__main__":
    main()
