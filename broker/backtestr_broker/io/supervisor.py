"""The supervisor starts the engine workers, notices when one ends, and starts it again.

It starts it again at once, or within a second, unless it is in a crash loop. Spare workers are started when all others
have been ready.

A `Launch` starts one worker: as a process here, as a thread when the broker is embedded. Either way the worker holds
one end of a lifeline and ends when the other is closed, so no worker outlives its broker, even one that was killed.
What a worker's process has started ends with it (`process_family`).
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from backtestr_broker.core.scheduling.liveness import WELL_AFTER
from backtestr_protocol.system import process_ends, programs
from backtestr_protocol.worker_channel import (
    EXIT_REFUSED,
    EXIT_REPLACED,
    WorkerKind,
    WorkerSettings,
    encode_settings,
)

from .process_family import ProcessFamily

# Seconds by which the start after a worker's n-th early exit in a row is delayed; the last of them from then on. Those
# before a crash loop is proven (`CRASH_LOOP_STAGES`) are below a second.
DELAYS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0)
# Seconds in which a killed process ends, unless its machine is in trouble; the broker does not wait any longer.
KILL_PATIENCE = 0.5
# Seconds that spare workers wait for once all others have been ready: a client that started the broker has its first
# answers by then, and a broker that lives for a second starts no spare.
SPARE_DELAY = 2.0
# Early exits of one worker in a row after which a broker that has not served yet gives up.
MAX_EARLY_EXITS = 4


# The exit code of a process that SIGKILL has ended, where there are signals.
_KILLED = -9


class ExitReason(msgspec.Struct, frozen=True):
    """The reason for which a worker ended, as text.

    `refused`: it refused its settings or configuration, as the next one would. `overdue`: its task used more processor
    time than it is allowed. `replaced`: it ended by itself because a task had left its process in another state.
    `killed`: by SIGKILL, which a program does not get by its own faults.
    """

    reason: str
    refused: bool = False
    overdue: bool = False
    replaced: bool = False
    killed: bool = False


class WorkerHandle(Protocol):
    """One started worker."""

    pid: int

    def ended(self) -> ExitReason | None:
        """Return why it ended; None while it runs."""

    def close_lifeline(self) -> None:
        """Close the lifeline: the worker ends by itself. For a worker that has ended, this side is freed."""

    def kill(self) -> None:
        """Kill it, without waiting for its end, which `ended` reports."""


class Launch(Protocol):
    """Starts one worker. Raises `OSError` where the machine cannot."""

    def __call__(self, settings: WorkerSettings) -> WorkerHandle: ...


class Started(msgspec.Struct, frozen=True):
    """A worker was started. `pid` is 0 where it could not be: then its end follows at once."""

    worker_id: str
    kind: WorkerKind
    pid: int


class Ended(msgspec.Struct, frozen=True):
    """A worker ended, the `early_exits`-th time in a row soon after its start; the next start waits `delay` seconds.

    It was `killed` if SIGKILL has ended it that the broker did not send.
    """

    worker_id: str
    reason: str
    early_exits: int = 0
    delay: float = 0.0
    overdue: bool = False
    killed: bool = False


class _WorkerSlot:
    """A worker that the configuration asks for, or a spare one, whichever process fills it now."""

    def __init__(self, settings: WorkerSettings, *, is_spare: bool = False) -> None:
        self.settings = settings
        self.is_spare = is_spare
        self.handle: WorkerHandle | None = None
        self.started_at = 0.0
        self.start_due: float | None = None if is_spare else 0.0
        self.early_exits = 0
        self.kill_reason: str | None = None

    def ended(self, exit_reason: ExitReason, now: float, *, at_task: bool) -> Ended:
        """Plan the next start: at once after a long run, later after each early exit in a row.

        A worker that ends at a task, or is to be replaced after one, may end as early as its task did.
        """
        delay = 0.0
        if exit_reason.replaced or at_task:
            pass
        elif now - self.started_at < WELL_AFTER:
            delay = DELAYS[min(self.early_exits, len(DELAYS) - 1)]
            self.early_exits += 1
        else:
            self.early_exits = 0
        self.handle = None
        self.start_due = now + delay
        reason, killed = exit_reason.reason, exit_reason.killed
        if self.kill_reason is not None:
            reason, self.kill_reason, killed = self.kill_reason, None, False
        return Ended(self.settings.worker_id, reason, self.early_exits, delay, exit_reason.overdue, killed)


class Supervisor:
    """Keeps one worker running for each slot, as far as it can.

    `is_at_task` says of a worker id whether that worker has a task. `spares` are started after `start_spares`.
    """

    def __init__(
        self,
        launch: Launch,
        workers: Sequence[WorkerSettings],
        is_at_task: Callable[[str], bool],
        spares: Sequence[WorkerSettings] = (),
    ) -> None:
        self._launch = launch
        self._is_at_task = is_at_task
        self._slots = [_WorkerSlot(settings) for settings in workers]
        self._slots += [_WorkerSlot(settings, is_spare=True) for settings in spares]
        self.refused = False  # whether a worker has refused its settings or configuration

    def poll(self, now: float) -> list[Started | Ended]:
        """Return the workers that have ended since the last time, and those that were started in their slots."""
        changes: list[Started | Ended] = []
        for slot in self._slots:
            if slot.handle is not None and (exit_reason := slot.handle.ended()) is not None:
                self.refused = self.refused or exit_reason.refused
                slot.handle.close_lifeline()
                changes.append(slot.ended(exit_reason, now, at_task=self._is_at_task(slot.settings.worker_id)))
            if slot.start_due is not None and slot.start_due <= now:
                changes += self._start(slot, now)
        return changes

    def _start(self, slot: _WorkerSlot, now: float) -> list[Started | Ended]:
        settings = msgspec.structs.replace(slot.settings, early_exits=slot.early_exits)
        slot.started_at, slot.start_due = now, None
        try:
            slot.handle = self._launch(settings)
        except OSError as error:  # the machine is out of memory or processes: like a worker that ends at once
            exit_reason = ExitReason(f"it could not be started: {error.strerror}")
            return [Started(settings.worker_id, settings.kind, pid=0), slot.ended(exit_reason, now, at_task=False)]
        return [Started(settings.worker_id, settings.kind, slot.handle.pid)]

    def start_spares(self, now: float) -> None:
        """Start the spare workers `SPARE_DELAY` from now; from then on they are started again as the others are."""
        for slot in self._slots:
            if slot.is_spare:
                slot.start_due = now + SPARE_DELAY

    def next_deadline(self) -> float | None:
        """Return when the first delayed start is due."""
        return min((slot.start_due for slot in self._slots if slot.start_due is not None), default=None)

    @property
    def early_exits(self) -> int:
        """The most early exits in a row of one worker."""
        return max(slot.early_exits for slot in self._slots)

    @property
    def is_hopeless(self) -> bool:
        """True where waiting will not help: a worker refused its configuration, or exits early every time."""
        return self.refused or self.early_exits >= MAX_EARLY_EXITS

    def kill(self, worker_id: str, reason: str) -> None:
        """Kill a worker's process, if it runs; `poll` reports its end with this reason."""
        for slot in self._slots:
            if slot.settings.worker_id == worker_id and slot.handle is not None:
                slot.kill_reason = reason
                slot.handle.kill()

    def pids(self) -> list[int]:
        """Return the process ids of the workers that run."""
        return [slot.handle.pid for slot in self._slots if slot.handle is not None]

    def stop(self, patience: float, clock: Callable[[], float], pause: Callable[[float], None]) -> None:
        """End every worker: by its lifeline, and after `patience` seconds by force."""
        handles = [slot.handle for slot in self._slots if slot.handle is not None]
        for handle in handles:
            handle.close_lifeline()
        deadline = clock() + patience
        while any(handle.ended() is None for handle in handles) and clock() < deadline:
            pause(0.01)
        left = [handle for handle in handles if handle.ended() is None]
        for handle in left:
            handle.kill()
        deadline = clock() + KILL_PATIENCE
        while any(handle.ended() is None for handle in left) and clock() < deadline:
            pause(0.01)
        for slot in self._slots:
            slot.handle = None


