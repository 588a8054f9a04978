"""The status names each warning and error with its reason; workers that hang or end show in it over the wire."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backtestr_broker.core.clients import sessions
from backtestr_broker.core.events import FilesSurveyed, HostSample, SocketLoad, WorkerExited
from backtestr_broker.core.scheduling.jobs import MAX_LOSSES
from backtestr_broker.core.status import RECENT_SECONDS
from backtestr_protocol import worker_channel
from backtestr_protocol.messages import AlgorithmProblem
from backtestr_protocol.system_status import BatchingStatus, CacheStatus, CompressionStatus
from support.broker.clients import Client
from support.broker.link import BUILD, HOST, LIMITS, Link, Worker, config
from support.broker.steps import MakeLink, start, status


def health(link: Link) -> tuple[str, list[str]]:
    """Return the status and its reasons after a tick."""
    link.tick()
    found = link.client("watcher").ask("GetSystemStatus")
    return found["status"], found.get("reasons", [])


def exit_worker(link: Link, worker_id: str, early_exits: int = 0, restart_ms: int = 0) -> None:
    link.feed(WorkerExited(worker_id, "killed by signal 9", link.wall_ms, early_exits, restart_ms))


# --- thresholds ---


def test_a_broker_with_all_its_workers_is_healthy_and_needs_no_reason(link: Link) -> None:
    assert health(link) == ("healthy", [])


def test_no_worker_of_a_kind_is_an_error(link: Link) -> None:
    link.now += RECENT_SECONDS
    exit_worker(link, "compute-1")
    link.now += RECENT_SECONDS
    assert health(link) == ("error", ["no compute worker is ready"])
    link.start_worker("compute-1", "compute")
    assert health(link) == ("error", ["no compute worker is ready"]), "it is started, and not ready"
    link.worker("compute-1").ready()
    assert health(link) == ("healthy", [])


@pytest.mark.parametrize(("connections", "level"), [(114, "healthy"), (115, "warning"), (127, "warning")])
def test_a_socket_that_is_nearly_full_of_connections_is_a_warning(link: Link, connections: int, level: str) -> None:
    link.host = msgspec.structs.replace(HOST, sockets={"requests": SocketLoad(connections, 127)})
    found, reasons = health(link)
    assert found == level
    assert reasons == (
        [] if level == "healthy" else [f"requests: {connections} of 127 connections; further ones are ended"]
    )


def test_want_of_descriptors_is_a_warning(link: Link) -> None:
    link.host = msgspec.structs.replace(HOST, descriptors_exhausted=True)
    assert health(link) == ("warning", ["the machine or the broker has hardly a file descriptor left"])


def test_a_missing_worker_is_a_warning(make_link: MakeLink) -> None:
    link = make_link(compute=2)
    exit_worker(link, "compute-2")
    link.now += RECENT_SECONDS
    assert health(link) == ("warning", ["1 of 2 compute workers are ready"])


def test_a_damaged_database_is_a_warning_for_as_long_as_the_broker_runs(make_link: MakeLink) -> None:
    link = make_link(start=False)
    link.disk.moved_aside = "the database was damaged"
    link.restart_broker()
    expected = ("warning", ["the database was damaged when the broker started; its log says what is lost"])
    assert health(link) == expected
    link.advance(2)
    assert health(link) == expected


def test_damaged_keys_are_a_warning_until_they_are_set_again(link: Link, ann: Client) -> None:
    ann.ask("UpdateState", {"key": "a.b", "value": 1})
    record = link.core.state.get("a.b")
    msgspec.structs.force_setattr(record, "value", b"\x05")  # the disk's record is the same object
    link.advance(2)
    assert health(link) == ("warning", ["1 keys of the shared state are damaged, set them again: a.b"])
    ann.ask("UpdateState", {"key": "a.b", "value": 1})
    assert health(link) == ("healthy", [])


def test_results_that_cannot_be_counted_are_a_warning(link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(link.disk, "survey", lambda wall_ms: FilesSurveyed({}, [], None, "not a folder", wall_ms))
        ann.refused("ListResults", {})
    assert health(link) == ("warning", ["the results cannot be counted, so none is deleted: not a folder"])
    ann.ask("ListResults", {})
    assert health(link) == ("healthy", [])


def test_the_use_of_the_disk_is_in_the_status(link: Link, ann: Client) -> None:
    link.disk.files["b1"] = (100, 5)
    ann.ask("ListResults", {})
    disk = ann.ask("GetSystemStatus")["disk"]
    assert (disk["results"], disk["resultsBytes"], disk["freeBytes"]) == (1, 100, 1 << 30)


def test_files_of_algorithms_that_are_not_loaded_are_warnings_and_few_are_named(link: Link) -> None:
    link.now += RECENT_SECONDS
    interactive = link.lose_worker(link.worker("interactive-1"), again=False)
    link.now += RECENT_SECONDS
    problems = [AlgorithmProblem(file=f"{number}.py", message=f"{number}.py: " + "x" * 1000) for number in range(9)]
    link.start_worker(interactive.worker_id, "interactive").ready(problems)
    level, reasons = health(link)
    assert level == "warning"
    assert [reason[:35] for reason in reasons[:3]] == [f"an algorithm is not loaded: {n}.py: x" for n in range(3)]
    assert all(len(reason) < 400 for reason in reasons)
    assert reasons[3:] == ["6 more files of algorithms are not loaded; see: backtestr algorithms"]


def test_a_worker_that_is_replaced_says_why_and_is_counted(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    left = worker_channel.Finished(
        task_id="b1", outcome="completed", is_last=True, reason="3 threads were left running"
    )
    worker.say(left, [b"\x80"])
    assert link.states("b1")[-1] == "completed"
    link.feed(WorkerExited("compute-1", "a task left its process in another state", link.wall_ms))
    link.start_worker("compute-1", "compute").ready()
    link.now += 7
    reason = "compute-1 ended 7 s ago: it was replaced after a task: 3 threads were left running"
    assert health(link) == ("warning", [reason])
    assert link.signals("worker_lost")[-1]["reason"] == "it was replaced after a task: 3 threads were left running"
    (found,) = [one for one in ann.ask("GetSystemStatus")["workers"] if one["workerId"] == "compute-1"]
    assert (found["replacements"], found["restarts"]) == (1, 1)
    link.lose_worker(link.worker("compute-1"))
    (found,) = [one for one in ann.ask("GetSystemStatus")["workers"] if one["workerId"] == "compute-1"]
    assert (found["replacements"], found["restarts"]) == (1, 2)


def test_a_worker_that_was_lost_lately_is_a_warning(link: Link, worker: Worker) -> None:
    link.lose_worker(worker)
    link.now += 7
    assert health(link) == ("warning", ["compute-1 was lost 7 s ago: killed by signal 9"])
    link.now += RECENT_SECONDS - 7
    assert health(link) == ("healthy", [])


def test_a_spare_is_shown_as_one_and_counts_for_a_lost_worker(link: Link, worker: Worker) -> None:
    link.start_worker("compute-2", "compute").ready()
    assert {one.worker_id: one.state for one in link.core.status().workers}["compute-2"] == "spare"
    link.lose_worker(worker, again=False)
    assert health(link) == ("warning", ["compute-1 was lost 0 s ago: killed by signal 9"]), "none is missing"
    assert {one.worker_id: one.state for one in link.core.status().workers}["compute-2"] == "idle"
    link.now += RECENT_SECONDS
    assert health(link) == ("healthy", [])


def test_a_crash_loop_is_a_warning_while_it_lasts(link: Link) -> None:
    for early_exits in range(1, 5):
        exit_worker(link, "compute-1", early_exits, 800)
        link.start_worker("compute-1", "compute").ready()
    reason = "compute-1 ends soon after its start, 4 times in a row"
    assert health(link) == ("warning", [reason])
    exit_worker(link, "compute-1", 5, 1600)
    assert health(link) == (
        "error",
        ["no compute worker is ready", reason.replace("4", "5") + "; the next start is in 1.6 s"],
    )
    link.now += 100
    link.start_worker("compute-1", "compute").ready()
    link.now += 10
    assert health(link) == ("healthy", [])


def test_the_status_says_what_is_compiled(link: Link) -> None:
    assert link.core.status().build == BUILD


def test_the_status_has_a_workers_way_of_publishing_until_it_is_lost(link: Link) -> None:
    batching = {"orders": BatchingStatus(size=500, wait_ms=5.0, latency_ms=7.5, messages=1000, batches=2)}
    compression = CompressionStatus(batches=1, bytes_in=1000, bytes_out=100, time_ms=0.5)
    worker = link.worker("compute-1")

    def reported() -> list[tuple[dict[str, BatchingStatus], CompressionStatus | None, CacheStatus | None]]:
        workers = {one.worker_id: one for one in link.core.status().workers}
        one = workers["compute-1"]
        return [(one.batching, one.compression, one.bars_cache)]

    worker.say(worker_channel.Beat(task_id=None))
    assert reported() == [({}, None, None)]
    cache = CacheStatus(hits=3, misses=1, bytes=100, limit_bytes=1000)
    worker.say(worker_channel.Beat(task_id=None, batching=batching, compression=compression, bars_cache=cache))
    assert reported() == [(batching, compression, cache)]
    nothing = link.core.status().decompression
    assert nothing == CompressionStatus(batches=0, bytes_in=0, bytes_out=0, time_ms=0.0)
    link.lose_worker(worker)
    assert reported() == [({}, None, None)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"loop_lag_ms": 250.0}, ("healthy", [])),
        ({"loop_lag_ms": 250.6}, ("warning", ["the broker's loop was away for 251 ms"])),
        ({"loop_lag_ms": 2500.0}, ("warning", ["the broker's loop was away for 2500 ms"])),
        ({"loop_lag_ms": 2501.0}, ("error", ["the broker's loop was away for 2501 ms"])),
        ({"memory_used": 80, "memory_total": 100}, ("healthy", [])),
        (
            {"memory_used": 81, "memory_total": 100},
            ("warning", ["the broker and its workers use 81 % of the machine's memory"]),
        ),
        ({"memory_used": 5, "memory_total": 0}, ("healthy", [])),
    ],
)
def test_a_slow_loop_and_short_memory(link: Link, changes: dict[str, Any], expected: tuple[str, list[str]]) -> None:
    link.host = msgspec.structs.replace(HOST, **changes)
    assert health(link) == expected


def test_queues_that_are_nearly_full_are_a_warning(link: Link) -> None:
    clients = [link.client(name) for name in ("ann", "bob", "carl")]
    start(clients[0], "runs", *(f"a{number}" for number in range(16)))
    assert health(link) == ("healthy", [])
    start(clients[1], "b1", "b2")
    assert health(link) == ("warning", ["backtests: 18 of 20, beyond which there is BUSY"])
    link.worker("interactive-1").answers = False
    for number in range(19):
        clients[0 if number < 17 else 1].later("ListMarketData")
    assert health(link)[1] == [
        "backtests: 18 of 20, beyond which there is BUSY",
        "questions: 18 of 20, beyond which there is BUSY",
    ]


def test_the_limit_of_sessions_is_the_configured_one(make_link: MakeLink) -> None:
    link = make_link(limits=msgspec.structs.replace(LIMITS, max_connections=2))
    ann = link.client("ann")
    assert ann.ask("GetSystemStatus")["connections"]["limit"] == 2
    link.client("bob")
    refused = link.raw_client("carl").send("Hello", {"clientId": "carl", "protocolVersions": [1]})
    assert refused[0]["payload"]["data"]["code"] == "BUSY"


def test_a_nearly_full_table_of_sessions_is_a_warning(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 10)
    for number in range(8):
        link.client(f"client {number}")
    assert health(link) == ("warning", ["sessions: 9 of 10, beyond which there is BUSY"])


def test_a_disk_that_fails_is_an_error(link: Link, ann: Client) -> None:
    with link.full_disk():
        assert ann.refused("UpdateState", {"key": "a", "value": 1})["code"] == "SYSTEM_ERROR"
        assert health(link) == ("error", ["the disk cannot be written to: nothing that has to be on it is accepted"])
    assert ann.ask("UpdateState", {"key": "a", "value": 1})
    assert health(link) == ("healthy", [])


def test_the_worst_reason_is_first(make_link: MakeLink) -> None:
    link = make_link(compute=2)
    exit_worker(link, "compute-1")
    exit_worker(link, "interactive-1")
    link.now += RECENT_SECONDS
    assert health(link) == ("error", ["no interactive worker is ready", "1 of 2 compute workers are ready"])


def test_reasons_are_published_with_the_heartbeat(link: Link) -> None:
    link.host = msgspec.structs.replace(HOST, loop_lag_ms=300.0)
    link.advance(1.0)
    _, payload = link.streams["system.status"][-1]
    assert payload["data"]["reasons"] == ["the broker's loop was away for 300 ms"]


def test_the_last_heartbeat_is_that_of_the_stream(link: Link, ann: Client) -> None:
    link.advance(1.0)
    (_, first), (_, second) = link.streams["system.status"][-2:]
    beat = second["data"]["lastHeartbeat"]
    assert beat - first["data"]["lastHeartbeat"] == LIMITS.heartbeat_interval_ms
    link.now += 0.7
    asked = ann.ask("GetSystemStatus")
    assert asked["lastHeartbeat"] == beat < link.wall_ms


# --- workers ---


class Watched:
    """A link with workers that use processor time while in `working`, and beat while in `beating`."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.cpu = {"compute-1": 1.0, "interactive-1": 1.0}
        self.beating = {"interactive-1"}
        self.working: set[str] = set()

    def advance(self, seconds: int) -> None:
        for _ in range(seconds):
            for worker_id in sorted(self.beating):
                self.link.worker(worker_id).say(worker_channel.Beat(task_id=None))
            for worker_id in self.working:
                self.cpu[worker_id] += 0.5
            used = {self.link.core.scheduler.workers.get(one).pid: spent for one, spent in self.cpu.items()}
            self.link.host = HostSample(**{**msgspec.structs.asdict(HOST), "cpu_seconds": used})
            self.link.advance(1.0)


