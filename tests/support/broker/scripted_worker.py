"""A scripted worker does what a test says, and sends its messages on the real worker channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from backtestr_broker.core.events import WorkerSent
from backtestr_protocol import worker_channel
from backtestr_protocol.codec import decode, encode, encoded_payload
from backtestr_protocol.errors import BacktestrError, NotFound
from backtestr_protocol.messages import AlgorithmInfo, AlgorithmProblem, FetchMissed, SeriesInfo
from backtestr_protocol.worker_channel import WorkerKind

if TYPE_CHECKING:
    from support.broker.link import Link

ALGORITHM = AlgorithmInfo(
    algorithm_id="sma_cross@1", name="sma_cross", version="1", description="crosses", parameters=[]
)
_fetch = msgspec.msgpack.Decoder(FetchMissed)
SERIES = SeriesInfo(symbol="SYNTH", timeframe="1m", start_time=0, end_time=60_000, bars=2)


class Worker:
    """A scripted worker keeps its messages in `received`; an interactive one answers at once if `answers` is true."""

    def __init__(self, link: Link, worker_id: str, kind: WorkerKind, peer: bytes) -> None:
        self.link = link
        self.worker_id = worker_id
        self.kind: WorkerKind = kind
        self.peer = peer
        self.answers = kind == "interactive"
        self.received: list[tuple[worker_channel.ToWorker, list[bytes]]] = []

    @property
    def task_id(self) -> str:
        """The task that it was last assigned or told to resume."""
        for message, _ in reversed(self.received):
            if isinstance(message, worker_channel.Assign) or (
                isinstance(message, worker_channel.Control) and message.action == "resume"
            ):
                return message.task_id
        raise AssertionError(f"{self.worker_id} has no task")

    @property
    def controls(self) -> list[tuple[str, str]]:
        return [
            (message.action, message.task_id)
            for message, _ in self.received
            if isinstance(message, worker_channel.Control)
        ]

    @property
    def assigned(self) -> list[worker_channel.Assign]:
        return [message for message, _ in self.received if isinstance(message, worker_channel.Assign)]

    def take(self, frames: list[bytes]) -> None:
        message, payload = worker_channel.decode_to_worker(frames)
        self.received.append((message, payload))
        if self.answers:
            self.do(message, payload)

    def do(self, message: worker_channel.ToWorker, payload: list[bytes]) -> None:
        """Answer a message as an interactive worker does."""
        match message:
            case worker_channel.Assign(task_id=task_id, work="FetchMissed"):
                asked = decode(_fetch, payload[0])
                if (stored := self.link.stored_streams.get(asked.topic)) is None:
                    self.fail(NotFound("no log of its streams is stored"), task_id)
                else:
                    self.finish(task_id, data=stored(asked))
            case worker_channel.Assign(task_id=task_id, work=work):
                self.finish(task_id, data=self.link.answer_to(work, payload[0]))
            case worker_channel.Control(task_id=replay_id, action="pause"):
                self.paused(replay_id)
            case worker_channel.Control(task_id=replay_id, action="resume"):
                self.resumed(replay_id)
            case worker_channel.Control(task_id=replay_id, action="stop"):
                self.finish(replay_id, "stopped")

    def say(self, message: worker_channel.ToBroker, payload: Sequence[bytes] = ()) -> None:
        if isinstance(message, worker_channel.Ready):  # the first on its connection: it proves the worker
            frames = worker_channel.encode_proof(self.link.signer, message)
        else:
            frames = worker_channel.encode_to_broker(message, payload)
        self.link.feed(WorkerSent(self.peer, frames, self.link.wall_ms))

    def ready(self, problems: Sequence[AlgorithmProblem] = ()) -> None:
        self.say(
            worker_channel.Ready(
                worker_id=self.worker_id,
                pid=1000,
                kind=self.kind,
                algorithms=[ALGORITHM],
                series=[SERIES],
                problems=list(problems),
            )
        )

    def publish(self, topic: str, *numbers: int, progress: float | None = None, shown_by: str | None = None) -> None:
        """Publish one message for one number, or a batch for several.

        `shown_by` names the backtest whose prices these are.
        """
        messages = [{"type": "OrderUpdate", "data": {"n": number}} for number in numbers]
        if len(messages) == 1:
            payload = encode(messages[0])
        else:
            raw = {"count": len(messages), "compression": "none", "rawBytes": 0, "messages": messages}
            payload = encoded_payload("Batch", raw)
        published = worker_channel.Published(
            topic=topic, count=len(messages), progress_percent=progress, task_id=shown_by
        )
        self.say(published, [payload])

    def count(
        self,
        backtest_id: str,
        counts: Mapping[str, int] | None = None,
        *,
        progress_at: Sequence[int] = (),
        progress: float | None = None,
    ) -> None:
        """Count messages by topic, and state at which bars progress is made."""
        self.say(
            worker_channel.Counted(
                task_id=backtest_id, counts=dict(counts or {}), progress_at=list(progress_at), progress_percent=progress
            )
        )

    def play(self, replay_id: str, count: int = 1, topic: str = "prices.SYNTH.1m") -> None:
        """Publish bars of a price replay, as one payload."""
        message = {"type": "PriceUpdate", "data": {"replayId": replay_id}}
        raw = {"count": count, "compression": "none", "rawBytes": 0, "messages": [message] * count}
        payload = encode(message) if count == 1 else encoded_payload("Batch", raw)
        mark = worker_channel.ReplayMark(replay_id=replay_id, current_time=60_000)
        self.say(worker_channel.Published(topic=topic, count=count, replay=mark), [payload])

    def paused(self, task_id: str | None = None) -> None:
        self.say(worker_channel.Paused(task_id=task_id or self.task_id))

    def resumed(self, task_id: str | None = None) -> None:
        self.say(worker_channel.Resumed(task_id=task_id or self.task_id))

    def lent(self, task_id: str | None = None) -> None:
        self.say(worker_channel.Lent(task_id=task_id or self.task_id))

    def finish(
        self,
        task_id: str | None = None,
        outcome: worker_channel.Outcome = "completed",
        *,
        data: Any = None,
        attachments: Sequence[bytes] = (),
    ) -> None:
        payload = [data if isinstance(data, bytes) else encode(data or {}), *attachments]
        self.say(worker_channel.Finished(task_id=task_id or self.task_id, outcome=outcome), payload)

    def fail(self, error: BacktestrError, task_id: str | None = None) -> None:
        data = error.to_data(component="engine", timestamp=self.link.wall_ms)
        self.say(worker_channel.Finished(task_id=task_id or self.task_id, outcome="failed", error=data))