class _Process:
    def __init__(self, process: subprocess.Popen[bytes], family: ProcessFamily | None) -> None:
        self._process = process
        self._family = family
        self.pid = process.pid
        if family is not None:
            family.started(self.pid)

    def ended(self) -> ExitReason | None:
        code = self._process.returncode
        if code is None:
            if not process_ends.has_ended(self._process):
                return None
            if self._family is not None:
                self._family.ended(self.pid)
            code = self._process.wait()
            if self._family is not None:
                self._family.kill_orphans()
        if code == EXIT_REPLACED:
            return ExitReason("a task left its process in another state", replaced=True)
        if process_ends.used_too_much_processor_time(code):
            return ExitReason("killed by SIGXCPU: it used more processor time than its time limit allows", overdue=True)
        reason = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return ExitReason(reason, refused=code == EXIT_REFUSED, killed=code == _KILLED)

    def close_lifeline(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it ended before it had read its settings
                self._process.stdin.close()

    def kill(self) -> None:
        if self._family is not None:
            self._family.killing(self.pid)
        self._process.kill()


def launch_process(
    settings: WorkerSettings, family: ProcessFamily | None = None, on_end: Callable[[], None] | None = None
) -> WorkerHandle:
    """Start `python -m backtestr_engine`, with its settings and the signing key on standard input.

    Neither command line nor environment shows the key, and the pipe is the lifeline. `family` has it end with all that
    it starts. `on_end` is called in another thread when it has ended, where no signal says so. The calling thread must
    live as long as the broker: the system ends a worker with it.
    """
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [sys.executable, "-m", "backtestr_engine"],
        **programs.python(),
        stdin=subprocess.PIPE,
        stdout=sys.stderr.fileno(),  # output of a user's algorithm belongs to the log
        **programs.own_group(),  # Ctrl-C in the terminal is for the broker, which ends its workers itself
    )
    assert process.stdin is not None
    if on_end is not None:
        process_ends.wake_at_end(process, on_end)
    with contextlib.suppress(OSError):  # it ended at once: the next poll reports it
        process.stdin.write(encode_settings(settings))
        process.stdin.flush()
    return _Process(process, family)
