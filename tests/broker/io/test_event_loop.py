"""The event loop serves clients until it is stopped, gives up without workers, and feeds the core what it records."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
import zmq

from backtestr_broker import hooks
from backtestr_broker.broker import Broker
from backtestr_broker.config import BrokerConfig, load_config
from backtestr_broker.core.core import Core
from backtestr_broker.core.durability import Durability
from backtestr_broker.core.events import (
    Effect,
    Event,
    FilesSurveyed,
    HostSample,
    RequestReceived,
    StartAgain,
    Tick,
    WorkerSent,
    WorkerStarted,
)
from backtestr_broker.core.shared_state import SharedState
from backtestr_broker.io import supervisor as supervisor_module
from backtestr_broker.io.database import Database
from backtestr_broker.io.event_loop import BURST, MAX_FAULTS, MOST_OF_ONE, EventLoop
from backtestr_broker.io.host_usage import HostUsage
from backtestr_broker.io.supervisor import MAX_EARLY_EXITS, ExitReason
from backtestr_broker.recording.format import decode_entry
from backtestr_broker.recording.parts import parts_of, read_part
from backtestr_protocol.codec import Signer
from backtestr_protocol.messages import SeriesInfo
from backtestr_protocol.worker_channel import Ready, WorkerSettings, encode_proof
from backtestr_protocol.zmq_frames import send
from support.harness import wait_until
from support.protocol.independent import Fields, Requests

WAIT_MS = 20_000
PEER_OF_WORKER = b"worker-"


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class FakeWorker:
    """A worker that does nothing. Its socket belongs to the thread of the event loop."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], settings: WorkerSettings, pid: int) -> None:
        self.pid = pid
        self.reason: ExitReason | None = None
        self._socket = context.socket(zmq.DEALER)
        self._socket.set(zmq.ROUTING_ID, PEER_OF_WORKER + b"%d" % pid)
        self._socket.connect(settings.endpoint)
        self._settings = settings
        self.worker_id = settings.worker_id
        self.is_killed = False

    def send_ready(self) -> None:
        settings = self._settings
        ready = Ready(worker_id=settings.worker_id, pid=self.pid, kind=settings.kind, algorithms=[], series=[])
        self._socket.send_multipart(encode_proof(Signer(settings.key), ready))

    def ended(self) -> ExitReason | None:
        return self.reason

    def close_lifeline(self) -> None:
        self.reason = self.reason or ExitReason("exit code 0")
        self._socket.close(linger=0)

    def kill(self) -> None:
        self.is_killed = True
        self.reason = ExitReason("killed by signal 9")


class Served:
    """A broker in this process, with fake workers, that `run` runs in a thread of its own."""

    def __init__(self, data_dir: Path, config: BrokerConfig) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.workers: list[FakeWorker] = []
        self.exit_at_once: ExitReason | None = None
        self.serving = threading.Event()
        self.series: list[list[SeriesInfo]] = []
        name = uuid.uuid4().hex
        self.broker = Broker(
            config, data_dir, self.context, lambda socket: f"inproc://{name}/{socket}", self.launch, self.on_serving
        )

    def launch(self, settings: WorkerSettings) -> FakeWorker:
        worker = FakeWorker(self.context, settings, 1000 + len(self.workers))
        self.workers.append(worker)
        if self.exit_at_once is None:
            worker.send_ready()
        else:
            worker.reason = self.exit_at_once
            self.broker.wake()  # as SIGCHLD does
        return worker

    def on_serving(self, series: list[SeriesInfo]) -> None:
        self.series.append(series)
        self.serving.set()

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        thread = threading.Thread(target=self.broker.run)
        thread.start()
        try:
            assert self.serving.wait(WAIT_MS / 1000)
            yield
        finally:
            self.broker.event_loop.stop()
            thread.join()

    def ask(self, type_name: str, data: object, requests: Requests, socket: zmq.Socket[bytes]) -> Fields:
        frames = requests.hello() if type_name == "Hello" else requests.make(type_name, data)
        socket.send_multipart(frames)
        assert socket.poll(WAIT_MS), "no answer came"
        envelope, _ = requests.answer(socket.recv_multipart())
        data_: Fields = envelope["payload"]["data"]
        return data_


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def build(*, recorder: bool = False, spare: int = 0) -> Served:
        config = load_config(None)
        workers = msgspec.structs.replace(config.workers, compute=1, spare=spare)
        options = msgspec.structs.replace(config.recorder, enabled=recorder)
        made.append(Served(tmp_path, msgspec.structs.replace(config, workers=workers, recorder=options)))
        return made[-1]

    yield build
    for one in made:
        one.context.destroy(linger=0)


