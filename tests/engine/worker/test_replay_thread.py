"""The replay thread publishes bars and ends with its worker, and a defect ends price replays only."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.worker.price_replays import PriceReplays, ReplayBars, Sent
from backtestr_engine.worker.replay_thread import ReplayThread
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
REPLAY = ReplayBars(
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
    """A replay thread, and the messages that it has sent."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._sent: queue.Queue[ToBroker] = queue.Queue()
        self.thread = ReplayThread("interactive-1", no_replays, self._take, self.stopping, lambda: 7)

    def _take(self, sent: Sequence[Sent]) -> None:
        for message, _ in sent:
            self._sent.put(message)

    def next(self) -> ToBroker:
        return self._sent.get(timeout=SECONDS)


@pytest.fixture
def hosted() -> Iterator[Hosted]:
    one = Hosted()
    yield one
    one.stopping.set()
    one.thread.join(SECONDS)
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("-replays")]


def test_all_bars_are_published(hosted: Hosted) -> None:
    hosted.thread.put(REPLAY)
    hosted.thread.put(Control(task_id="r", action="pause"))
    assert hosted.next() == Paused(task_id="r")
    hosted.thread.put(Control(task_id="r", action="resume"))
    assert hosted.next() == Resumed(task_id="r")
    count = 0
    while isinstance(message := hosted.next(), Published):
        count += message.count
    assert count == 50
    assert message == Finished(task_id="r", outcome="completed")


def test_a_defect_fails_the_price_replays_and_the_next_one_is_published(
    hosted: Hosted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(PriceReplays, "take", defect)
        hosted.thread.put(REPLAY)
        hosted.thread.put(Control(task_id="r", action="resume"))
        message = hosted.next()
    assert isinstance(message, Finished)
    assert (message.task_id, message.outcome) == ("r", "failed")
    assert message.error is not None
    assert (message.error.code, message.error.timestamp) == ("SYSTEM_ERROR", 7)
    assert message.error.details is not None
    assert message.error.details["id"] in caplog.text
    settings = msgspec.structs.replace(REPLAY.settings, replay_id="next", paused=False)
    hosted.thread.put(msgspec.structs.replace(REPLAY, settings=settings))
    assert isinstance(hosted.next(), Published)
