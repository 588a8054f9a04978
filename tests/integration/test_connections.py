"""More connections than descriptors, to every socket and to the port for metrics: the broker serves its clients."""

from __future__ import annotations

import contextlib
import os
import resource
import socket as sockets_of_the_system
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from integration.conftest import ONE_WORKER, PLAIN_TCP, TCP
from integration.test_end_to_end import SYNTH
from integration.test_metrics import free_port
from support.harness import RawClient, RunningBroker, short_directory, wait_until

# The broker's soft and hard limit here. 18 connections to each socket follow from it.
DESCRIPTORS = 384
LIMIT = 18
FLOOD = 60
TRANSPORTS = {"ipc": "", "tcp": PLAIN_TCP, "tcp with CURVE": TCP}


class Target:
    """A broker with few descriptors, and a port for metrics."""

    def __init__(self, broker: RunningBroker, port: int) -> None:
        self.broker = broker
        self.port = port
        connection = RawClient.read(broker.connection_file)
        self.endpoints: dict[str, str] = {
            **connection["endpoints"],
            "engine": f"ipc://{broker.runtime_dir}/engine",
            "metrics": f"tcp://127.0.0.1:{port}",
        }

    def connect(self, name: str) -> sockets_of_the_system.socket:
        """Open a connection that says nothing."""
        endpoint = self.endpoints[name]
        if endpoint.startswith("ipc://"):
            peer = sockets_of_the_system.socket(sockets_of_the_system.AF_UNIX)
            peer.connect(endpoint.removeprefix("ipc://"))
            return peer
        url = urlsplit(endpoint)
        return sockets_of_the_system.create_connection((url.hostname, url.port))

    def scraped(self, name: str) -> dict[str, float]:
        """Return the values of a metric by socket."""
        lines: list[str] = []

        def has_answered() -> bool:
            """Ask once; in a flood a new connection may be refused."""
            with (
                contextlib.suppress(ConnectionError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=20) as answer,
            ):
                lines.extend(answer.read().decode().splitlines())
            return bool(lines)

        wait_until(has_answered, 10)
        found = [line.removeprefix(f'{name}{{socket="').split('"} ') for line in lines if line.startswith(f"{name}{{")]
        return {socket: float(value) for socket, value in found}


@pytest.fixture(params=list(TRANSPORTS))
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    port = free_port()
    config = {"broker.toml": f"{ONE_WORKER}{TRANSPORTS[request.param]}[metrics]\nport = {port}\n"}
    with short_directory() as home, contextlib.ExitStack() as stack:
        broker = RunningBroker(home, config)
        broker.start(before=f"ulimit -n {DESCRIPTORS}")
        stack.push(broker)
        yield Target(broker, port)
        assert broker.is_running, broker.log[-4000:]
        assert "Traceback" not in broker.log


def status(client: RawClient) -> dict[str, Any]:
    found: dict[str, Any] = client.ask("GetSystemStatus", {})
    return found


def test_who_is_connected_is_served_and_others_are_again_when_there_is_room(target: Target) -> None:
    process = psutil.Process(target.broker.process.pid)
    with RawClient(target.broker.connection_file, "first") as first, contextlib.ExitStack() as flood:
        first.hello()
        heartbeats = first.subscribe("system", "system.status")
        for _ in range(FLOOD):
            for name in target.endpoints:
                with contextlib.suppress(ConnectionError):  # ended while it was being made
                    flood.enter_context(target.connect(name))
            assert first.ask("Ping", {})
        wait_until(lambda: process.num_fds() < DESCRIPTORS - 8, 20)
        assert heartbeats.receive()[0] == "system.status"
        wait_until(lambda: status(first)["status"] == "warning", 20)
        found = status(first)
        assert any("connections; further ones are ended" in reason for reason in found["reasons"]), found["reasons"]
        limits = target.scraped("backtestr_connections_limit")
        assert set(limits.values()) == {LIMIT}, "the port for metrics is answered among silent connections"
        assert all(count <= LIMIT for count in target.scraped("backtestr_connections").values())
        ended = target.scraped("backtestr_ended_connections_total")
        assert all(ended[name] > 0 for name in ("requests", "system")), "ZeroMQ ends some by itself, after five seconds"
        target.broker.wait_for_log("connections_ended")
        with RawClient(target.broker.connection_file, "second") as second:
            second.hello()
            assert second.ask("Ping", {}), "silent connections make room for a client"
            assert second.subscribe("system", "system.status").receive()
        assert first.ask("Ping", {})
        flood.close()
        wait_until(lambda: status(first)["status"] == "healthy", 20)
        assert [one.get("restarts", 0) for one in status(first)["workers"]] == [0, 0], "no worker was lost"
        with RawClient(target.broker.connection_file, "third") as third:
            third.hello()
            assert third.ask("ListMarketData", {})["series"], "workers are connected as before"


def test_a_broker_without_a_free_descriptor_goes_on_and_recovers(own_broker: RunningBroker) -> None:
    process = psutil.Process(own_broker.process.pid)
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    with RawClient(own_broker.connection_file) as client, contextlib.ExitStack() as stack:
        client.hello()
        heartbeats = client.subscribe("system", "system.status")
        opened = {int(name) for name in os.listdir(f"/proc/{process.pid}/fd")}
        first_free = min(set(range(len(opened) + 1)) - opened)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (first_free, hard))
        stack.callback(resource.prlimit, process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        wanted = "the machine or the broker has hardly a file descriptor left"
        wait_until(lambda: wanted in status(client).get("reasons", []), 20)
        assert client.ask("UpdateState", {"key": "without-descriptors", "value": 1})["version"] == 1, "it is on disk"
        client.ask("StartBacktest", {**SYNTH, "backtestId": "without-descriptors"})
        wait_until(
            lambda: client.ask("GetBacktestStatus", {"backtestId": "without-descriptors"})["status"] == "completed", 60
        )
        [lost] = [one for one in status(client)["workers"] if one["workerId"] == "compute-1"]
        psutil.Process(lost["pid"]).kill()
        path = urlsplit(client.connection["endpoints"]["requests"]).path
        for _ in range(20):
            with pytest.raises(FileNotFoundError):
                stack.enter_context(sockets_of_the_system.socket(sockets_of_the_system.AF_UNIX)).connect(path)
        wait_until(lambda: "could not be started: Too many open files" in own_broker.log, 20)
        assert client.ask("Ping", {})
        assert heartbeats.receive()[0] == "system.status"
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        wait_until(lambda: all(one["state"] == "idle" for one in status(client)["workers"]), 60)
        assert wanted not in status(client).get("reasons", [])
        with RawClient(own_broker.connection_file, "second") as second:
            assert second.hello()
    assert own_broker.log.count("descriptors_exhausted") == 1
    assert "Traceback" not in own_broker.log, own_broker.log
