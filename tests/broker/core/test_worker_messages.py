"""Worker messages make workers ready, go to one machine each, or are refused; exits are reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from backtestr_broker.core.events import HostSample, Notify, StartSpares, WorkerExited, WorkerSent
from backtestr_broker.core.scheduling.liveness import CRASH_LOOP_STAGES
from backtestr_protocol import worker_channel
from backtestr_protocol.codec import TO_BROKER, Signer, encode
from backtestr_protocol.errors import AlgorithmError, ErrorData, ValidationError
from backtestr_protocol.messages import SeriesInfo
from backtestr_protocol.system_status import BatchingStatus
from backtestr_protocol.texts import MAX_DETAILS_BYTES, MAX_TEXT_BYTES
from backtestr_protocol.worker_channel import WorkerKind
from support.broker.clients import Client
from support.broker.link import ALGORITHM, HOST, LIMITS, SERIES, Link, Worker, config

MakeLink = Callable[..., Link]
BEAT = worker_channel.Beat(task_id=None)
MARK = worker_channel.ReplayMark(replay_id="r1", current_time=60_000)


def ready(worker: Worker, series: list[SeriesInfo], **changes: Any) -> None:
    message = worker_channel.Ready(
        worker_id=worker.worker_id, pid=1000, kind=worker.kind, algorithms=[ALGORITHM], series=series
    )
    worker.say(msgspec.structs.replace(message, **changes))


def series(symbol: str) -> list[SeriesInfo]:
    return [msgspec.structs.replace(SERIES, symbol=symbol)]


def last_seen(link: Link, worker: Worker) -> float:
    return link.core.scheduler.workers.get(worker.worker_id).last_seen


# --- readiness ---


def test_a_started_worker_is_idle_after_its_ready_message(make_link: MakeLink) -> None:
    link = make_link(start=False)
    worker = link.start_worker("compute-1", "compute", pid=77)
    assert link.core.scheduler.workers.get("compute-1").state == "starting"
    ready(worker, [], beat_interval_ms=2500)
    assert link.core.scheduler.workers.get("compute-1").state == "idle"
    assert link.signals("worker_ready") == [{"workerId": "compute-1", "pid": 77, "kind": "compute"}]
    assert link.core.worker_messages.liveness.of("compute-1").beat_interval == 2.5
    assert [one["algorithmId"] for one in link.client().ask("ListAlgorithms")["algorithms"]] == [ALGORITHM.algorithm_id]


def test_a_worker_that_was_not_started_is_refused_and_registers_nothing(make_link: MakeLink) -> None:
    link = make_link(start=False)
    link.start_worker("interactive-1", "interactive").ready()
    worker = Worker(link, "compute-9" + "x" * 240, "compute", b"unknown")
    ready(worker, [], algorithms=[msgspec.structs.replace(ALGORITHM, name="other", algorithm_id="other@1")])
    (refusal,) = link.signals("message_refused")
    assert refusal["code"] == "VALIDATION_ERROR"
    assert refusal["reason"] == f"no worker {worker.worker_id[:200]!r} is starting"
    assert len(link.signals("worker_ready")) == 1
    assert [one["name"] for one in link.client().ask("ListAlgorithms")["algorithms"]] == [ALGORITHM.name]
    assert not link.core.worker_messages.serving


def test_a_worker_is_ready_once(link: Link, worker: Worker) -> None:
    again = worker_channel.Ready(worker_id="compute-1", pid=1, kind="compute", algorithms=[], series=[])
    link.feed(WorkerSent(worker.peer, worker_channel.encode_to_broker(again), link.wall_ms))
    Worker(link, "compute-1", "compute", b"another").ready()
    assert len(link.signals("worker_ready")) == 2, "of the two workers of the link, and no further one"
    assert [one["reason"] for one in link.signals("message_refused")] == [
        "compute-1 is ready already",
        "no worker 'compute-1' is starting",
    ]


@pytest.mark.parametrize("kinds", [("compute", "interactive"), ("interactive", "compute")])
def test_the_broker_serves_once_a_worker_of_each_kind_is_ready(make_link: MakeLink, kinds: list[WorkerKind]) -> None:
    link = make_link(start=False)
    first, second = (link.start_worker(f"{kind}-1", kind) for kind in kinds)
    link.start_worker(f"{kinds[0]}-2", kinds[0]).ready()
    first.ready()
    assert (link.core.worker_messages.serving, link.signals("serving")) == (False, [])
    second.ready()
    assert (link.core.worker_messages.serving, link.signals("serving")) == (True, [{}])
    assert [signal for signal, _ in link.notices][-2:] == ["worker_ready", "serving"]


def test_spares_are_started_once_when_all_configured_workers_are_ready(make_link: MakeLink) -> None:
    link = make_link(start=False, compute=2)
    for worker_id in ("interactive-1", "compute-1"):
        link.start_worker(worker_id, "compute" if worker_id == "compute-1" else "interactive").ready()
    assert link.core.worker_messages.serving
    assert spares_asked_for(link) == 0
    worker = link.start_worker("compute-2", "compute")
    worker.ready()
    assert spares_asked_for(link) == 1
    link.lose_worker(worker)
    assert spares_asked_for(link) == 1


def spares_asked_for(link: Link) -> int:
    return sum(effect == StartSpares() for effects in link.effects for effect in effects)


def test_a_spare_is_announced_when_it_waits_and_as_ready_when_it_takes_tasks(link: Link, worker: Worker) -> None:
    spare = link.start_worker("compute-2", "compute", pid=77)
    spare.ready()
    facts = {"workerId": "compute-2", "pid": 77, "kind": "compute"}
    assert link.signals("spare_ready") == [facts]
    assert facts not in link.signals("worker_ready")
    link.notices.clear()
    link.lose_worker(worker, again=False)
    assert [signal for signal, _ in link.notices] == ["worker_lost", "worker_ready"]
    assert link.signals("worker_ready") == [facts]


def test_the_broker_still_serves_after_all_workers_are_lost_and_reports_it_once(link: Link) -> None:
    successors = [link.lose_worker(one, again=False) for one in list(link.workers.values())]
    assert link.core.worker_messages.serving
    for one in successors:
        link.start_worker(one.worker_id, one.kind).ready()
    assert link.signals("serving") == [{}]


def test_the_catalogue_at_the_start_is_that_of_the_first_interactive_worker(make_link: MakeLink) -> None:
    link = make_link(start=False)
    compute = link.start_worker("compute-1", "compute")
    first, second = (link.start_worker(f"interactive-{number}", "interactive") for number in (1, 2))
    ready(first, series("FIRST"))
    ready(compute, series("COMPUTE"))
    ready(second, series("SECOND"))
    assert [one.symbol for one in link.core.worker_messages.series_at_start] == ["FIRST"]


# --- messages that are ignored or refused ---


@pytest.mark.parametrize(
    "message",
    [
        BEAT,
        worker_channel.Published(topic="prices.SYNTH.1m", count=1),
        worker_channel.Published(topic="prices.SYNTH.1m", count=1, replay=MARK),
        worker_channel.Paused(task_id="b1"),
        worker_channel.Resumed(task_id="b1"),
        worker_channel.Finished(task_id="b1", outcome="completed"),
    ],
)
def test_messages_of_lost_workers_are_ignored_and_those_of_unknown_peers_are_refused(
    link: Link, ann: Client, worker: Worker, message: worker_channel.ToBroker
) -> None:
    ann.ask("StartBacktest", config(backtestId="b1"))
    link.lose_worker(worker)
    worker.say(message, [b"\xc0"])
    assert link.effects[-1] == []
    Worker(link, "compute-1", "compute", b"unknown").say(message, [b"\xc0"])
    assert link.effects[-1] == [Notify("message_refused", link.signals("message_refused")[0])]
    assert ann.ask("GetBacktestStatus", {"backtestId": "b1"})["status"] == "running"


def unreadable(link: Link, peer: bytes, frames: list[bytes]) -> None:
    link.feed(WorkerSent(peer, frames, link.wall_ms))


def test_unreadable_frames_are_reported_once_a_second_for_each_connection(link: Link) -> None:
    for _ in range(3):
        unreadable(link, b"one", [b"x"])
        unreadable(link, b"two", [])
    assert len(link.signals("message_refused")) == 2
    link.now += 0.99
    unreadable(link, b"one", [b"x"])
    assert len(link.signals("message_refused")) == 2
    link.now += 0.01
    for _ in range(3):
        unreadable(link, b"one", [b"x"])
    assert len(link.signals("message_refused")) == 3


def test_the_report_of_unreadable_frames_has_code_and_reason(link: Link, worker: Worker) -> None:
    seen = last_seen(link, worker)
    link.now += 1.0
    unreadable(link, worker.peer, [])
    unreadable(link, b"other", Signer(bytes(32)).seal(TO_BROKER, worker_channel.encode_to_broker(BEAT)))
    short, forged = link.signals("message_refused")
    assert (short["code"], forged["code"]) == ("IPC_SERIALIZATION_ERROR", "AUTHENTICATION_ERROR")
    assert short["reason"].startswith("on the engine socket: expected the frames message, payload; none came")
    assert forged["reason"].startswith("on the engine socket: ")
    assert last_seen(link, worker) == seen, "unreadable frames are no beat"


def test_the_refusal_of_a_message_that_does_not_fit_names_its_worker(link: Link, worker: Worker) -> None:
    for _ in range(2):
        worker.say(worker_channel.Paused(task_id="b1"))
    first, second = link.signals("message_refused")
    assert first == second
    assert (first["workerId"], first["code"]) == ("compute-1", ValidationError.code)
    assert first["reason"].startswith("compute-1 ")


# --- routes ---


@pytest.fixture
def routed(link: Link, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return the method and the worker id of each message that a machine gets; the machines then do nothing."""
    found: list[tuple[str, str]] = []

    def replace(machine: str, owner: object, method: str) -> None:
        monkeypatch.setattr(owner, method, lambda worker, *_: found.append((f"{machine}.{method}", worker.worker_id)))

    for method in ("published", "paused", "resumed", "lent", "finished"):
        replace("scheduler", link.core.scheduler, method)
    for method in ("published", "steered", "finished"):
        replace("replays", link.core.replays, method)
    return found


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        ("compute", worker_channel.Published(topic="orders.b1", count=1), "scheduler.published"),
        ("interactive", worker_channel.Published(topic="prices.SYNTH.1m", count=1), "scheduler.published"),
        ("compute", worker_channel.Published(topic="prices.SYNTH.1m", count=1, replay=MARK), "replays.published"),
        ("interactive", worker_channel.Published(topic="prices.SYNTH.1m", count=1, replay=MARK), "replays.published"),
        ("compute", worker_channel.Paused(task_id="b1"), "scheduler.paused"),
        ("interactive", worker_channel.Paused(task_id="r1"), "replays.steered"),
        ("compute", worker_channel.Resumed(task_id="b1"), "scheduler.resumed"),
        ("compute", worker_channel.Lent(task_id="b1"), "scheduler.lent"),
        ("interactive", worker_channel.Lent(task_id="r1"), "scheduler.lent"),
        ("interactive", worker_channel.Resumed(task_id="r1"), "replays.steered"),
        ("compute", worker_channel.Finished(task_id="b1", outcome="completed"), "scheduler.finished"),
        ("compute", worker_channel.Finished(task_id="r1", outcome="completed"), "scheduler.finished"),
        ("interactive", worker_channel.Finished(task_id="question-1", outcome="completed"), "scheduler.finished"),
        ("interactive", worker_channel.Finished(task_id="r1", outcome="completed"), "replays.finished"),
    ],
)
def test_a_message_goes_to_one_machine_by_kind_and_mark(
    link: Link,
    ann: Client,
    routed: list[tuple[str, str]],
    kind: WorkerKind,
    message: worker_channel.ToBroker,
    expected: str,
) -> None:
    worker = link.worker(f"{kind}-1")
    link.worker("interactive-1").answers = False
    ann.later("ListMarketData")
    assert link.worker("interactive-1").task_id == "question-1"
    worker.say(message, [b"\xc0"])
    assert routed == [(expected, worker.worker_id)]


