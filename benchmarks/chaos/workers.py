"""This program kills workers with `kill -9` during backtests: each backtest ends once, and its streams are complete.

    make chaos-workers          50 kills
    make chaos-workers ARGS='--kills 3 --seed 7'

At random moments a worker that runs a backtest is killed, mostly when a spare one waits. Another one goes on from the
backtest's checkpoint: every backtest must complete, once. A client that subscribes to all topics must receive every
message, or a gap that states which are lost. The orders of a backtest must be those of an undisturbed one. As many
workers as are configured take tasks again within a second of a kill (median), by the spare. The exit code is 1 for a
fault.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import statistics
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import backtestr
from backtestr import Client, Gap, Subscription, Update
from backtestr_protocol import topics
from backtestr_protocol.errors import TimedOut
from support.harness import RawClient, running_broker

# A few bars at a time: a backtest takes a second or more, so that every kill hits one.
ENGINE = "[worker]\nchunk_bars = 4\n"
WORKERS = "[workers]\ncompute = {}\nspare = 1\n"
BACKTEST = ("sma_cross", "SYNTH")
RANGE: dict[str, Any] = {"start": "2024-01-01", "end": "2024-01-15"}
# Marks follow the clock: without them every run publishes the same number of messages on each topic.
UNMARKED = {"marks": False}
# Queued or running at once.
UNDER_WAY = 5
# Seconds for which a worker runs a backtest before it is killed, at random.
AT_WORK = (0.0, 0.5)
# Every fifth kill does not wait for a spare: then a worker is missing until a process has started.
RUSHED = 5
# Seconds for which a worker may be missing: the median, by a spare; the worst, by two processes that start one after
# the other while four backtests keep two cores busy.
MEDIAN_MISSING = 1.0
LONGEST_MISSING = 20.0
# Seconds within which some worker must run a backtest again; the supervisor's delays grow to ten.
PATIENCE = 60.0
ENDED = ("completed", "failed", "stopped")


class Received:
    """The messages that a client received of every topic, in order, and the gaps that were stated."""

    def __init__(self, client: Client) -> None:
        self._subscriptions = [client.subscribe(prefix) for prefix in ("orders.", "progress.", "positions.")]
        self._changes = client.subscribe("system.backtests", history=True)
        self.last: Counter[str] = Counter()
        self.messages = 0
        self.stated_lost = 0
        self.final: dict[str, list[str]] = {}
        self.faults: list[str] = []

    def take(self) -> None:
        """Read the messages that have arrived."""
        for subscription in self._subscriptions:
            for one in arrived(subscription):
                self._count(one)
        for one in arrived(self._changes):
            if isinstance(one, Update) and one.data.status in ENDED:
                self.final.setdefault(one.data.backtest_id, []).append(one.data.status)

    def _count(self, one: object) -> None:
        match one:
            case Update(topic=topic, seq=seq):
                self.messages += 1
                if seq != self.last[topic] + 1:
                    self.faults.append(f"{topic} jumped from {self.last[topic]} to {seq}, and no gap was stated")
                self.last[topic] = seq
            case Gap(topic=topic, from_seq=from_seq, to_seq=to_seq):
                self.stated_lost += to_seq - from_seq + 1
                if from_seq != self.last[topic] + 1:
                    self.faults.append(
                        f"{topic} is lost from {from_seq} on, and {self.last[topic]} was the last before"
                    )
                self.last[topic] = to_seq
            case _:
                self.faults.append(f"a client received {one}")


def arrived(subscription: Subscription) -> list[object]:
    found: list[object] = []
    with contextlib.suppress(TimedOut):
        while (one := subscription.next(0.0)) is not None:
            found.append(one)
    return found


class Slots:
    """The compute workers, with the times for which one that takes tasks was missing after a kill."""

    def __init__(self, client: Client, configured: int) -> None:
        self._client = client
        self._configured = configured
        self._killed: set[int] = set()  # process ids
        self._missing: deque[float] = deque()  # the times of the kills after which a worker is still missing
        self.empty_for: list[float] = []
        self.spare_waits = False

    def busy(self) -> list[int]:
        """Return the process ids of the compute workers that run a backtest now."""
        workers = [one for one in self._client.status().workers if one.worker_id.startswith("compute-")]
        alive = [one for one in workers if one.pid not in self._killed]
        found = sum(one.state in ("idle", "busy") for one in alive)
        while len(self._missing) > self._configured - found:
            self.empty_for.append(time.monotonic() - self._missing.popleft())
        # Until the broker has noticed a kill, the spare that will replace that worker seems to wait.
        self.spare_waits = not self._missing and any(one.state == "spare" for one in alive)
        return [one.pid for one in alive if one.state == "busy"]

    def kill(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self._killed.add(pid)
        self._missing.append(time.monotonic())

    def wait(self, received: Received) -> None:
        """Wait until no worker is missing, for a bounded time."""
        deadline = time.monotonic() + PATIENCE
        while self._missing and time.monotonic() < deadline:
            received.take()
            self.busy()
            time.sleep(0.01)

    def faults(self) -> Iterator[str]:
        if self._missing:
            yield f"{len(self._missing)} workers are missing after the last kill"
        if statistics.median(self.empty_for or [0.0]) > MEDIAN_MISSING:
            yield f"after half of the kills a worker was missing for more than {MEDIAN_MISSING:g} s"
        if max(self.empty_for, default=0.0) > LONGEST_MISSING:
            yield f"after a kill a worker was missing for more than {LONGEST_MISSING:g} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=50, help="of workers (default 50)")
    parser.add_argument("--workers", type=int, default=4, help="that run backtests (default 4)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default 1)")
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    began = time.monotonic()
    with (
        running_broker({"broker.toml": WORKERS.format(arguments.workers), "engine.toml": ENGINE}) as broker,
        backtestr.connect(connection_file=broker.connection_file, request_timeout=PATIENCE) as client,
        RawClient(broker.connection_file) as raw_client,
    ):
        undisturbed = client.backtest(*BACKTEST, timeframe="1m", **RANGE, streams=UNMARKED, watch=())
        undisturbed.wait(PATIENCE)
        received, slots = Received(client), Slots(client, arguments.workers)
        started: list[str] = []
        for number in range(1, arguments.kills + 1):
            is_rushed = number % RUSHED == 0
            slots.kill(busy_worker(client, slots, received, started, generator, is_rushed))
        slots.wait(received)
        raw_client.hello()
        faults = wait_for_all(client, raw_client, received, started)
        faults += slots.faults()
        faults += received.faults + list(found_wrong(client, raw_client, received, started, undisturbed.id))
    outcomes = Counter(states[-1] for states in received.final.values())
    empty = slots.empty_for or [0.0]
    print(
        f"{arguments.kills} kills in {time.monotonic() - began:.0f} s; {len(started)} backtests: "
        f"{outcomes['completed'] - 1} completed, {outcomes['failed']} failed; {received.messages:,} messages received, "
        f"{received.stated_lost:,} stated lost; a worker was missing for {statistics.median(empty):.2f} s "
        f"(median, worst {max(empty):.2f} s); {len(faults)} faults"
    )
    for fault in faults[:20]:
        print(f"fault: {fault}")
    return 1 if faults else 0


def keep_busy(client: Client, started: list[str]) -> None:
    under_way = sum(one.status not in ENDED for one in client.list_backtests(limit=4 * UNDER_WAY))
    for _ in range(UNDER_WAY - under_way):
        started.append(str(uuid.uuid4()))
        client.backtest(
            *BACKTEST, timeframe="1m", **RANGE, streams=UNMARKED, backtest_id=started[-1], watch=()
        ).abandon()


def busy_worker(
    client: Client, slots: Slots, received: Received, started: list[str], generator: random.Random, is_rushed: bool
) -> int:
    """Return the process id of a worker that runs a backtest after a random time, when a spare waits or in a rush."""
    deadline = time.monotonic() + PATIENCE
    until = time.monotonic() + generator.uniform(*AT_WORK)
    while time.monotonic() < deadline:
        keep_busy(client, started)
        received.take()
        busy = slots.busy()
        if busy and (slots.spare_waits or is_rushed) and time.monotonic() >= until:
            return generator.choice(busy)
        time.sleep(0.01)
    raise RuntimeError(f"no worker ran a backtest for {PATIENCE:g} s: {client.status().workers}")


def wait_for_all(client: Client, raw_client: RawClient, received: Received, started: list[str]) -> list[str]:
    """Read until every backtest has ended, and all its messages have arrived."""
    deadline = time.monotonic() + PATIENCE * 2
    while time.monotonic() < deadline:
        received.take()
        left = [one for one in started if one not in received.final]
        behind = [topic for topic in received.last if received.last[topic] < last_seq(raw_client, topic)]
        if not left and not behind:
            return []
        client.ping()
        time.sleep(0.1)
    unfinished = [f"backtest {one} is {client.backtest_status(one).status} after the last kill" for one in left]
    return unfinished + [f"of {topic} nothing after {received.last[topic]} arrived" for topic in behind]


def last_seq(raw_client: RawClient, topic: str) -> int:
    """Return the last sequence number of a topic, which the broker states if it is asked for a later message."""
    return int(raw_client.ask("FetchMissed", {"topic": topic, "fromSeq": 1 << 40})["toSeq"])


def found_wrong(
    client: Client, raw_client: RawClient, received: Received, started: list[str], undisturbed: str
) -> Iterator[str]:
    expected = [last_seq(raw_client, topic) for topic in topics_of(undisturbed)]
    stored = client.results(undisturbed, tables=("orders",)).orders
    for backtest_id in started:
        states = received.final.get(backtest_id, [])
        if len(states) != 1:
            yield f"backtest {backtest_id} ended {len(states)} times: {states}"
            continue
        status = client.backtest_status(backtest_id)
        if status.status != "completed":
            yield f"backtest {backtest_id} {status.status}: {status.error}"
            continue
        if [received.last[topic] for topic in topics_of(backtest_id)] != expected:
            yield f"backtest {backtest_id} did not publish what an undisturbed one does"
        orders = client.results(backtest_id, tables=("orders",)).orders
        if orders is None or stored is None or not orders.drop("order_id").equals(stored.drop("order_id")):
            yield f"backtest {backtest_id} has other orders than an undisturbed one"


def topics_of(backtest_id: str) -> tuple[str, str]:
    return topics.orders(backtest_id), topics.positions(backtest_id)


if __name__ == "__main__":
    sys.exit(main())
