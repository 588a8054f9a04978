"""Host usage is the memory and processor time of this process and of the given ones."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import psutil
import pytest

from backtestr_broker.io.host_usage import HostUsage


class FakeProcess:
    """100 bytes for each pid; `spent` seconds of processor time, by pid."""

    spent: dict[int, float]

    def __init__(self, pid: int | None = None) -> None:
        self.pid = 1 if pid is None else pid
        if self.pid not in self.spent:
            raise psutil.NoSuchProcess(self.pid)

    def oneshot(self) -> FakeProcess:
        return self

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...

    def memory_info(self) -> FakeProcess:
        if self.pid not in self.spent:
            raise psutil.NoSuchProcess(self.pid)
        return self

    @property
    def rss(self) -> int:
        return 100

    def cpu_times(self) -> FakeProcess:
        return self

    @property
    def user(self) -> float:
        return self.spent[self.pid]

    system = 0.0


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Processor seconds by pid, on a machine of two cores; a process that is not in it has ended."""
    FakeProcess.spent = {1: 0.0}
    monkeypatch.setattr(psutil, "Process", FakeProcess)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    return FakeProcess.spent


def test_a_sample_is_the_sum_over_broker_and_workers(spent: dict[int, float]) -> None:
    spent |= {2: 10.0, 3: 20.0}
    usage = HostUsage(now=0.0)
    first = usage.sample([2, 3], loop_lag_ms=3.5, now=1.0)
    assert (first.memory_used, first.cpu_percent, first.loop_lag_ms) == (300, 0.0, 3.5)
    assert first.memory_total == psutil.virtual_memory().total
    spent |= {1: 0.5, 2: 11.0, 3: 20.5}
    second = usage.sample([2, 3], 0.0, now=3.0)
    assert second.cpu_percent == 50.0, "2 of 2 × 2 seconds"
    assert second.cpu_seconds == {1: 0.5, 2: 11.0, 3: 20.5}, "the seconds that each has used since its start"


def test_the_time_of_a_new_worker_counts_from_its_first_sample(spent: dict[int, float]) -> None:
    usage = HostUsage(now=0.0)
    usage.sample([], 0.0, now=1.0)
    spent[2] = 99.0
    assert usage.sample([2], 0.0, now=2.0).cpu_percent == 0.0
    spent[2] = 100.0
    assert usage.sample([2], 0.0, now=3.0).cpu_percent == 50.0


def test_a_worker_that_has_ended_is_left_out(spent: dict[int, float]) -> None:
    spent[2] = 5.0
    usage = HostUsage(now=0.0)
    usage.sample([2], 0.0, now=1.0)
    del spent[2]
    sample = usage.sample([2, 77], 0.0, now=2.0)
    assert (sample.memory_used, sample.cpu_percent) == (100, 0.0)


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), psutil.AccessDenied(2)])
def test_a_process_that_cannot_be_measured_is_as_it_was(
    spent: dict[int, float], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Its figures are in files, and there may be no descriptor left to open one."""
    spent |= {2: 10.0}
    usage = HostUsage(now=0.0)
    usage.sample([2], 0.0, now=1.0)

    def fail(_process: FakeProcess) -> FakeProcess:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(FakeProcess, "memory_info", fail)
        sample = usage.sample([2, 3], 0.0, now=2.0)
    assert (sample.memory_used, sample.cpu_percent, sample.cpu_seconds) == (200, 0.0, {1: 0.0, 2: 10.0})
    spent[2] = 11.0
    assert usage.sample([2], 0.0, now=3.0).cpu_percent == 50.0


def test_a_second_sample_at_the_same_moment_has_no_percentage(spent: dict[int, float]) -> None:
    usage = HostUsage(now=1.0)
    assert usage.sample([1], 0.0, now=1.0).cpu_percent == 0.0


def test_real_processes_have_memory() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        own = HostUsage(0.0).sample([], 0.0, 1.0).memory_used
        both = HostUsage(0.0).sample([child.pid, os.getpid()], 0.0, 1.0).memory_used
        assert child.stdin is not None
        child.stdin.close()
    assert own < both < 2 * psutil.virtual_memory().total
    child.wait()
