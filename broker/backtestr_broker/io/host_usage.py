"""Host usage is the memory and processor time of the broker and its workers."""

from __future__ import annotations

from collections.abc import Iterable

import psutil

from backtestr_broker.core.events import HostSample


class HostUsage:
    """Samples this process and the given ones; `cpu_percent` is since the last sample, of all cores."""

    def __init__(self, now: float) -> None:
        self._own = psutil.Process()
        self._cores = psutil.cpu_count() or 1
        self._total: int = psutil.virtual_memory().total
        self._processes: dict[int, psutil.Process] = {self._own.pid: self._own}
        self._spent: dict[int, float] = {}
        self._sampled = now

    def sample(
        self, pids: Iterable[int], loop_lag_ms: float, now: float, *, recorder_failed: bool = False
    ) -> HostSample:
        """Measure now. `loop_lag_ms` and `recorder_failed` are passed on; a process that has ended is left out."""
        memory = 0
        spent: dict[int, float] = {}
        known: dict[int, psutil.Process] = {}
        for pid in {self._own.pid, *pids}:
            try:
                process = self._processes.get(pid) or psutil.Process(pid)
                with process.oneshot():
                    memory += process.memory_info().rss
                    times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            known[pid] = process
            spent[pid] = times.user + times.system
        used = sum(max(0.0, seconds - self._spent.get(pid, seconds)) for pid, seconds in spent.items())
        elapsed = now - self._sampled
        self._processes, self._spent, self._sampled = known, spent, now
        return HostSample(
            memory_used=memory,
            memory_total=self._total,
            cpu_percent=100.0 * used / (elapsed * self._cores) if elapsed > 0 else 0.0,
            loop_lag_ms=loop_lag_ms,
            recorder_failed=recorder_failed,
            cpu_seconds=spent,
        )