@pytest.fixture
def watched(make_link: MakeLink) -> Watched:
    link = make_link(start=False)
    for pid, (worker_id, kind) in enumerate((("compute-1", "compute"), ("interactive-1", "interactive")), 1):
        link.start_worker(worker_id, kind, pid=pid).ready()  # type: ignore[arg-type]
    return Watched(link)


def test_a_busy_worker_is_not_killed_and_its_silence_is_reported(watched: Watched) -> None:
    link = watched.link
    ann = link.client("ann")
    start(ann, "b1")
    watched.working.add("compute-1")
    watched.advance(60)
    assert link.killed == []
    assert health(link) == ("warning", ["compute-1 has not been heard of for 60 s and is busy"])
    link.worker("compute-1").finish("b1")
    assert status(link.client("ann"), "b1") == "completed"
    watched.advance(1)
    assert health(link) == ("healthy", [])


def test_a_hung_worker_is_killed_once_and_its_job_moves(watched: Watched) -> None:
    link = watched.link
    start(link.client("ann"), "b1")
    watched.advance(14)
    assert link.killed == []
    status_now, (reason,) = health(link)
    assert (status_now, reason) == ("warning", "compute-1 has not been heard of for 14 s and uses no processor time")
    watched.advance(5)
    ((worker_id, why),) = link.killed
    assert worker_id == "compute-1"
    assert "no beat and no processor time" in why
    assert status(link.client("ann"), "b1") == "running", "until it has ended"
    successor = link.lose_worker(link.worker("compute-1"))
    assert successor.task_id == "b1"
    successor.finish()
    assert status(link.client("ann"), "b1") == "completed"
    watched.beating.add("compute-1")
    watched.advance(100)
    assert len(link.killed) == 1


