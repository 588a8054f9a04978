"""This part measures the server of `backtestr ui`: round trips and a million prices through its tunnel, and its start.

    make bench-tunnel

The reader is the built TypeScript client in Node, over a WebSocket as in a page. Round trips alternate in blocks with
those of the same client over ZeroMQ. The prices come in columns from a tape (`price_tape.py`), which are 41 MB at once
and fit into the window of a page. The start is from the command to the first bytes of the page over HTTP.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from brokers import Running, running_broker
from figures import Figure, Missing, Target, rounds, run_part
from node_client import NODE, PACKAGE, UNLIMITED, node
from price_tape import price_tape

BLOCKS = 24
TRIPS = 250
PRICE_ROUNDS = 5
STARTS = 9
PART = "`backtestr ui`"
TUNNEL, DIRECT = "through the tunnel", "over ZeroMQ"
END_SECONDS = 10


class Served(NamedTuple):
    """A server that runs: its link, and the milliseconds from the command to the first bytes of the page."""

    link: str
    first_bytes_ms: float


def measure(effort: float) -> list[Figure | Missing]:
    if not NODE.exists() or not (PACKAGE / "dist" / "page.mjs").exists():
        return [Missing(PART, "the TypeScript client is not built; run: make build-ts")]
    with running_broker(config=UNLIMITED) as broker:
        return [*round_trips(broker, effort), *prices(broker, effort), *starts(broker, effort)]


@contextlib.contextmanager
def served(broker: Running, connection_file: Path) -> Iterator[Served]:
    """Run a server for the broker that a connection file names."""
    folder = broker.runtime_dir / "ui"
    environment = {
        **os.environ,
        "BACKTESTR_RUNTIME_DIR": str(folder),
        "BACKTESTR_DATA_DIR": str(broker.data_dir),
        "BACKTESTR_CONNECTION_FILE": str(connection_file),
    }
    began = time.perf_counter()
    command = [sys.executable, "-m", "backtestr", "ui", "--no-browser"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        link = next((line.strip() for line in process.stdout if "token=" in line), None)
        if link is None:
            raise RuntimeError(f"the server ended with {process.wait()}")
        host = link.removeprefix("http://").partition("/")[0]
        connection = http.client.HTTPConnection(host, timeout=END_SECONDS)
        connection.request("GET", "/")
        connection.getresponse().read()
        first_bytes_ms = 1e3 * (time.perf_counter() - began)
        connection.close()
        yield Served(link, first_bytes_ms)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(END_SECONDS)


def round_trips(broker: Running, effort: float) -> list[Figure | Missing]:
    with served(broker, broker.connection_file) as server:
        took = node("tunnel", server.link, broker.connection_file, rounds(BLOCKS, effort), TRIPS)
    return [
        Figure(
            part=f"{PART}: round trips of Ping, {percentile}",
            name=name,
            unit="µs",
            values=[1e3 * one[percentile] for one in took[kind]],
            beside=DIRECT if name == TUNNEL else None,
            target=Target(2_000.0, "at most", "value") if (name, percentile) == (TUNNEL, "p50") else None,
        )
        for percentile in ("p50", "p99")
        for name, kind in ((DIRECT, "direct"), (TUNNEL, "tunnel"))
    ]


def prices(broker: Running, effort: float) -> list[Figure | Missing]:
    topics = [f"prices.columns{number}.1m" for number in range(rounds(PRICE_ROUNDS, effort))]
    with price_tape(broker, dict.fromkeys(topics, "columns")) as file, served(broker, file) as server:
        found = node("prices", server.link, *(f"columns:{topic}" for topic in topics))
    return [
        Figure(
            part=f"{PART}: a million prices through the tunnel",
            name="columns",
            unit="1/s",
            values=[one["rate"] for one in found],
            target=Target(500_000.0, "at least", "value"),
        )
    ]


def starts(broker: Running, effort: float) -> list[Figure | Missing]:
    took: list[float] = []
    for _ in range(rounds(STARTS, effort)):
        with served(broker, broker.connection_file) as server:
            took.append(server.first_bytes_ms)
    return [Figure(part=f"{PART}: start", name="to the page's first bytes", unit="ms", values=took)]


if __name__ == "__main__":
    run_part(__doc__, measure)
