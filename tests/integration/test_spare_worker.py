"""A spare worker waits warm, and takes the backtest of a killed worker at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from support.harness import RunningBroker, running_broker, wait_until

from .conftest import QUICK, TWENTY_BARS

START_SECONDS = 60.0


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    config = {"broker.toml": QUICK + "[workers]\ncompute = 1\nspare = 1\n", "engine.toml": TWENTY_BARS}
    with running_broker(config) as started:
        yield started


@pytest.fixture
def client(broker: RunningBroker) -> Iterator[Client]:
    with Client(ConnectionFile(broker.connection_file).read()) as connected:
        yield connected


def workers(client: Client) -> dict[str, tuple[str, int]]:
    return {one.worker_id: (one.state, one.pid) for one in client.status().workers}


def with_state(client: Client, state: str) -> tuple[str, int]:
    """Wait for the one compute worker in that state, and return its id and process id."""
    found: list[tuple[str, int]] = []

    def is_there() -> bool:
        compute = {one: known for one, known in workers(client).items() if one.startswith("compute-")}
        found[:] = [(one, pid) for one, (known, pid) in compute.items() if known == state]
        return bool(found)

    wait_until(is_there, START_SECONDS)
    return found[0]


def test_a_killed_worker_is_replaced_by_the_spare_and_is_the_spare_when_it_is_started_again(
    client: Client, broker: RunningBroker
) -> None:
    for _ in range(2):
        spare_id, spare_pid = with_state(client, "spare")
        run = client.backtest("sma_cross", "SYNTH", timeframe="1d", pace=0.5)
        busy_id, busy_pid = with_state(client, "busy")
        assert busy_id != spare_id
        os.kill(busy_pid, signal.SIGKILL)
        wait_until(lambda spare_id=spare_id: workers(client)[spare_id][0] == "busy", START_SECONDS)  # type: ignore[misc]
        assert workers(client)[spare_id] == ("busy", spare_pid), "it takes the backtest without being started"
        assert workers(client)[busy_id][0] in ("lost", "starting", "spare")
        run.stop()
        assert run.wait().status == "stopped"
        assert with_state(client, "spare")[0] == busy_id
    broker.wait_for_log("spare_ready", 3)
    assert broker.log.count("spare_ready") == 3
