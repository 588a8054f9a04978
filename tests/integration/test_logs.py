"""The log of a real broker and its workers is JSON, and lines of one request or backtest have its ids."""

from __future__ import annotations

import json
import logging
import re
import uuid
from typing import Any

import pytest

import backtestr
from backtestr_protocol.errors import AlgorithmError
from integration.conftest import QUICK
from support.harness import RawClient, RunningBroker, running_broker, wait_until

FAILING = '''
import logging

from backtestr_engine.authoring import algorithm


@algorithm("fails")
def fails(bars):
    """Fails, and says so."""
    logging.getLogger("mine").warning("about to fail")
    raise ZeroDivisionError("of the algorithm's own")
'''


def lines(broker: RunningBroker) -> list[dict[str, Any]]:
    """Return the lines of the log; the welcome, on standard output, goes to the same file."""
    return [json.loads(line) for line in broker.log.splitlines() if line.startswith("{")]


def about(broker: RunningBroker, name: str, value: str) -> list[dict[str, Any]]:
    return [line for line in lines(broker) if line.get(name) == value]


def test_a_backtest_that_failed_is_followed_by_its_id_through_client_broker_and_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = {"broker.toml": QUICK + '[log]\nformat = "json"\n[workers]\ncompute = 1\n'}
    with running_broker(config) as broker:
        welcome = [line for line in broker.log.splitlines() if not line.startswith("{")]
        with caplog.at_level(logging.INFO), backtestr.connect(connection_file=broker.connection_file) as client:
            client.register_algorithm(FAILING, "fails")
            backtest_id = str(uuid.uuid4())
            run = client.backtest("fails", "SYNTH", timeframe="1m", backtest_id=backtest_id)
            with pytest.raises(AlgorithmError):
                run.result()
        assert f"backtest {backtest_id} was accepted" in caplog.text

        def is_told() -> bool:
            lines_of_it = about(broker, "backtestId", backtest_id)
            return {"failed", "RunBacktest"} <= {one.get("status") for one in lines_of_it} | {
                one.get("work") for one in lines_of_it if one["event"] == "task_ended"
            }

        wait_until(is_told, 10.0)

        found = about(broker, "backtestId", backtest_id)
        (failed,) = (one for one in found if one.get("status") == "failed")
        assert failed["code"] == "ALGORITHM_ERROR"
        (running,) = (one for one in found if one.get("status") == "running")
        assert running["workerId"] == "compute-1"
        (request_id,) = {one["requestId"] for one in found if "requestId" in one and one.get("work") != "CheckBacktest"}
        assert [one["status"] for one in found if one["event"] == "backtest_changed"] == ["queued", "running", "failed"]
        of_worker = [one for one in found if one.get("work") == "RunBacktest"]
        assert [one["event"] for one in of_worker] == ["task_began", "about to fail", "task_ended"]
        assert {one["workerId"] for one in of_worker} == {"compute-1"}
        assert {one["clientId"] for one in found} == {failed["clientId"]}
        assert of_worker[-1]["code"] == "ALGORITHM_ERROR"
        assert len(about(broker, "requestId", request_id)) >= 6

        with RawClient(broker.connection_file, "ann") as ann:
            ann.hello()
            message_id = str(uuid.uuid4())
            ann.send_and_receive(ann.requests.make("GetBacktestStatus", {"backtestId": "x"}, message_id=message_id))
            ann.send_and_receive(ann.requests.make("GetBacktestResults", {"backtestId": "y"}))
        wait_until(lambda: any(one["event"] == "task_ended" for one in about(broker, "clientId", "ann")), 10.0)
        (refused,) = about(broker, "requestId", message_id)
        assert refused["event"] == "request_refused"
        assert (refused["clientId"], refused["type"], refused["code"]) == ("ann", "GetBacktestStatus", "NOT_FOUND")
        of_ann = [one["event"] for one in about(broker, "clientId", "ann")]
        assert {"client_joined", "request_refused", "task_ended"} <= set(of_ann), "the worker found no results"

        again = [line for line in broker.log.splitlines() if not line.startswith("{")]
        assert again == welcome, "nothing but JSON was added"


def test_at_most_20_refusals_a_second_are_logged_and_the_rest_counted(
    broker: RunningBroker, raw_client: RawClient
) -> None:
    sent = 0

    def untold() -> bool:
        nonlocal sent
        for _ in range(50):
            raw_client.refused("GetBacktestStatus", {"backtestId": "counted"})
            sent += 1
        return re.search(r"request_refused .*untold=[1-9]", broker.log) is not None

    wait_until(untold, 30.0)
    assert 20 <= broker.log.count("'counted'") < sent
