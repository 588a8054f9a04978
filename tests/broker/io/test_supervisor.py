"""Workers are started, and again with growing delays after early exits, and end with the broker."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import msgspec
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_broker.broker import worker_settings
from backtestr_broker.config import LogOptions
from backtestr_broker.core.scheduling.liveness import CRASH_LOOP_STAGES, WELL_AFTER
from backtestr_broker.io.process_family import ProcessFamily
from backtestr_broker.io.supervisor import (
    DELAYS,
    KILL_PATIENCE,
    MAX_EARLY_EXITS,
    SPARE_DELAY,
    Ended,
    ExitReason,
    Started,
    Supervisor,
    WorkerHandle,
    launch_process,
)
from backtestr_protocol.secret import Secret
from backtestr_protocol.worker_channel import EXIT_REFUSED, EXIT_REPLACED, WorkerSettings, decode_settings


class Handle:
    def __init__(self, pid: int, *, stubborn: bool = False) -> None:
        self.pid = pid
        self.reason: str | None = None
        self.stubborn = stubborn
        self.unkillable = False
        self.calls: list[str] = []

    def ended(self) -> ExitReason | None:
        if self.reason is None:
            return None
        return ExitReason(self.reason, refused=self.reason == "exit code 2", replaced=self.reason == "replaced")

    def close_lifeline(self) -> None:
        self.calls.append("close lifeline")
        if not self.stubborn:
            self.reason = self.reason or "exit code 0"

    def kill(self) -> None:
        self.calls.append("kill")
        if not self.unkillable:
            self.reason = "killed by signal 9"


class Launcher:
    def __init__(self, *, stubborn: bool = False) -> None:
        self.stubborn = stubborn
        self.launched: list[tuple[str, Handle]] = []

    def __call__(self, settings: WorkerSettings) -> Handle:
        handle = Handle(100 + len(self.launched), stubborn=self.stubborn)
        self.launched.append((settings.worker_id, handle))
        return handle

    @property
    def last(self) -> Handle:
        return self.launched[-1][1]


def never(_worker_id: str) -> bool:
    return False


LOG = LogOptions(level="debug", format="json")
SETTINGS = worker_settings({"compute": 1}, "ipc:///x", Secret(bytes(32)), LOG)


def test_the_settings_name_the_worker_the_endpoint_and_the_key() -> None:
    settings = worker_settings({"compute": 2, "interactive": 1}, "ipc:///engine", Secret(b"\xab" * 32), LOG)
    assert [one.worker_id for one in settings] == ["compute-1", "compute-2", "interactive-1"]
    assert [one.kind for one in settings] == ["compute", "compute", "interactive"]
    assert {(one.endpoint, one.key) for one in settings} == {("ipc:///engine", Secret(b"\xab" * 32))}
    assert {(one.log_level, one.log_format) for one in settings} == {("debug", "json")}


def test_every_worker_is_started_once() -> None:
    launcher = Launcher()
    supervisor = Supervisor(
        launcher, worker_settings({"compute": 1, "interactive": 1}, "e", Secret(bytes(32)), LOG), never
    )
    assert supervisor.next_deadline() == 0.0
    assert supervisor.poll(5.0) == [Started("compute-1", "compute", 100), Started("interactive-1", "interactive", 101)]
    assert supervisor.poll(6.0) == []
    assert supervisor.next_deadline() is None
    assert supervisor.pids() == [100, 101]


def test_a_worker_that_ran_for_long_is_started_again_at_once() -> None:
    launcher = Launcher()
    supervisor = Supervisor(launcher, SETTINGS, never)
    supervisor.poll(0.0)
    launcher.last.reason = "killed by signal 11"
    assert supervisor.poll(WELL_AFTER) == [
        Ended("compute-1", "killed by signal 11"),
        Started("compute-1", "compute", 101),
    ]
    assert supervisor.early_exits == 0
    assert launcher.launched[0][1].calls == ["close lifeline"], "its lifeline is closed on this side too"


def test_early_exits_delay_the_next_start_more_each_time_up_to_the_last() -> None:
    launcher = Launcher()
    supervisor = Supervisor(launcher, SETTINGS, never)
    now = 0.0
    supervisor.poll(now)
    for exits in range(2000):
        launcher.last.reason = "exit code 1"
        delay = DELAYS[min(exits, len(DELAYS) - 1)]
        assert supervisor.poll(now) == [Ended("compute-1", "exit code 1", early_exits=exits + 1, delay=delay)]
        due = supervisor.next_deadline()
        assert due == now + delay
        assert supervisor.early_exits == exits + 1
        assert supervisor.poll(due - 0.001) == []
        now = due
        assert [type(one) for one in supervisor.poll(now)] == [Started]
    assert DELAYS[0] == 0.1
    assert DELAYS[-1] == 10.0


def test_a_worker_that_refuses_its_configuration_is_known_by_its_exit_code() -> None:
    launcher = Launcher()
    supervisor = Supervisor(launcher, SETTINGS, never)
    supervisor.poll(0.0)
    assert not supervisor.refused
    launcher.last.reason = "exit code 2"
    supervisor.poll(1.0)
    assert (supervisor.refused, supervisor.is_hopeless) == (True, True)


def test_several_early_exits_in_a_row_are_hopeless() -> None:
    launcher = Launcher()
    supervisor = Supervisor(launcher, SETTINGS, never)
    now = 0.0
    supervisor.poll(now)
    for exits in range(1, MAX_EARLY_EXITS + 1):
        assert not supervisor.is_hopeless
        launcher.last.reason = "exit code 1"
        supervisor.poll(now)
        assert supervisor.is_hopeless == (exits == MAX_EARLY_EXITS)
        now = supervisor.next_deadline() or 0.0
        supervisor.poll(now)
    launcher.last.reason = "exit code 1"
    supervisor.poll(now + WELL_AFTER)
    assert not supervisor.is_hopeless


@pytest.mark.parametrize(("code", "refused"), [(0, False), (1, False), (EXIT_REFUSED, True)])
def test_one_exit_code_means_that_the_next_worker_would_end_too(
    code: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    python(monkeypatch, f"import sys; sys.stdin.buffer.readline(); sys.exit({code})")
    handle = launch_process(SETTINGS[0])
    assert ended(handle) == ExitReason(f"exit code {code}", refused=refused)
    handle.close_lifeline()


def test_a_worker_that_cannot_be_started_is_tried_again() -> None:
    launcher = Launcher()
    attempts: list[str] = []

    def launch(settings: WorkerSettings) -> Handle:
        attempts.append(settings.worker_id)
        if len(attempts) == 1:
            raise OSError(12, "Cannot allocate memory")
        return launcher(settings)

    supervisor = Supervisor(launch, SETTINGS, never)
    assert supervisor.poll(0.0) == [
        Started("compute-1", "compute", 0),
        Ended("compute-1", "it could not be started: Cannot allocate memory", early_exits=1, delay=DELAYS[0]),
    ]
    assert (supervisor.early_exits, supervisor.next_deadline(), supervisor.pids()) == (1, DELAYS[0], [])
    assert supervisor.poll(DELAYS[0]) == [Started("compute-1", "compute", 100)]


def test_a_long_run_resets_the_early_exits() -> None:
    launcher = Launcher()
    supervisor = Supervisor(launcher, SETTINGS, never)
    supervisor.poll(0.0)
    launcher.last.reason = "exit code 1"
    supervisor.poll(1.0)
    supervisor.poll(2.0)
    launcher.last.reason = "exit code 1"
    supervisor.poll(2.0 + WELL_AFTER)
    assert supervisor.early_exits == 0
    assert len(launcher.launched) == 3


def test_stop_closes_the_lifelines_and_returns_when_all_have_ended() -> None:
    launcher = Launcher()
    supervisor = Supervisor(launcher, worker_settings({"compute": 2}, "e", Secret(bytes(32)), LOG), never)
    supervisor.poll(0.0)
    pauses: list[float] = []
    supervisor.stop(1.5, lambda: 0.0, pauses.append)
    assert [handle.calls for _, handle in launcher.launched] == [["close lifeline"], ["close lifeline"]]
    assert pauses == []
    assert supervisor.pids() == []


def test_stop_kills_a_worker_that_does_not_end_in_time() -> None:
    launcher = Launcher(stubborn=True)
    supervisor = Supervisor(launcher, SETTINGS, never)
    supervisor.poll(0.0)
    clock = [0.0]

    def pause(seconds: float) -> None:
        assert launcher.last.calls == ["close lifeline"]
        clock[0] += seconds

    supervisor.stop(1.5, lambda: clock[0], pause)
    assert launcher.last.calls == ["close lifeline", "kill"]
    assert clock[0] == pytest.approx(1.5, abs=0.02)


def test_stop_waits_for_a_bounded_time_for_a_worker_that_cannot_be_killed() -> None:
    launcher = Launcher(stubborn=True)
    supervisor = Supervisor(launcher, SETTINGS, never)
    supervisor.poll(0.0)
    launcher.last.unkillable = True
    clock = [0.0]

    def pause(seconds: float) -> None:
        clock[0] += seconds

    supervisor.stop(1.5, lambda: clock[0], pause)
    assert launcher.last.calls == ["close lifeline", "kill"]
    assert clock[0] == pytest.approx(1.5 + KILL_PATIENCE, abs=0.03)


def test_a_killed_worker_ends_with_the_reason_for_the_kill() -> None:
    launcher = Launcher(stubborn=True)
    supervisor = Supervisor(launcher, worker_settings({"compute": 2}, "e", Secret(bytes(32)), LOG), never)
    supervisor.poll(0.0)
    supervisor.kill("compute-2", "it was killed: it hung")
    supervisor.kill("compute-3", "no worker has this id")
    assert [handle.calls for _, handle in launcher.launched] == [[], ["kill"]]
    assert supervisor.poll(WELL_AFTER) == [
        Ended("compute-2", "it was killed: it hung"),
        Started("compute-2", "compute", 102),
    ]
    launcher.last.reason = "exit code 1"
    (ended, _) = supervisor.poll(2 * WELL_AFTER)
    assert ended == Ended("compute-2", "exit code 1"), "the reason was for that process alone"
    launcher.last.reason = "exit code 1"
    supervisor.poll(2 * WELL_AFTER)
    supervisor.kill("compute-2", "there is no process now")
    assert supervisor.poll(3 * WELL_AFTER) == [Started("compute-2", "compute", 104)]


def test_a_worker_that_has_ended_is_not_killed() -> None:
    launcher = Launcher(stubborn=True)
    supervisor = Supervisor(launcher, SETTINGS, never)
    supervisor.poll(0.0)
    launcher.last.reason = "exit code 1"
    supervisor.stop(1.5, lambda: 0.0, lambda _seconds: None)
    assert launcher.last.calls == ["close lifeline"]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.5, WELL_AFTER - 0.5, WELL_AFTER + 0.5, 60.0]))))
def test_a_slot_stands_empty_for_a_second_at_most_unless_a_crash_loop_is_proven(ends: list[tuple[bool, float]]) -> None:
    launcher = Launcher()
    at_task = [False]
    supervisor = Supervisor(launcher, SETTINGS, lambda _worker_id: at_task[0])
    now, in_a_row = 0.0, 0
    supervisor.poll(now)
    for at_task[0], seconds in ends:
        now += seconds
        launcher.last.reason = "killed by signal 9"
        ended = supervisor.poll(now)[0]
        assert isinstance(ended, Ended)
        if not at_task[0]:
            in_a_row = in_a_row + 1 if seconds < WELL_AFTER else 0
        assert ended.early_exits == in_a_row
        assert ended.delay < 1.0 or in_a_row > CRASH_LOOP_STAGES[0]
        assert ended.delay == 0.0 or not at_task[0], "its task has its own rule, and the next one is not to blame"
        assert (supervisor.next_deadline() or now) == now + ended.delay
        now += ended.delay
        supervisor.poll(now)
        assert supervisor.pids() == [launcher.last.pid]


def test_ends_at_tasks_neither_prove_a_crash_loop_nor_disprove_one() -> None:
    launcher = Launcher()
    at_task: set[str] = set()
    supervisor = Supervisor(launcher, SETTINGS, at_task.__contains__)
    supervisor.poll(0.0)
    for busy, expected in [(False, 1), (True, 1), (True, 1), (False, 2)]:
        at_task.clear()
        at_task.update(["compute-1"] if busy else ["compute-2"])
        launcher.last.reason = "killed by signal 9"
        supervisor.poll(1.0)
        assert supervisor.early_exits == expected
        supervisor.poll(2.0)


# --- spares ---


def with_a_spare(launcher: Launcher) -> Supervisor:
    workers = worker_settings({"compute": 2}, "e", Secret(bytes(32)), LOG)
    return Supervisor(launcher, workers[:1], never, workers[1:])


def test_a_spare_is_started_a_moment_after_it_is_asked_for() -> None:
    launcher = Launcher()
    supervisor = with_a_spare(launcher)
    assert supervisor.poll(0.0) == [Started("compute-1", "compute", 100)]
    assert supervisor.next_deadline() is None
    assert supervisor.poll(1000.0) == [], "the others are not ready"
    supervisor.start_spares(1000.0)
    assert supervisor.next_deadline() == 1000.0 + SPARE_DELAY
    assert supervisor.poll(1000.0 + SPARE_DELAY - 0.01) == []
    assert supervisor.poll(1000.0 + SPARE_DELAY) == [Started("compute-2", "compute", 101)]


def test_a_spare_is_started_again_as_any_other() -> None:
    launcher = Launcher()
    supervisor = with_a_spare(launcher)
    supervisor.poll(0.0)
    supervisor.start_spares(0.0)
    supervisor.poll(SPARE_DELAY)
    launcher.last.reason = "killed by signal 9"
    assert supervisor.poll(SPARE_DELAY + WELL_AFTER) == [
        Ended("compute-2", "killed by signal 9"),
        Started("compute-2", "compute", 102),
    ]


def test_a_spare_that_was_not_started_ends_with_the_others() -> None:
    launcher = Launcher()
    supervisor = with_a_spare(launcher)
    supervisor.poll(0.0)
    supervisor.stop(1.5, lambda: 0.0, lambda _seconds: None)
    assert [handle.calls for _, handle in launcher.launched] == [["close lifeline"]]


# --- real processes ---


def python(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have `launch_process` start this script instead of the engine."""
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda _command, **options: popen([sys.executable, "-c", script], **options)
    )