def test_a_busy_worker_that_never_beats_is_killed(watched: Watched) -> None:
    watched.working.add("compute-1")
    watched.advance(598)
    assert watched.link.killed == []
    watched.advance(5)
    ((_, why),) = watched.link.killed
    assert "busy and without a beat" in why


def test_the_times_until_a_worker_is_killed_can_be_set(make_link: MakeLink) -> None:
    link = make_link(limits=msgspec.structs.replace(LIMITS, worker_silence_ms=20_000))
    link.advance(19.0)
    assert link.killed == []
    link.advance(2.0)
    assert sorted(worker_id for worker_id, _ in link.killed) == ["compute-1", "interactive-1"]


def test_a_crash_loop_is_reported_once_a_stage_without_a_flood_of_errors(link: Link) -> None:
    for early_exits in range(1, 30):
        exit_worker(link, "compute-1", early_exits, 10_000)
        link.start_worker("compute-1", "compute")
    messages = [payload["data"]["message"] for _, payload in link.streams["system.errors"]]
    assert len(messages) == 2
    assert all("compute-1 has ended" in message for message in messages)
    assert len(link.signals("fault")) == 2


def test_the_status_of_a_worker_has_its_exits_and_restarts(link: Link, ann: Client) -> None:
    exit_worker(link, "compute-1", 2, 400)
    lost = next(one for one in ann.ask("GetSystemStatus")["workers"] if one["workerId"] == "compute-1")
    assert (lost["state"], lost["earlyDeaths"], lost["nextStartMs"]) == ("lost", 2, 400)
    link.now += 0.4
    link.start_worker("compute-1", "compute").ready()
    again = next(one for one in ann.ask("GetSystemStatus")["workers"] if one["workerId"] == "compute-1")
    assert (again["state"], again["restarts"]) == ("idle", 1)
    assert "nextStartMs" not in again


def test_a_backtest_whose_workers_are_killed_again_and_again_fails(watched: Watched) -> None:
    link = watched.link
    ann = link.client("ann")
    ann.ask("StartBacktest", config(backtestId="b1"))
    for _ in range(MAX_LOSSES + 1):
        watched.advance(20)
        worker_id, why = link.killed[-1]
        link.feed(WorkerExited(worker_id, why, link.wall_ms))
        link.start_worker("compute-1", "compute", pid=1).ready()
    assert len(link.killed) == MAX_LOSSES + 1
    failed = link.client("ann").ask("GetBacktestStatus", {"backtestId": "b1"})
    assert failed["status"] == "failed"
    assert "no beat" in failed["error"]["message"]
