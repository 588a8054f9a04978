"""Ctrl-C at any moment of a call loses no message, sends no wrong counter and leaves a client that can be used."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import backtestr
from support.harness import RunningBroker

SIGNALS = 1_000
# The seconds between two signals: a call takes a tenth of that, and one that is interrupted is followed by others.
LONGEST_DELAY = 0.003

# The program asks without end, and writes one byte when Ctrl-C was raised. Meanwhile a second client publishes prices,
# and a thread of the interrupted one reads them. With a companion another thread asks as well, so that the answers of
# two callers meet. At the end it writes all that it has counted.
PROGRAM = """
import itertools, json, os, signal, sys, threading
import backtestr

signals, name, companion = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "True"
client = backtestr.connect(client_id=name)
feed = backtestr.connect()
prices = client.subscribe(f"prices.{name}.tick", history=True)
ended = threading.Event()
read, published, asked = [], [], []

def publish():
    for number in itertools.count(1):
        if ended.is_set():
            return
        feed.publish_prices([{"symbol": name, "timestamp": number, "bid": 1.0, "ask": 1.0, "last": 1.0,
                              "volume": 0.0, "timeframe": "tick"}])
        published.append(number)
        ended.wait(0.002)

def subscribe():
    for one in prices:
        read.append(one.data.timestamp if isinstance(one, backtestr.Update) else repr(one))
        arrived.release()

def ask():
    while not ended.is_set():
        client.ping()
        asked.append(1)
        ended.wait(0.001)

arrived = threading.Semaphore(0)
asking = [threading.Thread(target=one) for one in ([publish, ask] if companion else [publish])]
for thread in (*asking, threading.Thread(target=subscribe, daemon=True)):
    thread.start()
client.ping()
interrupts = answered = 0
while interrupts < signals:
    try:
        os.write(1, b".")
        while True:
            client.ping()
            answered += 1
    except KeyboardInterrupt:
        interrupts += 1
ended.set()
for thread in asking:
    thread.join()
while len(read) < len(published) and arrived.acquire(timeout=20):
    pass
client.ping()  # answered after the calls that were interrupted
counted = client.statistics
(load,) = [one for one in client.status().connections.per_client if one.client_id == name]
print(json.dumps({
    "interrupts": interrupts,
    "answered": answered + len(asked),
    "is dense": read == published,
    "sessions": counted.sessions,
    "counted": [counted.answered, counted.failed, counted.resent, counted.waiting, counted.gaps_lost],
    "requests": counted.requests,
    "of the broker": [load.sessions, load.throttled + load.busy],
    "errors": [str(one) for one in client.errors()],
    "state": client.state,
    "handler": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
}))
client.close()
feed.close()
"""


@contextmanager
def running(broker: RunningBroker, name: str, *, companion: bool) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", PROGRAM, str(SIGNALS), name, str(companion)]
    environment = {**os.environ, **broker.environment}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def interrupt_at_random(process: subprocess.Popen[bytes], chance: random.Random) -> dict[str, Any]:
    """Send SIGINT at random moments, each once the one before was raised, and return what the program has counted."""
    assert process.stdout is not None
    for _ in range(SIGNALS):
        assert process.stdout.read(1) == b"."
        # Nothing is to be read, so this takes the whole time.
        select.select([process.stdout], [], [], chance.uniform(0.0, LONGEST_DELAY))
        process.send_signal(signal.SIGINT)
    said, problems = process.communicate(timeout=60)
    assert process.returncode == 0, problems.decode()
    return dict(json.loads(said.lstrip(b".")))


@pytest.mark.parametrize("companion", [False, True], ids=["alone", "beside another caller"])
def test_ctrl_c_at_a_thousand_random_moments(broker: RunningBroker, *, companion: bool) -> None:
    name = f"INTERRUPTED{companion:d}"
    with running(broker, name, companion=companion) as process:
        counted = interrupt_at_random(process, random.Random(48 + companion))
    requests, answered = counted.pop("requests"), counted.pop("answered")
    assert counted == {
        "interrupts": SIGNALS,
        "is dense": True,
        "sessions": 1,
        "counted": [requests, 0, 0, 0, 0],
        "of the broker": [1, 0],
        "errors": [],
        "state": "ready",
        "handler": True,
    }
    # Two are at the beginning and the end. Of each interrupted call the answer may have come or not.
    assert answered + 2 <= requests <= answered + 2 + SIGNALS


def test_ctrl_c_that_another_thread_gets_ends_a_wait(broker: RunningBroker) -> None:
    """The sleep of the main thread goes on then, and what waits is compiled: it must run some Python now and then."""

    raised = threading.Event()
    in_time: list[bool] = []

    def press() -> None:
        select.select([], [], [], 0.1)  # the main thread sleeps by then
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        in_time.append(raised.wait(20.0))
        subscription.close()  # so that a wait that noticed nothing ends

    with backtestr.connect(connection_file=broker.connection_file) as client:
        subscription = client.subscribe("prices.NONE.tick")
        presser = threading.Thread(target=press)
        presser.start()
        with pytest.raises(KeyboardInterrupt):
            subscription.next()
        raised.set()
        presser.join()
    assert in_time == [True]