def ended(handle: WorkerHandle) -> ExitReason:
    with contextlib.suppress(ChildProcessError):  # it was found to have ended before
        os.waitid(os.P_PID, handle.pid, os.WEXITED | os.WNOWAIT)
    reason = handle.ended()
    assert reason is not None
    return reason


def test_a_process_gets_its_settings_on_its_lifeline_and_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    script = (
        f"import os, sys; os.write({write_end}, sys.stdin.buffer.readline()); rest = sys.stdin.buffer.read(); "
        "sys.exit(7 if rest == b'' else 8)"
    )
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda _command, **options: popen([sys.executable, "-c", script], pass_fds=[write_end], **options),
    )
    handle = launch_process(SETTINGS[0])
    os.close(write_end)
    with os.fdopen(read_end, "rb") as settings:
        assert decode_settings(settings.readline()) == SETTINGS[0]
    assert handle.ended() is None
    handle.close_lifeline()
    assert ended(handle) == ExitReason("exit code 7")
    handle.close_lifeline()


def test_a_killed_process_ends_with_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    python(monkeypatch, "import sys; sys.stdin.buffer.readline(); sys.stdin.buffer.readline()")
    handle = launch_process(SETTINGS[0])
    assert handle.ended() is None
    handle.kill()
    assert ended(handle) == ExitReason("killed by signal 9", killed=True)
    handle.close_lifeline()


