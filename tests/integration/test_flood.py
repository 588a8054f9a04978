"""One client floods, and another is served in turn: these tests count, and `benchmarks/chaos` measures times."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import zmq

from integration.conftest import QUICK
from integration.test_end_to_end import SYNTH
from support.harness import ROOT, RawClient, running_broker, wait_until

ONE_WORKER = f"{QUICK}[workers]\ncompute = 1\n"


def send_as_many_as_it_takes(raw_client: RawClient, most: int) -> int:
    """Send backtests until ZeroMQ's queues are full, at most `most`, and return how many."""
    for sent in range(most):
        try:
            raw_client.dealer.send_multipart(raw_client.requests.make("StartBacktest", SYNTH), zmq.DONTWAIT)
        except zmq.Again:
            return sent
    return most


def test_a_ping_does_not_wait_for_what_another_client_sent_before_it() -> None:
    with (
        running_broker({"broker.toml": ONE_WORKER}) as broker,
        RawClient(broker.connection_file, "flood") as flood,
        RawClient(broker.connection_file, "ann") as ann,
    ):
        flood.hello()
        ann.hello()
        os.kill(broker.process.pid, signal.SIGSTOP)
        try:
            sent = send_as_many_as_it_takes(flood, 5000)
            ann.dealer.send_multipart(ann.requests.make("Ping", {}))
            ann.dealer.send_multipart(ann.requests.make("GetSystemStatus", {}))
        finally:
            os.kill(broker.process.pid, signal.SIGCONT)
        assert sent >= 500
        assert ann.receive()[0]["payload"]["type"] == "Success"
        status = ann.receive()[0]["payload"]["data"]
        clients = {one["clientId"]: one["requests"] for one in status["connections"]["perClient"]}
        assert clients["flood"] < sent / 2, f"{clients['flood']} of {sent} came first"


def test_a_flood_of_backtests_leaves_space_for_others_and_each_is_answered_once() -> None:
    throttle = "[throttle]\nbackground_per_second = 500\nbackground_burst = 900\n"
    # On a busy machine the flood reads more slowly than it is answered, and no answer is to be lost by that.
    sockets = "[sockets]\nreply_queue = 100000\n"
    config = {"broker.toml": ONE_WORKER + throttle + sockets, "engine.toml": "[worker]\nchunk_bars = 20\n"}
    with (
        running_broker(config) as broker,
        RawClient(broker.connection_file, "flood") as flood,
        RawClient(broker.connection_file, "ann") as ann,
    ):
        flood.hello()
        ann.hello()
        runs = ann.ask("StartBacktest", SYNTH)
        sent = 0
        answers: Counter[str] = Counter()
        while answers["RATE_LIMIT_EXCEEDED"] < 100 or answers["BUSY"] + answers["Success"] < 100:
            sent += send_as_many_as_it_takes(flood, 100)
            while flood.dealer.poll(0):
                answers[kind(flood)] += 1
        stopped = ann.ask("StopBacktest", {"backtestId": runs["backtestId"]})
        assert stopped["status"] in ("stopped", "completed")
        mine = ann.ask("StartBacktest", SYNTH)["backtestId"]
        while ann.ask("GetBacktestStatus", {"backtestId": mine})["status"] != "completed":
            while flood.dealer.poll(0):  # a client that does not read loses answers, and would have to resend
                answers[kind(flood)] += 1
        status = ann.ask("GetSystemStatus", {})
        (of_flood,) = (one for one in status["connections"]["perClient"] if one["clientId"] == "flood")
        assert of_flood["queued"] > 50, "mine was not the last"
        assert of_flood["throttled"] >= 100
        assert status["throttle"]["B"]["hits"] >= 100
        while sum(answers.values()) < sent:
            answers[kind(flood)] += 1
        assert not flood.dealer.poll(0)
        assert set(answers) <= {"Success", "BUSY", "RATE_LIMIT_EXCEEDED"}


def test_answers_that_no_client_reads_are_logged_once_a_second() -> None:
    config = {"broker.toml": ONE_WORKER + "[sockets]\nreply_queue = 10\n"}
    with running_broker(config) as broker, RawClient(broker.connection_file) as raw_client:
        began = time.monotonic()
        deaf = raw_client.open(zmq.DEALER)
        deaf.rcvhwm = 1
        deaf.connect(raw_client.connection["endpoints"]["requests"])
        deaf.send_multipart(raw_client.requests.hello())
        raw_client.requests.welcomed(raw_client.requests.answer(deaf.recv_multipart())[0]["payload"]["data"])
        for _ in range(5000):
            deaf.send_multipart(raw_client.requests.make("Ping", {}))
        with RawClient(broker.connection_file, "ann") as ann:
            ann.hello()
            wait_until(lambda: requests_of(ann, "raw-client") == 5001, 60.0)
        broker.wait_for_log("message_dropped")
        dropped = broker.log.count("message_dropped")
        assert 1 <= dropped <= time.monotonic() - began + 1


def requests_of(raw_client: RawClient, client_id: str) -> int:
    clients = raw_client.ask("GetSystemStatus", {})["connections"]["perClient"]
    return sum(one["requests"] for one in clients if one["clientId"] == client_id)


def kind(raw_client: RawClient) -> str:
    payload = raw_client.receive(60_000)[0]["payload"]
    return str(payload["type"] if payload["type"] == "Success" else payload["data"]["code"])


@pytest.mark.parametrize("arguments", [("--cycles", "200", "--clients", "60", "--rounds", "2", "--silent", "100")])
def test_clients_that_come_and_go_leave_nothing_behind(arguments: tuple[str, ...]) -> None:
    script = ROOT / "benchmarks" / "chaos" / "connections.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("benchmarks", "tests"))}
    done = subprocess.run(
        [sys.executable, script, *arguments], env=environment, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "answered: 200 cycles and 60 at once in each round; sessions left: 1" in done.stdout
    assert "the broker is as it was" in done.stdout