def test_the_event_loop_serves_until_it_is_stopped_and_closes_every_lifeline(make: Callable[..., Served]) -> None:
    served = make()
    requests = Requests(served.broker.connection.signing.key.reveal(), "ann", now_ms=wall_ms)
    with served.run(), served.context.socket(zmq.DEALER) as socket:
        socket.connect(served.broker.connection.endpoints.requests)
        welcome = served.ask("Hello", None, requests, socket)
        requests.welcomed(welcome)
        assert welcome["instanceId"] == served.broker.connection.instance_id
        assert served.ask("Ping", {}, requests, socket).keys()
    assert not served.broker.event_loop.gave_up
    assert served.series == [[]], "it is called once"
    assert [worker.reason for worker in served.workers] == [ExitReason("exit code 0")] * 2, "none is killed"


def test_every_event_of_the_core_is_recorded_in_order(make: Callable[..., Served], tmp_path: Path) -> None:
    served = make(recorder=True)
    requests = Requests(served.broker.connection.signing.key.reveal(), "ann", now_ms=wall_ms)
    with served.run(), served.context.socket(zmq.DEALER) as socket:
        socket.connect(served.broker.connection.endpoints.requests)
        served.ask("Hello", None, requests, socket)
    (recording,) = (tmp_path / "recordings").iterdir()
    (part,) = parts_of(recording)
    entries = [decode_entry(record) for record in list(read_part(part))[1:]]
    times = [now for now, _ in entries]
    assert times == sorted(times)
    kinds: list[type] = [type(event) for _, event in entries]
    assert kinds.count(WorkerStarted) == kinds.count(WorkerSent) == 2
    assert kinds.index(WorkerStarted) < kinds.index(WorkerSent) < kinds.index(RequestReceived)
    assert set(kinds) <= {WorkerStarted, WorkerSent, RequestReceived, Tick, FilesSurveyed}