def test_the_lifeline_of_a_process_that_never_reads_its_settings_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    python(monkeypatch, "raise SystemExit(4)")
    settings = msgspec.structs.replace(SETTINGS[0], endpoint="x" * 200_000)  # more than a pipe holds
    handle = launch_process(settings)
    assert ended(handle) == ExitReason("exit code 4")
    handle.close_lifeline()


def test_a_worker_that_is_replaced_is_started_again_at_once_and_counts_no_early_exit() -> None:
    launcher = Launcher()
    supervisor = Supervisor(launcher, SETTINGS, never)
    supervisor.poll(0.0)
    launcher.last.reason = "replaced"
    assert supervisor.poll(1.0) == [Ended("compute-1", "replaced"), Started("compute-1", "compute", 101)]
    assert supervisor.early_exits == 0


def test_a_worker_is_told_how_many_before_it_ended_early() -> None:
    told: list[int] = []
    launcher = Launcher()

    def launch(settings: WorkerSettings) -> Handle:
        told.append(settings.early_exits)
        return launcher(settings)

    supervisor = Supervisor(launch, SETTINGS, never)
    for now in (0.0, 1.0, 2.0):
        supervisor.poll(now)
        launcher.last.reason = "exit code 1"
        supervisor.poll(now)
    assert told == [0, 1, 2]


