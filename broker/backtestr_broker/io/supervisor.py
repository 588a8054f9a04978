"""Starts the engine workers, notices when one ends, and starts it again.

How a worker is started is a `Launch`: as a process here, as a thread when the broker is embedded. Either way the worker
holds one end of a lifeline and ends when the other is closed, so none outlives its broker, even one that was killed.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from backtestr_broker.core.scheduling.liveness import WELL_AFTER
from backtestr_protocol.worker_channel import EXIT_REFUSED, WorkerKind, WorkerSettings

# Seconds that the start after a worker's n-th early death in a row waits; the last of them from then on.
DELAYS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0)


# Seconds in which a process that was killed is gone, unless its machine is in trouble; nobody waits for it any longer.
KILL_PATIENCE = 0.5


class Death(msgspec.Struct, frozen=True):
    """Why a worker ended, for people, and what that says of the next: it would refuse its settings or configuration
    too, or what it worked at is `overdue`, having used more processor time than it is allowed."""

    reason: str
    refused: bool = False
    overdue: bool = False


class WorkerHandle(Protocol):
    """One started worker."""

    pid: int

    def ended(self) -> Death | None:
        """Why it ended; None while it lives."""

    def let_go(self) -> None:
        """Close the lifeline: the worker ends by itself. Of one that has ended, it frees what this side still holds."""

    def kill(self) -> None:
        """Have it end at once, without waiting for that: `ended` tells."""


class Launch(Protocol):
    def __call__(self, settings: WorkerSettings) -> WorkerHandle: ...


class Started(msgspec.Struct, frozen=True):
    worker_id: str
    kind: WorkerKind
    pid: int


class Ended(msgspec.Struct, frozen=True):
    """`early_deaths` counts this death, if it came early; the next start waits `delay` seconds."""

    worker_id: str
    reason: str
    early_deaths: int = 0
    delay: float = 0.0
    overdue: bool = False


class _Place:
    """A worker the configuration asks for, whichever process fills it now."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.handle: WorkerHandle | None = None
        self.started_at = 0.0
        self.start_due: float | None = 0.0
        self.early_deaths = 0
        self.killed_because: str | None = None

    def died(self, death: Death, now: float) -> Ended:
        """Plan the next start: at once after a good life, later after each early death in a row."""
        delay = 0.0
        if now - self.started_at < WELL_AFTER:
            delay = DELAYS[min(self.early_deaths, len(DELAYS) - 1)]
            self.early_deaths += 1
        else:
            self.early_deaths = 0
        self.handle = None
        self.start_due = now + delay
        reason = death.reason
        if self.killed_because is not None:
            reason, self.killed_because = self.killed_because, None
        return Ended(self.settings.worker_id, reason, self.early_deaths, delay, death.overdue)


class Supervisor:
    def __init__(self, launch: Launch, workers: Sequence[WorkerSettings]) -> None:
        self._launch = launch
        self._places = [_Place(settings) for settings in workers]
        self.refused = False  # whether a worker has ended that could not start, and never will

    def poll(self, now: float) -> list[Started | Ended]:
        """What has ended since the last time, and what was started in its place."""
        news: list[Started | Ended] = []
        for place in self._places:
            if place.handle is not None and (death := place.handle.ended()) is not None:
                self.refused = self.refused or death.refused
                place.handle.let_go()
                news.append(place.died(death, now))
            if place.start_due is not None and place.start_due <= now:
                news += self._start(place, now)
        return news

    def _start(self, place: _Place, now: float) -> list[Started | Ended]:
        settings = place.settings
        place.started_at, place.start_due = now, None
        try:
            place.handle = self._launch(settings)
        except OSError as error:  # the machine is out of memory or processes: as good as a worker that died at once
            death = Death(f"it could not be started: {error.strerror}")
            return [Started(settings.worker_id, settings.kind, pid=0), place.died(death, now)]
        return [Started(settings.worker_id, settings.kind, place.handle.pid)]

    def next_deadline(self) -> float | None:
        """When a delayed start is due."""
        return min((place.start_due for place in self._places if place.start_due is not None), default=None)

    @property
    def early_deaths(self) -> int:
        """How often in a row the worker that fares worst has died soon after its start."""
        return max(place.early_deaths for place in self._places)

    def kill(self, worker_id: str, reason: str) -> None:
        """End a worker's process, if it lives; `poll` tells of its end, with this reason."""
        for place in self._places:
            if place.settings.worker_id == worker_id and place.handle is not None:
                place.killed_because = reason
                place.handle.kill()

    def pids(self) -> list[int]:
        return [place.handle.pid for place in self._places if place.handle is not None]

    def stop(self, patience: float, clock: Callable[[], float], pause: Callable[[float], None]) -> None:
        """End every worker: by its lifeline, and after `patience` seconds by force."""
        handles = [place.handle for place in self._places if place.handle is not None]
        for handle in handles:
            handle.let_go()
        deadline = clock() + patience
        while any(handle.ended() is None for handle in handles) and clock() < deadline:
            pause(0.01)
        left = [handle for handle in handles if handle.ended() is None]
        for handle in left:
            handle.kill()
        deadline = clock() + KILL_PATIENCE
        while any(handle.ended() is None for handle in left) and clock() < deadline:
            pause(0.01)
        for place in self._places:
            place.handle = None


class _Process:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def ended(self) -> Death | None:
        code = self._process.poll()
        if code is None:
            return None
        if code == -signal.SIGXCPU:
            return Death("killed by SIGXCPU: it used more processor time than its time limit allows", overdue=True)
        reason = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return Death(reason, refused=code == EXIT_REFUSED)

    def let_go(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it died before it had read its settings
                self._process.stdin.close()

    def kill(self) -> None:
        self._process.kill()


def launch_process(settings: WorkerSettings) -> WorkerHandle:
    """`python -m backtestr_engine` with its settings, the signing key among them, on standard input: neither command
    line nor environment shows the key, and the pipe is the lifeline."""
    process = subprocess.Popen(
        [sys.executable, "-m", "backtestr_engine"],
        stdin=subprocess.PIPE,
        stdout=sys.stderr.fileno(),  # what a user's algorithm prints belongs to the log
        start_new_session=True,  # Ctrl-C in the terminal is for the broker, which ends its workers itself
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died at once: the next poll says so
        process.stdin.write(msgspec.json.encode(settings) + b"\n")
        process.stdin.flush()
    return _Process(process)
