"""Answer `backtestr replay-log`: play a recording back, and collect the timeline of one subject or of everything."""

from __future__ import annotations

from pathlib import Path

from backtestr_protocol.errors import did_you_mean
from backtestr_protocol.inspection import RecordedFact, RecordedJob, RecordedSession, ReplayedLog

from .parts import read_part
from .playback import Playback
from .timeline import Fact, Subject, Timeline


def replayed_log(parts: list[Path], subject: Subject | None, *, everything: bool = False) -> ReplayedLog:
    """Play the parts of a recording back. The timeline has the facts about `subject`, or with `everything` all facts.

    Raises `OSError`, and `Unreadable` for a part whose header cannot be read.
    """
    playback = Playback((part.name, read_part(part)) for part in parts)
    timeline = Timeline()
    facts: dict[tuple[int, int], Fact] = {}
    known: set[Subject] = set()
    for step in playback:
        for fact in timeline.add(step):
            known |= fact.subjects
            if everything or subject in fact.subjects:
                facts[fact.place] = fact
    problems = list(playback.problems)
    if subject is not None and subject not in known:
        kind, name = subject
        near = did_you_mean(name, sorted(other for one, other in known if one == kind))
        problems.append(f"nothing in it is about the {kind} {name!r}{near}")
    began, start_time = playback.first or (0.0, None)
    core = playback.core
    return ReplayedLog(
        files=[str(part) for part in parts],
        version=playback.version,
        instance_id=playback.instance_id,
        events=playback.events,
        replayed_events=playback.handled,
        start_time=start_time,
        end_time=playback.last_wall_ms,
        effects_digest=playback.effects_digest,
        contradiction=playback.contradiction(),
        problems=problems,
        jobs=[
            RecordedJob(backtest_id=job.backtest_id, status=job.status, client_id=job.client_id)
            for job in (core.scheduler.jobs if core else ())
        ],
        sessions=[RecordedSession(session_id=one, client_id=client) for one, client in timeline.sessions.items()],
        topics=dict(sorted((timeline.topics | (core.sequencer.last_seqs() if core else {})).items())),
        timeline=[_recorded(facts[place], began) for place in sorted(facts)],
        found=subject is None or subject in known,
    )


def _recorded(fact: Fact, began: float) -> RecordedFact:
    return RecordedFact(
        event=fact.event,
        offset_ms=round((fact.now - began) * 1000),
        timestamp=fact.wall_ms,
        kind=fact.kind,
        text=fact.text,
        facts=fact.details,
    )
