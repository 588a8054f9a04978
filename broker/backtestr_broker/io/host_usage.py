"""Host usage is the memory and processor time of the broker and its workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import psutil

from backtestr_broker.core.events import HostSample, SocketLoad

T = TypeVar("T")


class HostUsage:
    """Samples this process and the given ones; `cpu_percent` is since the last sample, of all cores."""

    def __init__(self, now: float) -> None:
        self._own = psutil.Process()
        self._cores = psutil.cpu_count() or 1
        self._total: int = psutil.virtual_memory().total
        self._processes: dict[int, psutil.Process] = {self._own.pid: self._own}
        self._memory: dict[int, int] = {}
        self._spent: dict[int, float] = {}
        self._sampled = now

    def sample(
        self,
        pids: Iterable[int],
        loop_lag_ms: float,
        now: float,
        *,
        recorder_failed: bool = False,
        sockets: Mapping[str, SocketLoad] | None = None,
        descriptors_exhausted: bool = False,
    ) -> HostSample:
        """Measure now; what the event loop measures itself is passed on.

        A process that has ended is left out. One that cannot be measured, since no file can be opened or it may not be
        read, is taken to be as it was.
        """
        memory: dict[int, int] = {}
        spent: dict[int, float] = {}
        known: dict[int, psutil.Process] = {}
        for pid in {self._own.pid, *pids}:
            try:
                process = self._processes.get(pid) or psutil.Process(pid)
                with process.oneshot():
                    memory[pid] = process.memory_info().rss
                    times = process.cpu_times()
                    spent[pid] = times.user + times.system
                known[pid] = process
            except psutil.NoSuchProcess:
                memory.pop(pid, None)
            except (psutil.Error, OSError):
                _keep(pid, memory, self._memory)
                _keep(pid, spent, self._spent)
                _keep(pid, known, self._processes)
        used = sum(max(0.0, seconds - self._spent.get(pid, seconds)) for pid, seconds in spent.items())
        elapsed = now - self._sampled
        self._processes, self._memory, self._spent, self._sampled = known, memory, spent, now
        return HostSample(
            memory_used=sum(memory.values()),
            memory_total=self._total,
            cpu_percent=100.0 * used / (elapsed * self._cores) if elapsed > 0 else 0.0,
            loop_lag_ms=loop_lag_ms,
            recorder_failed=recorder_failed,
            cpu_seconds=spent,
            sockets=sockets or {},
            descriptors_exhausted=descriptors_exhausted,
        )


def _keep(pid: int, measured: dict[int, T], before: Mapping[int, T]) -> None:
    """Take over what was measured before, if anything was."""
    if pid in before:
        measured[pid] = before[pid]
