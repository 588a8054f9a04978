"""A broker with one worker at a time, whose worker is lost and goes on from a checkpoint."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import numpy as np

from backtestr_engine.algorithms.algorithm import algorithm
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.backtest.checkpoint_store import CheckpointStore
from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.library.library import Library
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker.price_replays import Sent
from backtestr_engine.worker.task_runner import TaskRunner
from backtestr_protocol.messages import TableName
from backtestr_protocol.worker_channel import (
    Checkpointed,
    Continued,
    Counted,
    Fetch,
    Published,
)
from support.engine.batches import batcher, messages
from support.engine.tasks import Clock, assign, is_event
from support.protocol.independent import messages_of

TABLES: list[TableName] = ["equity", "orders", "positions", "trades"]
BARS = 600
calls = [0]
_distances = np.zeros(BARS)


@algorithm("counted")
def counted(bars: Bars) -> Signals:
    """Give other signals at each call, with stops in one array for all calls, and count the calls."""
    calls[0] += 1
    _distances[:] = 0.001 * calls[0]
    chance = np.random.default_rng(calls[0]).random((2, len(bars)))
    return Signals.of(entries=chance[0] < 0.2, exits=chance[1] < 0.2, stop_loss=_distances[: len(bars)])


ALGORITHMS = Library({"counted": counted})


class Broker:
    """A broker with one worker at a time, which keeps what it got as the real one does."""

    def __init__(self, catalog: Catalog, folder: Path, conventions: Conventions, asked: Any) -> None:
        self._catalog = catalog
        self._conventions = conventions
        self.results = ResultStore(folder / "results")
        self.checkpoints = CheckpointStore(folder / "checkpoints")
        self.asked = asked
        self.clock = Clock()
        self.streams: dict[str, list[Any]] = defaultdict(list)
        self.numbers: dict[str, int] = defaultdict(int)
        self.progress_at: list[int] = []
        self.losses = 0
        self.percent: float | None = None
        self.unnumbered = self.begun = False
        self.sent: list[Sent] = []
        self.runner = self.new_worker()

    @property
    def backtest_id(self) -> str:
        found: str = self.asked.backtest_id
        return found

    def new_worker(self, chunk_bars: int = 50) -> TaskRunner:
        runner = TaskRunner(
            self._catalog, self.results, self._conventions, chunk_bars, lambda: 1, batcher(), ALGORITHMS
        )
        runner.checkpoints = self.checkpoints
        self.runner = runner
        return runner

    def assign(self, **how: Any) -> list[Sent]:
        sent = assign(
            self.runner,
            self.asked,
            resumes=self.begun,
            unnumbered=self.unnumbered,
            published=dict(self.numbers),
            progress_at=list(self.progress_at),
            losses=self.losses or None,
            **how,
        )
        self.begun = True
        return self.take(sent)

    def step(self, seconds: float) -> list[Sent]:
        self.clock.step = seconds  # a step reads it twice: so long it worked
        return self.take(self.runner.step(self.clock))

    def take(self, sent: list[Sent]) -> list[Sent]:
        for one in sent:
            match one[0]:
                case Published(topic=topic, count=count, progress_percent=percent):
                    self.unnumbered = False
                    self.streams[topic] += messages([one])
                    self.numbers[topic] += count
                    self.percent = max(self.percent or 0.0, percent) if percent is not None else self.percent
                case Counted(counts=counts, progress_at=progress_at):
                    assert not counts, "all topics are heard"
                    self.unnumbered = False
                    self.progress_at += progress_at
                case Continued(numbers=numbers, progress_at=progress_at, progress_percent=percent):
                    assert self.unnumbered
                    assert not self.progress_at
                    self.unnumbered = False
                    self.numbers |= numbers
                    self.progress_at, self.percent = list(progress_at), percent
                case Checkpointed():
                    self.losses = 0
        self.sent += sent
        return sent

    def fetched(self, topic: str, count: int) -> list[Any]:
        """Return the first messages of a topic, as the worker makes them again."""
        found: list[Any] = []
        while len(found) < count:
            fetch = Fetch(task_id="b1", fetch_id=1, topic=topic, from_seq=len(found) + 1, to_seq=count)
            [(_, frames)] = self.runner.take(fetch, [])
            found += [one for each in msgpack.unpackb(frames[0])["messages"] for one in messages_of(each["payload"])]
        return found

    def lose_worker(self) -> None:
        self.losses += 1
        self.new_worker()

    def start_again(self) -> None:
        """Forget everything that no later broker has."""
        self.numbers.clear()
        self.streams.clear()
        self.progress_at, self.percent, self.unnumbered = [], None, True
        self.new_worker()

    def run_out(self, seconds: float = 0.01) -> None:
        while self.runner.running:
            self.step(seconds)

    def events(self) -> dict[str, list[Any]]:
        return {
            topic.partition(".")[0]: [without_id(one["data"]) for one in found if is_event(one)]
            for topic, found in self.streams.items()
            if not topic.startswith("progress.")
        }

    def progress(self) -> list[float]:
        return [one["data"]["progressPercent"] for one in self.streams[f"progress.{self.backtest_id}"]]

    def outcome(self) -> Any:
        results, frames = self.results.read(self.backtest_id, TABLES)
        return frames, msgspec.json.encode(results.metrics)


def without_id(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != "backtestId"}