def test_a_process_that_is_to_be_replaced_says_so_by_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    python(monkeypatch, f"import sys; sys.stdin.buffer.readline(); sys.exit({EXIT_REPLACED})")
    handle = launch_process(SETTINGS[0])
    assert ended(handle) == ExitReason("a task left its process in another state", replaced=True)
    handle.close_lifeline()


def test_a_process_is_a_member_of_the_family_until_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    python(monkeypatch, "import sys; sys.stdin.buffer.readline(); sys.stdin.buffer.readline()")
    calls: list[tuple[str, int]] = []

    class Family(ProcessFamily):
        def __init__(self) -> None:
            pass

        def started(self, pid: int) -> None:
            calls.append(("started", pid))

        def killing(self, pid: int) -> None:
            calls.append(("killing", pid))

        def ended(self, pid: int) -> None:
            assert psutil.Process(pid).status() == "zombie", "its number must not be another's yet"
            calls.append(("ended", pid))

        def kill_orphans(self) -> None:
            calls.append(("kill orphans", 0))

    handle = launch_process(SETTINGS[0], Family())
    assert handle.ended() is None
    handle.kill()
    assert ended(handle) == ended(handle) == ExitReason("killed by signal 9", killed=True)
    assert calls == [("started", handle.pid), ("killing", handle.pid), ("ended", handle.pid), ("kill orphans", 0)]
    handle.close_lifeline()