def test_requests_of_one_client_are_taken_together_and_answered_in_order(
    make: Callable[..., Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = make(recorder=True)
    handle, opened = Core.handle, threading.Event()
    together: list[list[bool]] = []  # for each time that events came together: one value for each event

    def gated(core: Core, event: Event, now: float, *, goes_on: bool = False) -> list[Effect]:
        if isinstance(event, RequestReceived):
            assert opened.wait(WAIT_MS / 1000)
            together[-1:] = [[*together[-1], goes_on]] if goes_on else [*together[-1:], [goes_on]]
        return handle(core, event, now, goes_on=goes_on)

    with served.run(), served.context.socket(zmq.DEALER) as socket:
        requests = connected(served, socket)
        monkeypatch.setattr(Core, "handle", gated)
        asked = [f"ping-{number}" for number in range(50)]
        for message_id in asked:
            socket.send_multipart(requests.make("Ping", {}, message_id=message_id))
        opened.set()
        answered = []
        for _ in asked:
            assert socket.poll(WAIT_MS), "an answer is missing"
            answered.append(requests.answer(socket.recv_multipart())[0]["correlationId"])
    assert answered == asked
    assert sum(map(len, together)) == 50
    assert max(map(len, together)) == MOST_OF_ONE
    (recording,) = (tmp_path / "recordings").iterdir()
    (part,) = parts_of(recording)
    recorded = [
        event for _, event in map(decode_entry, list(read_part(part))[1:]) if isinstance(event, RequestReceived)
    ]
    assert [message_id for message_id in map(id_of, recorded) if message_id in asked] == asked


def test_the_loop_looks_at_its_other_sockets_after_so_many_messages_of_one(
    make: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = make()
    handle, turn, opened = Core.handle, EventLoop._turn, threading.Event()
    in_turns = [0]

    def gated(core: Core, event: Event, now: float, *, goes_on: bool = False) -> list[Effect]:
        if isinstance(event, RequestReceived):
            assert opened.wait(WAIT_MS / 1000)
            in_turns[-1] += 1
        return handle(core, event, now, goes_on=goes_on)

    def counted(loop: EventLoop, ready: list[Any]) -> None:
        in_turns.append(0)
        turn(loop, ready)

    with served.run(), served.context.socket(zmq.DEALER) as socket:
        requests = connected(served, socket)
        monkeypatch.setattr(Core, "handle", gated)
        monkeypatch.setattr(EventLoop, "_turn", counted)
        for _ in range(300):
            socket.send_multipart(requests.make("Ping", {}))
        opened.set()
        for _ in range(300):
            assert socket.poll(WAIT_MS), "an answer is missing"
            socket.recv_multipart()
    assert sum(in_turns) == 300
    assert MOST_OF_ONE < max(in_turns) < BURST + MOST_OF_ONE


# --- messages to workers that cannot be sent ---


@pytest.mark.parametrize("has_ended", [False, True])
@pytest.mark.parametrize("error", [zmq.EHOSTUNREACH, zmq.EAGAIN])
def test_a_worker_that_lacks_a_message_is_replaced_and_its_task_moves(
    make: Callable[..., Served], monkeypatch: pytest.MonkeyPatch, error: int, has_ended: bool
) -> None:
    """One that has ended is not killed: the true reason comes with its end."""
    monkeypatch.setattr("backtestr_broker.io.event_loop.UNTOLD_SECONDS", WAIT_MS if has_ended else 0.0)
    served = make()
    given: list[list[bytes]] = []  # to workers

    def failing_once(socket: zmq.Socket[bytes], frames: list[bytes]) -> None:
        if not frames[0].startswith(PEER_OF_WORKER):
            send(socket, frames)
            return
        given.append(frames)
        if len(given) > 1:
            send(socket, frames)
            return
        if has_ended:
            (worker,) = (one for one in served.workers if one.worker_id == "interactive-1")
            worker.reason = ExitReason("killed by signal 11")
        raise zmq.ZMQError(error)

    with served.run(), served.context.socket(zmq.DEALER) as socket, observed("worker_lost") as lost:
        requests = connected(served, socket)
        monkeypatch.setattr("backtestr_broker.io.event_loop.send", failing_once)
        socket.send_multipart(requests.make("ListMarketData", {}))
        wait_until(lambda: len(given) == 2, WAIT_MS / 1000)
    (first, *task), (second, *again) = given
    assert task == again
    assert first != second
    expected = "killed by signal 11" if has_ended else "it was killed: a message to it could not be sent"
    assert [one["reason"] for one in lost] == [expected]
    killed = [one.worker_id for one in served.workers if one.is_killed]
    assert killed == ([] if has_ended else ["interactive-1"])


def id_of(request: RequestReceived) -> str:
    message_id: str = msgspec.msgpack.decode(request.frames[1])["id"]
    return message_id


# --- faults ---


class Injected(Exception):
    pass


def failing(*_arguments: object, **_named: object) -> NoReturn:
    raise Injected("on purpose")


@contextlib.contextmanager
def observed(name: str) -> Iterator[list[dict[str, Any]]]:
    """Collect the facts of a hook."""
    facts: list[dict[str, Any]] = []

    def take(_sender: object, **one: Any) -> None:
        facts.append(one)

    with hooks.SIGNALS[name].connected_to(take):
        yield facts


def connected(served: Served, socket: zmq.Socket[bytes]) -> Requests:
    requests = Requests(served.broker.connection.signing.key.reveal(), "ann", now_ms=wall_ms)
    socket.connect(served.broker.connection.endpoints.requests)
    requests.welcomed(served.ask("Hello", None, requests, socket))
    return requests


def test_a_request_at_which_the_core_fails_is_answered_and_the_next_is_served(
    make: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = make()
    with served.run(), served.context.socket(zmq.DEALER) as socket, observed("fault") as faults:
        requests = connected(served, socket)
        with monkeypatch.context() as patch:
            patch.setattr(SharedState, "snapshot", failing)
            error = served.ask("SnapshotState", {"prefix": "secret-prefix"}, requests, socket)
        assert error["code"] == "SYSTEM_ERROR"
        assert served.ask("SnapshotState", {"prefix": ""}, requests, socket)["entries"] == []
    (fault,) = faults
    assert fault["id"] == error["details"]["id"]
    assert "Injected('on purpose')" in fault["raised"]
    assert "SnapshotState" in fault["during"]
    assert served.broker.connection.signing.key.reveal().hex() not in str(fault)
    assert not served.broker.event_loop.starts_again


def test_an_event_that_cannot_be_skipped_ends_the_run_to_start_again(
    make: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = make()
    with observed("starts_again") as started_again, served.run():
        monkeypatch.setattr(Durability, "committed", failing)
        with served.context.socket(zmq.DEALER) as socket:
            requests = connected(served, socket)
            socket.send_multipart(requests.make("UpdateState", {"key": "a", "value": 1}))
            wait_until(lambda: bool(started_again), WAIT_MS / 1000)
    assert served.broker.event_loop.starts_again
    assert "Committed raised Injected('on purpose')" in started_again[0]["reason"]


def test_a_core_that_starts_again_gets_no_further_message_of_a_round(
    make: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = make()
    handle, opened = Core.handle, threading.Event()
    came: list[bool] = []

    def breaking(core: Core, event: Event, now: float, *, goes_on: bool = False) -> list[Effect]:
        if not isinstance(event, RequestReceived):
            return handle(core, event, now, goes_on=goes_on)
        assert opened.wait(WAIT_MS / 1000)
        came.append(goes_on)
        return [StartAgain("it is broken")] if goes_on else handle(core, event, now)

    with observed("starts_again") as started_again, served.run(), served.context.socket(zmq.DEALER) as socket:
        requests = connected(served, socket)
        monkeypatch.setattr(Core, "handle", breaking)
        for _ in range(50):
            socket.send_multipart(requests.make("Ping", {}))
        opened.set()
        wait_until(lambda: bool(started_again), WAIT_MS / 1000)
    assert came[came.index(True) :] == [True], "the second of the round was the last"


def test_an_answer_that_cannot_be_sent_is_lost_alone(
    make: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = make()
    with served.run(), served.context.socket(zmq.DEALER) as socket, observed("fault") as faults:
        requests = connected(served, socket)
        with monkeypatch.context() as patch:
            patch.setattr(EventLoop, "_send", failing)
            socket.send_multipart(requests.make("Ping", {}))
            wait_until(lambda: any(one["during"] == "Reply" for one in faults), WAIT_MS / 1000)
        assert served.ask("Ping", {}, requests, socket).keys()
    assert not served.broker.event_loop.starts_again


def test_a_change_that_the_database_does_not_take_ends_the_run_to_start_again(
    make: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = make()
    with observed("starts_again") as started_again, served.run():
        monkeypatch.setattr(Database, "submit", failing)
        with served.context.socket(zmq.DEALER) as socket:
            requests = connected(served, socket)
            socket.send_multipart(requests.make("UpdateState", {"key": "a", "value": 1}))
            wait_until(lambda: bool(started_again), WAIT_MS / 1000)
    assert "Persist could not be executed" in started_again[0]["reason"]


def test_faults_of_the_loop_are_survived_until_they_come_one_after_the_other(
    make: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = make()
    with observed("fault") as faults, served.run():
        sample, failures = HostUsage.sample, iter(range(3))

        def fail_thrice(*arguments: Any, **named: Any) -> HostSample:
            if next(failures, None) is not None:
                failing()
            return sample(*arguments, **named)

        monkeypatch.setattr(HostUsage, "sample", fail_thrice)
        wait_until(lambda: len(faults) == 3, WAIT_MS / 1000)
        with served.context.socket(zmq.DEALER) as socket:
            connected(served, socket)
        monkeypatch.setattr(HostUsage, "sample", failing)
        wait_until(lambda: served.broker.event_loop.starts_again, WAIT_MS / 1000)
    assert MAX_FAULTS <= len(faults) <= MAX_FAULTS + 3
    assert {one["during"] for one in faults} == {"a turn of the event loop"}


def test_a_broker_that_cannot_say_that_it_serves_does_not_serve(
    make: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = make()
    monkeypatch.setattr(served.broker.event_loop, "_on_serving", failing)
    with pytest.raises(Injected):
        served.broker.run()
    assert [worker.reason for worker in served.workers] == [ExitReason("exit code 0")] * 2


def test_a_spare_worker_is_started_once_the_others_are_ready(
    make: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "SPARE_DELAY", 0.0)
    served = make(spare=1)
    ready = threading.Event()
    announced: list[str] = []

    def on_spare(_sender: object, *, workerId: str, **_facts: object) -> None:
        announced.append(workerId)
        ready.set()

    with hooks.spare_ready.connected_to(on_spare), served.run():
        assert ready.wait(WAIT_MS / 1000)
    assert announced == ["compute-2"]
    assert [worker.worker_id for worker in served.workers] == ["compute-1", "interactive-1", "compute-2"]


def test_the_event_loop_gives_up_where_a_worker_refuses_its_configuration(make: Callable[..., Served]) -> None:
    served = make()
    served.exit_at_once = ExitReason("exit code 2", refused=True)
    served.broker.run()
    assert served.broker.event_loop.gave_up
    assert not served.serving.is_set()


def test_the_event_loop_gives_up_where_workers_exit_early_every_time(
    make: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "DELAYS", (0.0,))
    served = make()
    served.exit_at_once = ExitReason("exit code 1")
    lost: list[str] = []

    def on_lost(_sender: object, *, workerId: str, **_facts: object) -> None:
        lost.append(workerId)

    with hooks.worker_lost.connected_to(on_lost):
        served.broker.run()
    assert served.broker.event_loop.gave_up
    assert lost.count("compute-1") == MAX_EARLY_EXITS
