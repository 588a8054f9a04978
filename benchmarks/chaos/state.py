"""This program has many clients increment the same keys at once; sums and snapshots must be exact.

    make chaos-state            5 clients x 15 keys x 2,000 increments
    make chaos-state ARGS='--clients 2 --keys 3 --times 50'

Every client is a process, and increments with `expected_version`. Another client follows all changes, and takes
snapshots at random moments: each must equal the sum of the changes up to its watermark. The exit code is 1 if an
increment is lost, made twice, or published wrongly.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import backtestr
from backtestr import Update
from backtestr_protocol.errors import StateConflict, TimedOut
from support.harness import running_broker

# Seconds between two snapshots: at random, so many on average.
SNAPSHOT_EVERY = 0.2

Versions = dict[str, tuple[int, int]]  # key -> (version, value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=5, help="processes that increment (default 5)")
    parser.add_argument("--keys", type=int, default=15, help="keys that each increments (default 15)")
    parser.add_argument("--times", type=int, default=2000, help="increments of each key by each client (default 2,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of keys and the moments (default 1)")
    parser.add_argument("--increment", type=Path, metavar="CONNECTION_FILE", help="be one of the clients")
    arguments = parser.parse_args()
    if arguments.increment:
        print(json.dumps(increment(arguments.increment, arguments.keys, arguments.times, arguments.seed)))
        return 0
    with running_broker() as broker:
        began = time.monotonic()
        with incrementing(broker.connection_file, arguments) as clients:
            follower = Follower(broker.connection_file)
            follower.follow_until_all_have_ended(clients, random.Random(arguments.seed))
            took = time.monotonic() - began
            counts = [json.loads(client.communicate()[0]) for client in clients]
            faults = [fault for count in counts for fault in count["faults"]] + follower.faults
        with backtestr.connect(connection_file=broker.connection_file) as client:
            final = {one.key: (one.version, one.value) for one in client.snapshot_state("chaos.").entries}
    expected = arguments.clients * arguments.times
    wrong = {key: found for key, found in final.items() if found != (expected, expected)}
    faults += [f"{key} is {found}, expected {expected} twice" for key, found in wrong.items()]
    faults += [] if len(final) == arguments.keys else [f"there are {len(final)} keys"]
    faults += [] if follower.versions == final else ["the follower and the broker differ in the end"]
    made, conflicts = sum(count["made"] for count in counts), sum(count["conflicts"] for count in counts)
    print(
        f"{made:,} increments by {arguments.clients} clients on {len(final)} keys in {took:.1f} s "
        f"({made / took:,.0f} a second), {conflicts:,} conflicts; {follower.revision:,} changes followed, "
        f"{follower.snapshots} snapshots compared; {len(faults)} faults"
    )
    for fault in faults[:20]:
        print(f"fault: {fault}")
    return 1 if faults else 0


@contextlib.contextmanager
def incrementing(connection_file: Path, arguments: argparse.Namespace) -> Iterator[list[subprocess.Popen[str]]]:
    """Run the clients; none of their processes is left, even after an error."""
    started = [
        subprocess.Popen(
            [
                *(sys.executable, __file__, "--increment", str(connection_file), "--keys", str(arguments.keys)),
                *("--times", str(arguments.times), "--seed", str(arguments.seed * 1000 + number)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(arguments.clients)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def increment(connection_file: Path, keys: int, times: int, seed: int) -> dict[str, object]:
    """Increment every key `times` times, in random order."""
    generator = random.Random(seed)
    left = [f"chaos.{number}" for number in range(keys) for _ in range(times)]
    generator.shuffle(left)
    known: Versions = {}
    conflicts = 0
    faults: list[str] = []
    with backtestr.connect(connection_file=connection_file, wait=30.0, request_timeout=120.0) as client:
        while left:
            key = left[-1]
            version, value = known.get(key, (0, 0))
            try:
                made = client.update_state(key, value + 1, expected_version=version).version
            except StateConflict as conflict:
                conflicts += 1
                details = conflict.details or {}
                known[key] = details["currentVersion"], details["currentValue"] or 0
                if known[key][0] <= version:
                    faults.append(f"{key} went from version {version} to {known[key][0]}")
            else:
                left.pop()
                if made != version + 1:
                    faults.append(f"{key} at {version} was incremented to version {made}")
                known[key] = made, value + 1
    return {"made": keys * times, "conflicts": conflicts, "faults": faults}


class Follower:
    """A client that applies every change in order of revision, and compares snapshots at their watermarks."""

    def __init__(self, connection_file: Path) -> None:
        self._client = backtestr.connect(connection_file=connection_file, request_timeout=120.0)
        self._changes = self._client.subscribe("state.chaos.", history=True)
        self._ahead: list[tuple[int, str, int, int]] = []  # revision, key, version, value
        self._to_compare: dict[int, Versions] = {}
        self.versions: Versions = {}
        self.revision = 0
        self.snapshots = 0
        self.faults: list[str] = []

    def follow_until_all_have_ended(self, clients: list[subprocess.Popen[str]], generator: random.Random) -> None:
        with self._client:
            due = time.monotonic()
            while any(client.poll() is None for client in clients):
                self._read(0.02)
                if time.monotonic() >= due:
                    due = time.monotonic() + generator.uniform(0, 2 * SNAPSHOT_EVERY)
                    self._take_snapshot()
            last = self._take_snapshot()
            deadline = time.monotonic() + 60.0
            while self.revision < last and time.monotonic() < deadline:
                self._read(1.0)
        if self.revision < last:
            self.faults.append(f"changes after revision {self.revision} of {last} never arrived")

    def _take_snapshot(self) -> int:
        taken = self._client.snapshot_state("chaos.")
        found = {one.key: (one.version, one.value) for one in taken.entries}
        if taken.watermark < self.revision:
            self.faults.append(f"a snapshot at {taken.watermark} came after a change at {self.revision}")
        elif taken.watermark == self.revision:
            self._compare(found)
        else:
            self._to_compare[taken.watermark] = found
        return taken.watermark

    def _compare(self, snapshot: Versions) -> None:
        self.snapshots += 1
        if snapshot != self.versions:
            self.faults.append(f"the snapshot at {self.revision} is not what the changes up to it add up to")

    def _read(self, timeout: float) -> None:
        """Read the changes that have arrived, or arrive within `timeout` seconds."""
        try:
            for _ in range(200):
                update = self._changes.next(timeout)
                if not isinstance(update, Update):
                    self.faults.append(f"the follower received {update}")
                    return
                change = update.data
                heapq.heappush(self._ahead, (change.revision, change.key, change.version, change.value))
                self._apply()
        except TimedOut:
            pass

    def _apply(self) -> None:
        while self._ahead and self._ahead[0][0] == self.revision + 1:
            self.revision, key, version, value = heapq.heappop(self._ahead)
            if version != self.versions.get(key, (0, 0))[0] + 1:
                self.faults.append(f"{key} went to version {version} from {self.versions.get(key)}")
            self.versions[key] = version, value
            if (snapshot := self._to_compare.pop(self.revision, None)) is not None:
                self._compare(snapshot)


if __name__ == "__main__":
    sys.exit(main())
