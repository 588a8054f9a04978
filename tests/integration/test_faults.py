"""A broker whose core has failed half-way starts again in its process, from what is on disk; clients follow it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import backtestr
from integration.conftest import ONE_WORKER
from integration.test_end_to_end import SYNTH
from support.harness import START_SECONDS, RawClient, RunningBroker, short_directory, wait_until

# A broker with a defect: the key `fatal` of the shared state fails after the change was issued.
DEFECTIVE = """
import sys
from backtestr_broker.__main__ import main
from backtestr_broker.core.durability import Durability

change_state = Durability.change_state

def failing(self, request_key, result, record):
    change_state(self, request_key, result, record)
    if record.key == "fatal":
        raise ZeroDivisionError("a defect")

Durability.change_state = failing
sys.exit(main())
"""


class DefectiveBroker(RunningBroker):
    """This broker runs the program above."""

    PROGRAM = ("-c", DEFECTIVE)
    IS_DEFECTIVE = True


@pytest.fixture
def defective() -> Iterator[RunningBroker]:
    with short_directory() as home, DefectiveBroker(home, {"broker.toml": ONE_WORKER}) as broker:
        yield broker


def test_a_fault_half_way_starts_the_broker_again_in_its_process(
    defective: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKTESTR_CONNECTION_FILE", str(defective.connection_file))
    pid, before = defective.process.pid, RawClient.read(defective.connection_file)
    with backtestr.connect(client_id="follower") as follower, RawClient(defective.connection_file) as raw_client:
        raw_client.hello()
        raw_client.ask("UpdateState", {"key": "kept", "value": 1})
        raw_client.ask("StartBacktest", {**SYNTH, "backtestId": "kept"})
        error = raw_client.refused("UpdateState", {"key": "fatal", "value": "private"})
        assert error["code"] == "SYSTEM_ERROR"
        wait_until(lambda: another(defective, before["instanceId"]), START_SECONDS)
        with follower.shared_state() as shared:
            assert shared["kept"] == 1
    after = RawClient.read(defective.connection_file)
    assert after["signing"]["key"] != before["signing"]["key"]
    assert (after["pid"], defective.process.poll()) == (pid, None)
    with RawClient(defective.connection_file) as raw_client:
        raw_client.hello()
        wait_until(
            lambda: bool(raw_client.ask("GetBacktestStatus", {"backtestId": "kept"})["status"] == "completed"), 30
        )
        assert raw_client.refused("GetState", {"key": "fatal"})["code"] == "NOT_FOUND", "nothing of it has happened"
    log = defective.log
    assert error["details"]["id"] in log
    assert log.count("ZeroDivisionError") >= 1
    assert "starts_again" in log
    assert before["signing"]["key"] not in log
    assert "private" not in log
    assert defective.stop() == 0


def another(broker: RunningBroker, instance_id: str) -> bool:
    """Return whether another instance has written the connection file."""
    return broker.connection_file.exists() and RawClient.read(broker.connection_file)["instanceId"] != instance_id
