"""This program compares settings of batching on a mixed load: fixed ones beside the adaptive one.

    make bench-batching

All settings are within the bounds of prices. The load has four parts, each measured at the reader: single messages now
and then, as of a price replay; bursts of twenty; a flood of chunks with a pause for computing between them, as of a
backtest; and single messages while the processors are busy otherwise. The figure of the flood is the time until the
last message was read; of the others, the time within which 95 % of the messages arrived. Every round runs each setting
once, in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import psutil
from pipeline import Source, pipeline
from turns import print_table, ratios

from backtestr_engine.config import load_config
from backtestr_engine.publishing.adaptive_tuning import Tuner
from backtestr_engine.publishing.batching import Batcher, Setting
from backtestr_engine.publishing.payloads import Packer
from backtestr_engine.publishing.record_encoding import EncodedMaps, Number, encode_payloads

FIXED = [(1, 1.0), (10, 1.0), (100, 1.0), (1000, 1.0), (1000, 2.0), (1000, 5.0)]
ADAPTIVE = "adaptive"
BURN = "while True: pass"

Part = Literal["singles", "bursts", "flood", "singles, busy"]
_numbers = itertools.count(1)


def prices(count: int) -> EncodedMaps:
    """Return prices with the time at which they were made, in microseconds of the monotonic clock."""
    now = np.full(count, time.monotonic_ns() // 1000)
    price = Number(np.linspace(100.0, 101.0, count))
    numbers = {"timestamp": Number(now), "bid": price, "ask": price, "last": price, "volume": price}
    return encode_payloads("PriceUpdate", {"symbol": "SYNTH", **numbers, "timeframe": "1m"}, count)


class Worker:
    """A worker with its batcher, which sends due batches and tunes the batcher if it is adaptive."""

    def __init__(self, source: Source, setting: Setting | None) -> None:
        """Set the batcher; `setting` None is adaptive."""
        config = load_config(None)
        self._source = source
        self._batcher = Batcher(config.batching.classes, Packer(config.compression, time.monotonic))
        self._tuner = Tuner(self._batcher) if setting is None else None
        self._interval = config.batching.adapt_interval_ms / 1000
        self._tune_due = 0.0
        if setting is not None:
            self._batcher.set("prices", setting)

    @property
    def setting(self) -> Setting:
        return self._batcher.setting("prices")

    def publish(self, topic: str, count: int) -> None:
        self._source.send(self._batcher.add(topic, prices(count), time.monotonic()))
        self.send_due()

    def send_due(self) -> None:
        now = time.monotonic()
        self._source.send(self._batcher.take(now))
        if self._tuner is not None and now >= self._tune_due:
            self._tune_due = now + self._interval
            backlog = self._source.outbox.qsize() / self._source.outbox.maxsize
            self._tuner.step(backlog=backlog, cpu_percent=psutil.cpu_percent(), sending_ms=1000 * self._source.sending)

    def wait(self, seconds: float) -> None:
        """Wait for so long, sending batches when they are due."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            deadline = self._batcher.next_deadline()
            time.sleep(left if deadline is None else min(left, max(0.0, deadline - time.monotonic())))
            self.send_due()

    def flush(self) -> None:
        self._source.send(self._batcher.flush())


def singles(worker: Worker, topic: str) -> int:
    for _ in range(200):
        worker.publish(topic, 1)
        worker.wait(0.003)
    return 200


def bursts(worker: Worker, topic: str) -> int:
    for _ in range(200):
        worker.publish(topic, 20)
        worker.wait(0.002)
    return 4000


def flood(worker: Worker, topic: str) -> int:
    """Publish 100,000 messages in chunks of 5,000; after each the thread computes for 3 ms."""
    for _ in range(20):
        worker.publish(topic, 5000)
        busy_until = time.monotonic() + 0.003
        while time.monotonic() < busy_until:
            pass
        worker.send_due()
    return 100_000


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Keep every processor busy with a process."""
    others = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(psutil.cpu_count() or 1)]
    yield
    for other in others:
        other.kill()
        other.wait()


LOADS: dict[Part, Callable[[Worker, str], int]] = {
    "singles": singles,
    "bursts": bursts,
    "flood": flood,
    "singles, busy": singles,
}


def measured(source: Source, worker: Worker, part: Part) -> float:
    """Return the seconds until the flood was read, or, of other parts, within which 95 % of the messages arrived."""
    topic = f"prices.N{next(_numbers)}.1m"
    with busy() if part == "singles, busy" else contextlib.nullcontext():
        began = time.monotonic()
        count = LOADS[part](worker, topic)
        worker.flush()
        arrived = source.arrived(topic, count)
    return arrived.at - began if part == "flood" else arrived.p95_ms / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=11, help="times each setting is measured (default 11)")
    arguments = parser.parse_args()
    settings: dict[str, Setting | None] = {f"{most} / {wait:g} ms": Setting(most, wait) for most, wait in FIXED}
    settings[ADAPTIVE] = None
    took: dict[Part, dict[str, list[float]]] = {part: {name: [] for name in settings} for part in LOADS}
    rests: list[Setting] = []
    with pipeline() as source:
        for number in range(arguments.rounds + 1):
            for name, setting in settings.items():
                worker = Worker(source, setting)
                for part in LOADS:
                    seconds = measured(source, worker, part)
                    if number:  # the first round is a warm-up
                        took[part][name].append(seconds)
                rests += [worker.setting] if setting is None else []
    for part, of_part in took.items():
        print_table(part, of_part, dict.fromkeys(of_part, ADAPTIVE))
    print(f"adaptive came to rest at {sorted({(one.messages, round(one.wait_ms, 2)) for one in rests})}")
    print("mean over the parts of the ratio to the best setting of each part, round by round (1: best at everything):")
    for name in settings:
        print(f"  {name:16}{statistics.median(scores(took, name)):6.2f}")


def scores(took: dict[Part, dict[str, list[float]]], name: str) -> list[float]:
    """Return for each round the geometric mean, over the parts, of the time of `name` divided by the best time."""
    by_part = []
    for of_part in took.values():
        best = min(of_part, key=lambda one: statistics.median(of_part[one]))
        by_part.append(ratios(of_part[name], of_part[best]))
    return [statistics.geometric_mean(of_round) for of_round in zip(*by_part, strict=True)]


if __name__ == "__main__":
    main()
