"""This program stops a client with SIGSTOP for a while, beside a fast one, under a flood of stream messages.

    make chaos-subscriber       20 s
    make chaos-subscriber ARGS='--seconds 3'

Both are processes that read one price topic on which backtests publish 20,000 messages each. The fast one must receive
every message as fast as before, the broker's memory must stay bounded, and the slow one must have every message in the
end, or a gap that states which are lost. The exit code is 1 for a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

import backtestr
from backtestr import Gap, Update
from backtestr_protocol.errors import TimedOut
from support.harness import RawClient, RunningBroker, running_broker

# The queue of a subscriber is short, so that twenty seconds are enough to lose some messages.
CONFIG = {"broker.toml": "[workers]\ncompute = 1\n[sockets]\nstream_queue = 100\n", "engine.toml": ""}
TOPIC = "prices.SYNTH.1m"
# Seconds between two backtests of the flood: a client in Python can then read all messages.
PAUSE = 0.5
# The least share of the rate before; and the most growth of the broker's memory in MB, with 100 batches of some hundred
# kB queued for the slow one.
LEAST_SHARE = 0.5
MOST_GROWTH_MB = 128.0
# Seconds within which either must have every message or gap in the end.
PATIENCE = 60.0


class Flood:
    """A series of backtests that publish every bar."""

    def __init__(self, connection_file: Path) -> None:
        self.backtests = 0
        self.fault: str | None = None
        self._stop = threading.Event()
        self._connection_file = connection_file
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with backtestr.connect(connection_file=self._connection_file) as client:
                while not self._stop.wait(PAUSE):
                    options: dict[str, Any] = {"streams": {"prices": True, "orders": False, "positions": False}}
                    run = client.backtest("buy_and_hold", "SYNTH", timeframe="1m", watch=(), **options)
                    run.wait(PATIENCE)
                    self.backtests += 1
        except Exception as error:  # any error ends the flood
            self.fault = f"the flood ended: {type(error).__name__}: {error}"

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)


class Reader:
    """A client in a process of its own, with the counts that it last printed."""

    def __init__(self, connection_file: Path) -> None:
        self.counts: dict[str, int] = {"first": 0, "last": 0, "got": 0, "lost": 0, "jumps": 0}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--read", str(connection_file)], stdout=subprocess.PIPE, text=True
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.counts = json.loads(line)

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20.0, help="for which it is stopped (default 20)")
    parser.add_argument("--read", type=Path, metavar="CONNECTION_FILE", help="be a subscriber")
    arguments = parser.parse_args()
    if arguments.read:
        read(arguments.read)
        return 0
    with running_broker(CONFIG) as broker, readers(broker) as (fast, slow):
        flood = Flood(broker.connection_file)
        wait_for(lambda: fast.counts["got"] > 0 and slow.counts["got"] > 0)
        memory = memory_mb(broker)
        before = rate(fast, arguments.seconds / 2)
        os.kill(slow.pid, signal.SIGSTOP)
        stopped_at = slow.counts["last"]
        during, peak = watched(fast, broker, arguments.seconds)
        os.kill(slow.pid, signal.SIGCONT)
        after = rate(fast, arguments.seconds / 2)
        flood.stop()
        with RawClient(broker.connection_file) as raw_client:
            raw_client.hello()
            last = raw_client.ask("FetchMissed", {"topic": TOPIC, "fromSeq": 1 << 40})["toSeq"]
        wait_for(lambda: fast.counts["last"] == slow.counts["last"] == last)
        faults = [flood.fault] if flood.fault else []
        for name, reader in (("fast", fast), ("slow", slow)):
            counts = reader.counts
            if (
                counts["last"] != last
                or counts["jumps"]
                or counts["got"] + counts["lost"] != last - counts["first"] + 1
            ):
                faults.append(f"the {name} one does not have everything up to {last}: {counts}")
        if fast.counts["lost"]:
            faults.append(f"the fast one lost {fast.counts['lost']:,} messages")
        if during < LEAST_SHARE * before:
            faults.append("the fast one was slower while the other was stopped")
        if peak - memory > MOST_GROWTH_MB:
            faults.append(f"the broker grew by {peak - memory:.0f} MB")
        print(
            f"{flood.backtests} backtests, {last:,} messages; one stopped for {arguments.seconds:g} s at "
            f"{stopped_at:,}: the fast one got {before:,.0f}, {during:,.0f}, {after:,.0f} a second before, meanwhile, "
            f"after, and lost {fast.counts['lost']}; the slow one got {slow.counts['got']:,} and was told that "
            f"{slow.counts['lost']:,} are lost; the broker had {memory:.0f} MB, at most {peak:.0f} MB; "
            f"{len(faults)} faults"
        )
    for fault in faults:
        print(f"fault: {fault}")
    return 1 if faults else 0


@contextlib.contextmanager
def readers(broker: RunningBroker) -> Iterator[tuple[Reader, Reader]]:
    fast, slow = Reader(broker.connection_file), Reader(broker.connection_file)
    try:
        yield fast, slow
    finally:
        fast.end()
        slow.end()


def read(connection_file: Path) -> None:
    """Read the topic without end, and print the counts ten times a second."""
    first = last = got = lost = jumps = 0
    due = 0.0
    with (
        backtestr.connect(connection_file=connection_file) as client,
        client.subscribe(TOPIC) as prices,
    ):
        while True:
            with contextlib.suppress(TimedOut):
                match prices.next(0.2):
                    case Update(seq=seq):
                        first = first or seq
                        jumps += last not in (0, seq - 1)
                        last = seq
                        got += 1
                    case Gap(from_seq=from_seq, to_seq=to_seq):
                        jumps += from_seq != last + 1
                        lost += to_seq - from_seq + 1
                        last = to_seq
            if time.monotonic() >= due:
                due = time.monotonic() + 0.1
                counts = {"first": first, "last": last, "got": got, "lost": lost, "jumps": jumps}
                print(json.dumps(counts), flush=True)


def rate(reader: Reader, seconds: float) -> float:
    """Return the messages a second that it receives."""
    before, began = reader.counts["got"], time.monotonic()
    time.sleep(seconds)
    return (reader.counts["got"] - before) / (time.monotonic() - began)


def watched(reader: Reader, broker: RunningBroker, seconds: float) -> tuple[float, float]:
    """Return its rate over so long, and the most memory that the broker had meanwhile."""
    before, began, peak = reader.counts["got"], time.monotonic(), 0.0
    while time.monotonic() - began < seconds:
        peak = max(peak, memory_mb(broker))
        time.sleep(0.1)
    return (reader.counts["got"] - before) / (time.monotonic() - began), peak


def memory_mb(broker: RunningBroker) -> float:
    return float(psutil.Process(broker.process.pid).memory_info().rss / 1e6)


def wait_for(holds: Any) -> None:
    """Wait until the condition holds, up to a bound; the comparison that follows finds what is missing."""
    deadline = time.monotonic() + PATIENCE
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
