"""Whether workers live: dead, hung and busy told apart, and what has become of each so far.

    dead     its process has ended: the supervisor says so, and this is where it is remembered
    hung     no word of it and no processor time for `hung` seconds: stopped, or waiting for what does not come
    busy     no word of it, but processor time: one call into C may hold Python's lock, and with it the thread that
             beats, for as long as it takes; that is endured up to `silence` seconds

A worker that is hung, or silent for too long, is condemned: the shell kills it, and its death comes back as any other.
Silence counts in seconds that this broker was awake to listen: when it was suspended, or away itself, nobody is guilty.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

# A worker that lived this long was well: its death starts the delays, and the count of early deaths, anew.
WELL_AFTER = 10.0
# Early deaths in a row at which a crash loop is reported: when it is one, and when the delays have come to their end.
CRASH_LOOP_STAGES = (4, 8)
# A beat may be late by this many of its intervals before it is missed.
BEATS = 3
# Between two looks no more than so many intervals between looks are counted.
_LONGEST_STEP = 2.0


class Condemned(msgspec.Struct, frozen=True):
    worker_id: str
    reason: str


class Life:
    """What is known of one worker, over all the processes that were it. Moments in monotonic seconds."""

    __slots__ = (
        "beat_interval",
        "condemned",
        "cpu",
        "early_deaths",
        "lost_at",
        "lost_reason",
        "next_start",
        "restarts",
        "silent",
        "started_at",
        "still",
    )

    def __init__(self) -> None:
        self.restarts = -1  # the first start is none
        self.early_deaths = 0
        self.lost_at: float | None = None
        self.lost_reason = ""
        self.next_start: float | None = None  # of one that has ended
        self.begin(0.0)

    def begin(self, now: float) -> None:
        self.started_at = now
        self.silent = self.still = 0.0  # seconds watched without a word, without processor time
        self.cpu: float | None = None
        self.beat_interval = 0.0
        self.condemned = False

    @property
    def has_ended(self) -> bool:
        return self.next_start is not None

    def crash_loops(self, now: float) -> bool:
        """Whether it ends soon after every start."""
        well = not self.has_ended and now - self.started_at >= WELL_AFTER
        return self.early_deaths >= CRASH_LOOP_STAGES[0] and not well


class Liveness:
    def __init__(self, *, hung: float, silence: float, interval: float, now: float) -> None:
        """All in seconds; `interval` is that between two looks."""
        self._hung = hung
        self._silence = silence
        self._longest_step = _LONGEST_STEP * interval
        self._looked_at = now
        self._lives: dict[str, Life] = {}  # of the workers that the configuration names

    def of(self, worker_id: str) -> Life:
        return self._lives[worker_id]

    def items(self) -> list[tuple[str, Life]]:
        return list(self._lives.items())

    def started(self, worker_id: str, now: float) -> None:
        life = self._lives.setdefault(worker_id, Life())
        life.restarts += 1
        life.next_start = None
        life.begin(now)

    def ready(self, worker_id: str, beat_interval: float) -> None:
        """It can work, and will be heard of every so many seconds."""
        self._lives[worker_id].beat_interval = beat_interval
        self.heard(worker_id)

    def heard(self, worker_id: str) -> None:
        self._lives[worker_id].silent = 0.0

    def ended(self, worker_id: str, reason: str, early_deaths: int, next_start: float, now: float) -> str | None:
        """Its process has ended, the `early_deaths`th time in a row soon after its start, and is started again at
        `next_start`. What people should be told, at each stage of a crash loop once."""
        life = self._lives[worker_id]
        life.lost_at, life.lost_reason = now, reason
        life.early_deaths = early_deaths
        life.next_start = next_start
        if early_deaths not in CRASH_LOOP_STAGES:
            return None
        delay = next_start - now
        onwards = " from now on" if early_deaths == CRASH_LOOP_STAGES[-1] else ""
        return (
            f"{worker_id} has ended {early_deaths} times in a row within {WELL_AFTER:g} s of its start, the last time: "
            f"{reason}; it is started again after {delay:.1f} s{onwards}; the log says more"
        )

    def look(self, cpu: Mapping[str, float], now: float) -> list[Condemned]:
        """Watch once more. `cpu`: the processor seconds that each worker's process has used; one that cannot be
        measured counts as using some. Returns whom to kill, each once."""
        step = min(now - self._looked_at, self._longest_step)
        self._looked_at = now
        condemned = []
        for worker_id, life in self._lives.items():
            if life.has_ended or life.condemned:
                continue
            used = cpu.get(worker_id)
            moved = used is None or life.cpu is None or used > life.cpu
            life.cpu = used
            life.silent += step
            life.still = 0.0 if moved else life.still + step
            if (reason := self._verdict(life)) is not None:
                life.condemned = True
                condemned.append(Condemned(worker_id, reason))
        return condemned

    def _verdict(self, life: Life) -> str | None:
        patience = max(self._hung, BEATS * life.beat_interval)
        if life.silent >= patience and life.still >= patience:
            return f"it was killed: no sign of life and no processor time for {life.still:.0f} s"
        if life.silent >= self._silence:
            return (
                f"it was killed: busy and without a sign of life for {life.silent:.0f} s, in one call that never lets "
                "go of Python (liveness.worker_silence_ms in broker.toml is how long that is endured)"
            )
        return None
