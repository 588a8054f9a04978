"""Replaying a recording: a core is given the recorded events at the recorded times, and has the same effects and state.

Where events are missing (a part was rotated away, one was too large to record) the state after them is not known: from
there on a step has no effects, and the story only what clients and workers said.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from backtestr_broker.core.core import Core
from backtestr_broker.core.events import Event
from backtestr_protocol import __version__
from backtestr_protocol.errors import did_you_mean
from backtestr_protocol.inspection import RecordedJob, RecordedSession, ReplayedLog, StoryLine

from .format import Skipped, Unreadable, new_core, read_entries, read_header
from .timeline import Line, Step, Subject, Timeline

_encode = msgspec.msgpack.Encoder().encode


class Playback:
    """Iterate it for the steps; afterwards the rest says what became of the core."""

    def __init__(self, parts: Iterable[tuple[str, bytes]]) -> None:
        """`parts`: names and contents, in order. Each is read when the one before it is done with."""
        self._parts = parts
        self.core: Core | None = None  # as it was after the last event that it was given
        self.instance_id = self.version = ""
        self.events = self.replayed = 0
        self.first: tuple[float, int] | None = None  # monotonic and wall-clock time of the first event
        self.last_wall_ms: int | None = None
        self.problems: list[str] = []
        self._digest = hashlib.sha256()
        self._knows_state = False
        self._next_part = 1

    @property
    def effects_digest(self) -> str:
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[Step]:
        for name, data in self._parts:
            self._open(name, data)
            try:
                for now, event in read_entries(data):
                    yield self._step(now, event)
            except Unreadable as error:
                self._lose_state(f"{name}: {error}; the story ends there, or has a gap")

    def _open(self, name: str, data: bytes) -> None:
        found = read_header(data)
        self.instance_id, self.version = found.instance_id, found.version
        if found.part == 1 and found.start is not None:
            if found.version != __version__:
                self.problems.append(
                    f"it was recorded by version {found.version} and is replayed by {__version__}: where they differ, "
                    "so may the story"
                )
            self.core = new_core(found.instance_id, found.start)
            self._knows_state = True
        elif found.part != self._next_part:
            missing = f"part {self._next_part}" + (f" to {found.part - 1}" if found.part - 1 > self._next_part else "")
            self._lose_state(
                f"{missing} of the recording is missing, rotated away or not beside {name}: from there on what the "
                "core did is not known, only what it was told"
            )
        self._next_part = found.part + 1

    def _step(self, now: float, event: Event | Skipped) -> Step:
        self.events += 1
        step = Step(self.events, now, event, None)
        if self.first is None:
            self.first = now, step.event.wall_ms
        self.last_wall_ms = step.event.wall_ms
        if isinstance(step.event, Skipped):
            self._lose_state(f"event {step.number}, of {step.event.size:,} bytes, was too large to be recorded")
        if not self._knows_state or isinstance(step.event, Skipped):
            return step
        assert self.core is not None
        try:
            effects = self.core.handle(step.event, now)
        except Exception as error:  # whatever it is, it is what the recording is read for
            where = "".join(traceback.format_exception(error)).strip()
            self._lose_state(f"at event {step.number} the core raised {error!r}, as the broker's did:\n{where}")
            return step
        self.replayed += 1
        self._digest.update(_encode(effects))
        return msgspec.structs.replace(step, effects=effects)

    def _lose_state(self, problem: str) -> None:
        self._knows_state = False
        self.problems.append(problem)

    def contradiction(self) -> str | None:
        """What is wrong with the state of the core at the end; None when nothing is, or when there never was one."""
        try:
            if self.core is not None:
                self.core.check_invariants()
        except AssertionError as error:
            return "".join(traceback.format_exception(error)).strip()
        return None


def replayed_log(parts: list[Path], subject: Subject | None, *, all_of_it: bool = False) -> ReplayedLog:
    """Replay a recording, and tell the story of `subject`, or of everything. Raises `OSError` and `Unreadable`."""
    replay = Playback((part.name, part.read_bytes()) for part in parts)
    teller = Timeline()
    told: dict[tuple[int, int], Line] = {}
    known: set[Subject] = set()
    for step in replay:
        for line in teller.tell(step):
            known |= line.subjects
            if all_of_it or subject in line.subjects:
                told[line.place] = line
    problems = list(replay.problems)
    if subject is not None and subject not in known:
        sort, name = subject
        near = did_you_mean(name, sorted(other for kind, other in known if kind == sort))
        problems.append(f"nothing in it is about the {sort} {name!r}{near}")
    began, start_time = replay.first or (0.0, None)
    return ReplayedLog(
        files=[str(part) for part in parts],
        version=replay.version,
        instance_id=replay.instance_id,
        events=replay.events,
        replayed_events=replay.replayed,
        start_time=start_time,
        end_time=replay.last_wall_ms,
        effects_digest=replay.effects_digest,
        contradiction=replay.contradiction(),
        problems=problems,
        jobs=[
            RecordedJob(backtest_id=job.backtest_id, status=job.status, client_id=job.client_id)
            for job in (replay.core.scheduler.jobs if replay.core else ())
        ],
        sessions=[RecordedSession(session_id=one, client_id=client) for one, client in teller.sessions.items()],
        topics=dict(sorted((teller.topics | (replay.core.sequencer.last_seqs() if replay.core else {})).items())),
        story=[_story_line(told[place], began) for place in sorted(told)],
        found=subject is None or subject in known,
    )


def _story_line(line: Line, began: float) -> StoryLine:
    return StoryLine(
        event=line.step,
        offset_ms=round((line.now - began) * 1000),
        timestamp=line.wall_ms,
        kind=line.kind,
        text=line.text,
        facts=line.facts,
    )
