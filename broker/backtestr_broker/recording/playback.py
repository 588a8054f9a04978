"""A playback gives recorded events to a new core at their recorded times, and so has the same effects and state.

Where events are missing (a part was deleted, an event was too large to record) the state after them is not known: from
there on a step has no effects, and only what clients and workers sent is known.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterable, Iterator

import msgspec

from backtestr_broker.core.core import Core
from backtestr_broker.core.events import Effect, Event, StartAgain
from backtestr_broker.core.faults import fault_in
from backtestr_protocol import __version__
from backtestr_protocol.codec import Signer

from .format import Header, Record, Skipped, Unreadable, decode_entry, decode_header

_encode = msgspec.msgpack.Encoder().encode


class Step(msgspec.Struct, frozen=True):
    """One event, the `number`-th of the recording from 1; `effects` are None where the core's state is not known."""

    number: int
    now: float
    event: Event | Skipped
    effects: list[Effect] | None


class Playback:
    """Iterate it for the steps; afterwards its attributes have the state of the core, and the problems."""

    def __init__(self, parts: Iterable[tuple[str, Iterable[Record]]]) -> None:
        """`parts` are names and records, in order. The records of a part are read when those before it were read."""
        self._parts = parts
        self.core: Core | None = None  # after the last event that it was given
        self.instance_id = self.version = ""
        self.events = self.handled = 0  # of all events, those that the core was given
        self.first: tuple[float, int] | None = None  # monotonic and wall-clock time of the first event
        self.last_wall_ms: int | None = None
        self.problems: list[str] = []
        self._digest = hashlib.sha256()
        self._knows_state = False
        self._next_part = 1

    @property
    def effects_digest(self) -> str:
        """SHA-256 of all effects, in hex."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[Step]:
        """Yield the steps. Raises `Unreadable` for a part whose header cannot be read."""
        for name, records in self._parts:
            following = iter(records)
            for _, body in following:
                self._open(name, decode_header(body))
                break
            else:
                raise Unreadable(f"{name}: it is empty")
            try:
                for record in following:
                    yield self._step(*decode_entry(record))
            except Unreadable as error:
                self._lose_state(f"{name}: {error}; the timeline ends there, or has a gap")

    def _open(self, name: str, header: Header) -> None:
        self.instance_id, self.version = header.instance_id, header.version
        if header.part == 1 and header.start is not None:
            if header.version != __version__:
                self.problems.append(
                    f"it was recorded by version {header.version} and is played back by {__version__}: where they "
                    "differ, the timeline may differ from what happened"
                )
            start = header.start
            self.core = Core(
                signer=Signer(start.key),
                id_seed=start.id_seed or start.key,
                instance_id=header.instance_id,
                limits=start.limits,
                workers=start.workers,
                now=start.now,
                restored=start.restored,
                build=start.build,
            )
            self._knows_state = True
        elif header.part != self._next_part:
            last = header.part - 1
            missing = f"part {self._next_part}" + (f" to {last}" if last > self._next_part else "")
            self._lose_state(
                f"{missing} of the recording is missing, deleted or not beside {name}: from there on what the core "
                "did is not known, only what it received"
            )
        self._next_part = header.part + 1

    def _step(self, now: float, event: Event | Skipped) -> Step:
        self.events += 1
        step = Step(self.events, now, event, None)
        if self.first is None:
            self.first = now, event.wall_ms
        self.last_wall_ms = event.wall_ms
        if isinstance(event, Skipped):
            self._lose_state(
                f"event {step.number}, of {event.size:,} bytes, was too large to be recorded"
                if event.size
                else f"{event.event} before event {step.number + 1} are missing: the disk could not be written to"
            )
        if not self._knows_state or isinstance(event, Skipped):
            return step
        assert self.core is not None
        effects = self.core.handle(event, now)
        self.handled += 1
        self._digest.update(_encode(effects))
        if (fault := fault_in(effects)) is not None:  # that is what the recording is read for
            raised, where = fault.facts["raised"], fault.facts["traceback"]
            self.problems.append(f"at event {step.number} the core raised {raised}:\n{where}")
        for effect in effects:
            if isinstance(effect, StartAgain):
                self._lose_state(f"after event {step.number} the broker started again: {effect.reason}")
        return msgspec.structs.replace(step, effects=effects)

    def _lose_state(self, problem: str) -> None:
        self._knows_state = False
        self.problems.append(problem)

    def contradiction(self) -> str | None:
        """Return the invariant of the core that does not hold at the end; None where all hold, or no core was built."""
        try:
            if self.core is not None:
                self.core.check_invariants()
        except AssertionError as error:
            return "".join(traceback.format_exception(error)).strip()
        return None
