"""A link whose workers are the engine's task runners: core and engine together, in one thread and without sockets.

A compute worker takes a message or a step when the test lets it (`work`), and what it sends is on its way until the
test delivers it (`deliver`). So listeners, fetches and losses come at any moment. An interactive worker answers at
once.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from backtestr_engine.worker.price_replays import Sent
from backtestr_engine.worker.task_runner import TaskRunner
from backtestr_protocol import topics, worker_channel
from backtestr_protocol.worker_channel import WorkerKind
from support.broker.link import Link
from support.broker.scripted_worker import Worker
from support.engine.tasks import Clock
from support.protocol.independent import Fields, messages_of


class EngineWorker(Worker):
    """A worker that does its tasks as the engine does them."""

    def __init__(self, link: EngineLink, worker_id: str, kind: WorkerKind, peer: bytes) -> None:
        super().__init__(link, worker_id, kind, peer)
        self.engine_link = link
        self.runner = link.new_runner()
        self._inbox: deque[tuple[worker_channel.Task, list[bytes]]] = deque()
        self._wanted: dict[str, bytes] = {}
        self.runner.wanted = lambda backtest_id: self._wanted.pop(backtest_id, None)
        self.on_the_way: deque[Sent] = deque()
        self._clock = Clock(0.01)

    def do(self, message: worker_channel.ToWorker, payload: list[bytes]) -> None:
        """Answer at once, as only an interactive worker is asked to."""
        assert not isinstance(message, worker_channel.Credit | worker_channel.Wanted)
        for sent, frames in self.runner.take(message, payload):
            self.say(sent, frames)

    def take(self, frames: list[bytes]) -> None:
        super().take(frames)
        message, payload = self.received[-1]
        if isinstance(message, worker_channel.Wanted):
            self._wanted[message.task_id] = payload[0]
        elif not self.answers:
            assert not isinstance(message, worker_channel.Credit)
            self._inbox.append((message, payload))

    def work(self) -> bool:
        """Take the next message or step; return False where there is none."""
        if self._inbox:
            message, payload = self._inbox.popleft()
            sent = self.runner.take(message, payload)
            self.on_the_way += sent
            if isinstance(message, worker_channel.Assign) and message.unnumbered:
                self._note_beginning(sent)
        elif self.runner.running:
            self.on_the_way += self.runner.step(self._clock)
        else:
            return False
        self.on_the_way += self.runner.due(self._clock.now)
        return True

    def _note_beginning(self, sent: list[Sent]) -> None:
        """Note if a backtest of an earlier broker goes on from a checkpoint, unless its result was stored."""
        if not any(isinstance(one, worker_channel.Finished) for one, _ in sent):
            stated = [one.progress_at for one, _ in sent if isinstance(one, worker_channel.Continued)]
            self.engine_link.goes_on.append(max(stated[0], default=0) if stated else None)

    def deliver(self, count: int) -> None:
        """Deliver up to so many of the messages that are on their way."""
        while self.on_the_way and count:
            count -= 1
            self.say(*self.on_the_way.popleft())


class EngineLink(Link):
    """A link with one compute worker and one interactive worker of the engine, and without a listener."""

    def __init__(self, new_runner: Callable[[], TaskRunner]) -> None:
        self.new_runner = new_runner
        # For each assignment of an earlier broker's backtest that goes on from a checkpoint, the bars of its progress.
        self.goes_on: list[int | None] = []
        super().__init__(listening=False)

    def start_worker(self, worker_id: str, kind: WorkerKind, pid: int = 1000) -> Worker:
        """Start a worker with a task runner of its own, which is not ready yet."""
        worker = super().start_worker(worker_id, kind, pid)
        engine = self.workers[worker_id] = EngineWorker(self, worker_id, kind, worker.peer)
        return engine

    @property
    def compute(self) -> EngineWorker:
        worker = self.worker("compute-1")
        assert isinstance(worker, EngineWorker)
        return worker

    def settle(self) -> None:
        """Let the compute worker work until nothing is left to do."""
        while self.compute.work() or self.compute.on_the_way:
            self.compute.deliver(100)

    def heard(self) -> dict[str, dict[int, Fields]]:
        """Return every message that a live subscriber got from this broker, by topic and number."""
        found: dict[str, dict[int, Fields]] = defaultdict(dict)
        for topic, published in self.streams.items():
            if topics.backtest_of(topic) is not None:
                for seq, payload in published:
                    found[topic].update(numbered(seq, payload))
        return found


def numbered(seq: int, payload: Any) -> dict[int, Fields]:
    """Return the messages of a payload by number."""
    return dict(enumerate(messages_of(payload), seq))