@pytest.mark.parametrize("kind", ["compute", "interactive"])
def test_an_error_of_any_length_is_bounded_before_it_is_kept(
    link: Link, ann: Client, kind: WorkerKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[ErrorData | None] = []

    def take(_machine: object, _worker: object, message: worker_channel.Finished, *_: object) -> None:
        errors.append(message.error)

    monkeypatch.setattr(type(link.core.scheduler), "finished", take)
    monkeypatch.setattr(type(link.core.replays), "finished", take)
    error = AlgorithmError("x" * 1_000_000, traceback=["y" * 1_000] * 10_000).to_data(component="engine", timestamp=0)
    link.worker(f"{kind}-1").say(worker_channel.Finished(task_id="r1", outcome="failed", error=error), [])
    (kept,) = errors
    assert kept is not None
    assert kept.message.endswith("… cut: 1,000,000 characters")
    assert len(encode(kept)) <= MAX_TEXT_BYTES + 2 * MAX_DETAILS_BYTES


def test_a_beat_goes_to_no_machine_and_updates_the_figures_of_its_worker(
    link: Link, worker: Worker, routed: list[tuple[str, str]]
) -> None:
    figures = BatchingStatus(size=2, wait_ms=1.0, latency_ms=3.0, messages=4, batches=2)
    link.now += 3.0
    worker.say(worker_channel.Beat(task_id=None, batching={"orders": figures}))
    assert routed == []
    assert link.core.scheduler.workers.get("compute-1").batching == {"orders": figures}
    assert last_seen(link, worker) == link.now


# --- exits ---


def exited(link: Link, worker: Worker, **changes: Any) -> None:
    link.feed(WorkerExited(worker.worker_id, "killed by signal 9", link.wall_ms, **changes))


def test_an_exit_is_reported_with_the_tasks_that_the_worker_had(link: Link, ann: Client, worker: Worker) -> None:
    ann.ask("StartBacktest", config(backtestId="b2"))
    ann.later("PauseBacktest", {"backtestId": "b2"})
    worker.paused()
    ann.ask("StartBacktest", config(backtestId="b1"))
    interactive = link.worker("interactive-1")
    interactive.answers = False
    ann.later("ListMarketData")
    exited(link, worker)
    exited(link, interactive)
    link.start_worker("compute-1", "compute")
    exited(link, worker)
    assert link.signals("worker_lost") == [
        {"workerId": "compute-1", "reason": "killed by signal 9", "held": ["b1", "b2"]},
        {"workerId": "interactive-1", "reason": "killed by signal 9", "held": [interactive.task_id]},
        {"workerId": "compute-1", "reason": "killed by signal 9", "held": []},
    ]


@pytest.mark.parametrize(("overdue", "expected"), [(False, "queued"), (True, "failed")])
def test_an_exit_queues_the_backtest_again_or_ends_it_if_it_was_overdue(
    link: Link, ann: Client, worker: Worker, overdue: bool, expected: str
) -> None:
    ann.ask("StartBacktest", config(backtestId="b1"))
    exited(link, worker, overdue=overdue)
    assert ann.ask("GetBacktestStatus", {"backtestId": "b1"})["status"] == expected


def test_a_crash_loop_is_reported_as_a_fault_at_each_stage(link: Link, worker: Worker) -> None:
    for count in range(1, max(CRASH_LOOP_STAGES) + 2):
        before = len(link.streams["system.errors"])
        exited(link, worker, early_deaths=count, restart_ms=1500)
        errors = [payload["data"] for _, payload in link.streams["system.errors"][before:]]
        assert len(errors) == (count in CRASH_LOOP_STAGES), f"after {count} early exits"
        for error in errors:
            assert error["code"] == "SYSTEM_ERROR"
            assert error["message"].startswith(f"compute-1 has ended {count} times in a row within 10 s of its start")
            assert "killed by signal 9; it is started again after 1.5 s" in error["message"]
            assert link.signals("fault")[-1]["id"] == error["details"]["id"]
        link.start_worker("compute-1", "compute")
    assert len(link.signals("fault")) == len(CRASH_LOOP_STAGES)


# --- liveness ---


def test_a_worker_is_killed_that_neither_beats_nor_uses_processor_time(make_link: MakeLink) -> None:
    link = make_link(start=False)
    beats, works, hangs = (link.start_worker(f"compute-{pid}", "compute", pid=pid) for pid in (1, 2, 3))
    for worker in (beats, works, hangs):
        worker.ready()
    for second in range(LIMITS.worker_hung_ms // 1000 + 5):
        link.host = HostSample(
            memory_used=HOST.memory_used,
            memory_total=HOST.memory_total,
            cpu_percent=HOST.cpu_percent,
            loop_lag_ms=HOST.loop_lag_ms,
            cpu_seconds={1: 1.0, 2: 1.0 + second, 3: 1.0},
        )
        link.advance(1.0)
        beats.say(BEAT)
    ((worker_id, reason),) = link.killed
    assert worker_id == hangs.worker_id
    assert reason.startswith("it was killed: no beat and no processor time for ")
