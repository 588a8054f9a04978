"""A worker that does what a test says: it speaks through the broker's own engine channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from backtestr_broker.events import WorkerSent
from backtestr_protocol import engine
from backtestr_protocol.codec import encode, encoded_payload
from backtestr_protocol.engine import WorkerKind
from backtestr_protocol.errors import BacktestrError
from backtestr_protocol.messages import AlgorithmInfo, SeriesInfo

if TYPE_CHECKING:
    from broker.link import Link

ALGORITHM = AlgorithmInfo(
    algorithm_id="sma_cross@1", name="sma_cross", version="1", description="crosses", parameters=[]
)
SERIES = SeriesInfo(symbol="SYNTH", timeframe="1m", start_time=0, end_time=60_000, bars=2)


class Worker:
    """A scripted worker. What it is told is in `told`; an interactive one answers at once while `answers` is true."""

    def __init__(self, link: Link, worker_id: str, kind: WorkerKind, peer: bytes) -> None:
        self.link = link
        self.worker_id = worker_id
        self.kind: WorkerKind = kind
        self.peer = peer
        self.answers = kind == "interactive"
        self.told: list[tuple[engine.ToWorker, list[bytes]]] = []

    @property
    def task_id(self) -> str:
        """What it was last assigned or told to resume."""
        for note, _ in reversed(self.told):
            if isinstance(note, engine.Assign) or (isinstance(note, engine.Control) and note.action == "resume"):
                return note.task_id
        raise AssertionError(f"{self.worker_id} was told of no task")

    @property
    def controls(self) -> list[tuple[str, str]]:
        return [(note.action, note.task_id) for note, _ in self.told if isinstance(note, engine.Control)]

    @property
    def assigned(self) -> list[engine.Assign]:
        return [note for note, _ in self.told if isinstance(note, engine.Assign)]

    def take(self, frames: list[bytes]) -> None:
        note, payload = engine.decode_to_worker(self.link.signer, frames)
        self.told.append((note, payload))
        if self.answers:
            self.do(note, payload)

    def do(self, note: engine.ToWorker, payload: list[bytes]) -> None:
        """What an interactive worker does with what it is told."""
        match note:
            case engine.Assign(task_id=task_id, work=work):
                self.finish(task_id, data=self.link.answer_to(work, payload[0]))
            case engine.Control(task_id=replay_id, action="pause"):
                self.paused(replay_id)
            case engine.Control(task_id=replay_id, action="resume"):
                self.resumed(replay_id)
            case engine.Control(task_id=replay_id, action="stop"):
                self.finish(replay_id, "stopped")

    def say(self, note: engine.ToBroker, payload: Sequence[bytes] = ()) -> None:
        frames = engine.encode_to_broker(self.link.signer, note, payload)
        self.link.feed(WorkerSent(self.peer, frames, self.link.wall_ms))

    def ready(self) -> None:
        self.say(
            engine.Ready(worker_id=self.worker_id, pid=1000, kind=self.kind, algorithms=[ALGORITHM], series=[SERIES])
        )

    def publish(self, topic: str, *numbers: int, progress: float | None = None) -> None:
        """One message for one number, a batch for several."""
        messages = [{"type": "OrderUpdate", "data": {"n": number}} for number in numbers]
        if len(messages) == 1:
            payload = encode(messages[0])
        else:
            raw = {"count": len(messages), "compression": "none", "rawBytes": 0, "messages": messages}
            payload = encoded_payload("Batch", raw)
        self.say(engine.Published(topic=topic, count=len(messages), progress_percent=progress), [payload])

    def play(self, replay_id: str, count: int = 1, topic: str = "prices.SYNTH.1m") -> None:
        """Bars of a replay, as one payload."""
        message = {"type": "PriceUpdate", "data": {"replayId": replay_id}}
        raw = {"count": count, "compression": "none", "rawBytes": 0, "messages": [message] * count}
        payload = encode(message) if count == 1 else encoded_payload("Batch", raw)
        mark = engine.ReplayMark(replay_id=replay_id, current_time=60_000)
        self.say(engine.Published(topic=topic, count=count, replay=mark), [payload])

    def paused(self, task_id: str | None = None) -> None:
        self.say(engine.Paused(task_id=task_id or self.task_id))

    def resumed(self, task_id: str | None = None) -> None:
        self.say(engine.Resumed(task_id=task_id or self.task_id))

    def finish(
        self,
        task_id: str | None = None,
        outcome: engine.Outcome = "completed",
        *,
        data: Any = None,
        attachments: Sequence[bytes] = (),
    ) -> None:
        payload = [data if isinstance(data, bytes) else encode(data or {}), *attachments]
        self.say(engine.Finished(task_id=task_id or self.task_id, outcome=outcome), payload)

    def fail(self, error: BacktestrError, task_id: str | None = None) -> None:
        data = error.to_data(component="engine", timestamp=self.link.wall_ms)
        self.say(engine.Finished(task_id=task_id or self.task_id, outcome="failed", error=data))
