"""The thread of the replays: it plays, it ends when its worker does, and a defect of ours ends replays only."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.worker.price_replays import Replays, Sent, Tape
from backtestr_engine.worker.replay_thread import ReplayHost
from backtestr_protocol.worker_channel import (
    Control,
    Finished,
    OpenReplay,
    Paused,
    Published,
    Resumed,
    ToBroker,
)
from support.engine.batches import no_replays

SECONDS = 30.0
TAPE = Tape(
    OpenReplay(
        replay_id="r",
        symbol="SYNTH",
        timeframe="1m",
        start_time=None,
        end_time=None,
        bars_per_second=1000.0,
        speed=None,
        allowed=None,
        paused=True,
    ),
    synthetic_bars("1m", 50),
    1,
)


class Hosted:
    """A host, and what it has sent."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._sent: queue.Queue[ToBroker] = queue.Queue()
        self.host = ReplayHost("interactive-1", no_replays, self._take, self.stopping, lambda: 7)

    def _take(self, sent: Sequence[Sent]) -> None:
        for note, _ in sent:
            self._sent.put(note)

    def next(self) -> ToBroker:
        return self._sent.get(timeout=SECONDS)


@pytest.fixture
def hosted() -> Iterator[Hosted]:
    one = Hosted()
    yield one
    one.stopping.set()
    one.host.join(SECONDS)
    assert not [thread for thread in threading.enumerate() if thread.name == "replays"]


def test_it_plays_to_the_end(hosted: Hosted) -> None:
    hosted.host.put(TAPE)
    hosted.host.put(Control(task_id="r", action="pause"))
    assert hosted.next() == Paused(task_id="r")
    hosted.host.put(Control(task_id="r", action="resume"))
    assert hosted.next() == Resumed(task_id="r")
    count = 0
    while isinstance(note := hosted.next(), Published):
        count += note.count
    assert count == 50
    assert note == Finished(task_id="r", outcome="completed")


def test_a_defect_fails_the_replays_and_the_next_one_plays(
    hosted: Hosted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(Replays, "take", defect)
        hosted.host.put(TAPE)
        hosted.host.put(Control(task_id="r", action="resume"))
        note = hosted.next()
    assert isinstance(note, Finished)
    assert (note.task_id, note.outcome) == ("r", "failed")
    assert note.error is not None
    assert (note.error.code, note.error.timestamp) == ("SYSTEM_ERROR", 7)
    assert note.error.details is not None
    assert note.error.details["id"] in caplog.text
    order = msgspec.structs.replace(TAPE.order, replay_id="next", paused=False)
    hosted.host.put(msgspec.structs.replace(TAPE, order=order))
    assert isinstance(hosted.next(), Published)
