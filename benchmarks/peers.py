"""The peers are NATS and Jupyter: requests as small as a Ping, on this machine, with their own Python clients.

NATS needs the extra `bench`, Jupyter comes with `dev`. A peer that is not installed is reported as missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from turns import Trips, trips

MISSING = "is not installed (pip install -c constraints.txt -e '.[bench]')"
PAYLOAD_BYTES = 200
START_SECONDS = 20.0

RESPONDER = """
import asyncio, sys, nats

async def main():
    connection = await nats.connect(sys.argv[1])
    async def answer(message):
        await message.respond(message.data)
    await connection.subscribe("ping", cb=answer)
    await connection.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def nats_server() -> str | None:
    """Return the path of the program if it and its client are installed."""
    if importlib.util.find_spec("nats") is None:
        return None
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


@contextlib.contextmanager
def nats_request(program: str) -> Iterator[Trips]:
    """Run a NATS server, and yield requests and replies between two clients of it."""
    import nats

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"nats://127.0.0.1:{port}"
    server = subprocess.Popen([program, "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    responder: subprocess.Popen[bytes] | None = None
    loop = asyncio.new_event_loop()
    try:
        _wait_for_port(port)
        responder = subprocess.Popen([sys.executable, "-c", RESPONDER, address], stdout=subprocess.PIPE)
        assert responder.stdout is not None
        if responder.stdout.readline() != b"ready\n":
            raise RuntimeError("the NATS responder did not start")
        connection: Any = loop.run_until_complete(nats.connect(address))
        payload = b"x" * PAYLOAD_BYTES

        async def asked(times: int) -> list[float]:
            took = []
            for _ in range(times):
                began = time.perf_counter()
                await connection.request("ping", payload, timeout=10)
                took.append(time.perf_counter() - began)
            return took

        yield lambda times: loop.run_until_complete(asked(times))
        loop.run_until_complete(connection.close())
    finally:
        loop.close()
        for process in (responder, server):
            if process is not None:
                process.kill()
                process.wait()


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError("nats-server did not start")


def has_jupyter() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("ipykernel", "jupyter_client"))


@contextlib.contextmanager
def kernel_info() -> Iterator[Trips]:
    """Run an IPython kernel, and yield `kernel_info` requests over ipc, signed as Jupyter does."""
    from jupyter_client.manager import KernelManager

    manager: Any = KernelManager(transport="ipc")
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=START_SECONDS)
        yield trips(lambda: client.kernel_info(reply=True, timeout=10))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
