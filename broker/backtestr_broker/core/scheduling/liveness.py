"""Watch the health of workers: tell lost, hung and busy ones apart, and remember how each has fared.

    lost     its process has ended: the supervisor reports that, and here it is remembered
    hung     no beat and no processor time for `hung` seconds: stopped, or waiting for what does not come
    busy     no beat, but processor time: one call into C may hold Python's lock, and with it the thread that beats,
             for as long as it takes; that is tolerated for up to `silence` seconds

A worker that is hung, or silent for too long, is to be killed: the supervisor does that, and its end is reported as any
other. Time in which the broker itself was suspended, or did not come to look, does not count.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

# A worker that ran for so many seconds was well: its end starts the delays, and the count of early exits, again.
# Early is the exit of one that ran for less, and not at a task: that may be to blame, and has a rule of its own.
WELL_AFTER = 10.0
# Early exits in a row at which a crash loop is reported: when it is proven, and when the delays have come to their end.
CRASH_LOOP_STAGES = (4, 8)
# A beat may be late by this many of its intervals before it is missed.
BEATS = 3
# Between two checks no more than so many intervals between checks are counted.
_LONGEST_STEP = 2.0


class ToKill(msgspec.Struct, frozen=True):
    """A worker that has to be killed, and the reason for people."""

    worker_id: str
    reason: str


class WorkerHealth:
    """The health of one worker, over all its processes. Moments in monotonic seconds."""

    __slots__ = (
        "beat_interval",
        "cpu",
        "early_deaths",
        "lost_at",
        "lost_reason",
        "next_start",
        "replaced",
        "replacements",
        "restarts",
        "silent",
        "started_at",
        "still",
        "to_kill",
    )

    def __init__(self) -> None:
        self.restarts = -1  # the first start does not count
        self.replacements = 0
        self.replaced = False  # whether its last process ended to be replaced
        self.early_deaths = 0
        self.lost_at: float | None = None
        self.lost_reason = ""
        self.next_start: float | None = None  # of one that has ended
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """Begin again with a new process."""
        self.started_at = now
        self.silent = self.still = 0.0  # seconds watched without a beat, without processor time
        self.cpu: float | None = None
        self.beat_interval = 0.0
        self.to_kill = False

    @property
    def has_ended(self) -> bool:
        return self.next_start is not None

    def crash_loops(self, now: float) -> bool:
        """Return true if it ends soon after every start."""
        well = not self.has_ended and now - self.started_at >= WELL_AFTER
        return self.early_deaths >= CRASH_LOOP_STAGES[0] and not well


class Liveness:
    """The health of all workers that the configuration asks for."""

    def __init__(self, *, hung: float, silence: float, interval: float, now: float) -> None:
        """Take all times in seconds; `interval` is that between two checks."""
        self._hung = hung
        self._silence = silence
        self._longest_step = _LONGEST_STEP * interval
        self._checked_at = now
        self._workers: dict[str, WorkerHealth] = {}  # by worker id

    def of(self, worker_id: str) -> WorkerHealth:
        return self._workers[worker_id]

    def items(self) -> list[tuple[str, WorkerHealth]]:
        return list(self._workers.items())

    def started(self, worker_id: str, now: float) -> None:
        health = self._workers.setdefault(worker_id, WorkerHealth())
        health.restarts += 1
        health.next_start = None
        health.begin(now)

    def ready(self, worker_id: str, beat_interval: float) -> None:
        """Expect a beat every so many seconds from now on."""
        self._workers[worker_id].beat_interval = beat_interval
        self.heard(worker_id)

    def heard(self, worker_id: str) -> None:
        self._workers[worker_id].silent = 0.0

    def ended(
        self, worker_id: str, reason: str, early_deaths: int, next_start: float, now: float, *, replaced: bool = False
    ) -> str | None:
        """Take the end of a process, the next of which starts at `next_start`.

        `early_deaths` counts its early exits in a row; it is as before for one that ended at a task, or was replaced.
        One that is `replaced` has ended by itself after a task, for that reason. Returns what to report to people, once
        at each stage of a crash loop.
        """
        health = self._workers[worker_id]
        is_early = early_deaths > health.early_deaths
        health.replaced = replaced
        health.replacements += replaced
        health.lost_at, health.lost_reason = now, reason
        health.early_deaths = early_deaths
        health.next_start = next_start
        if not is_early or early_deaths not in CRASH_LOOP_STAGES:
            return None
        delay = next_start - now
        onwards = " from now on" if early_deaths == CRASH_LOOP_STAGES[-1] else ""
        return (
            f"{worker_id} has ended {early_deaths} times in a row within {WELL_AFTER:g} s of its start, the last time: "
            f"{reason}; it is started again after {delay:.1f} s{onwards}; the log says more"
        )

    def check(self, cpu: Mapping[str, float], now: float) -> list[ToKill]:
        """Watch once more, and return the workers that have to be killed, each once.

        `cpu` has the processor seconds that each worker's process has used; one that cannot be measured counts as
        using some.
        """
        step = min(now - self._checked_at, self._longest_step)
        self._checked_at = now
        to_kill = []
        for worker_id, health in self._workers.items():
            if health.has_ended or health.to_kill:
                continue
            used = cpu.get(worker_id)
            moved = used is None or health.cpu is None or used > health.cpu
            health.cpu = used
            health.silent += step
            health.still = 0.0 if moved else health.still + step
            if (reason := self._verdict(health)) is not None:
                health.to_kill = True
                to_kill.append(ToKill(worker_id, reason))
        return to_kill

    def _verdict(self, health: WorkerHealth) -> str | None:
        patience = max(self._hung, BEATS * health.beat_interval)
        if health.silent >= patience and health.still >= patience:
            return f"it was killed: no beat and no processor time for {health.still:.0f} s"
        if health.silent >= self._silence:
            return (
                f"it was killed: busy and without a beat for {health.silent:.0f} s, in one call that never lets "
                "go of Python (liveness.worker_silence_ms in broker.toml is how long that is tolerated)"
            )
        return None
