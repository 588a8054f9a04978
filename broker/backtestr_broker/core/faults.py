"""Take an exception of the core: answer the request, log the fault once with its event, and judge the state.

An event whose handling raised left no effect and a state without a contradiction, and then the broker goes on; or the
broker starts again from what is on disk, and no effect of that event but the answer leaves the process. What only
tells of the world (a worker or a disk has done something) cannot be skipped: then the broker starts again as well,
but for the note of a worker, which is ended instead, so that its tasks move.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from backtestr_broker.core.clients.log_limits import LogLimit
from backtestr_broker.core.clients.sessions import Sessions
from backtestr_broker.core.scheduling.workers import Workers
from backtestr_protocol import worker_channel
from backtestr_protocol.codec import REQUEST, SIGNATURE_BYTES, decode_message
from backtestr_protocol.envelopes import Envelope
from backtestr_protocol.errors import SystemFault

from .events import Effect, Event, Notify, RequestReceived, StartAgain, Tick, WorkerSent
from .outbox import Outbox

# Seconds without a tick after one that failed: what was due is still due.
TICK_PAUSE = 1.0
# Faults that are logged with their event and traceback in an interval, in seconds.
LOG_INTERVAL = 1.0
LOGGED = 10
# Characters of a traceback, from its end; of a text in an event; and entries of a list or map in one.
MAX_TRACEBACK = 8_000
MAX_TEXT = 64
MAX_SHOWN = 16
MAX_DEPTH = 4
# Fields whose content is a user's own: their size is logged.
PRIVATE = frozenset({"value", "source", "session_id", "sessionId"})


class Faults:
    """Takes the exceptions of one core. `check` raises `AssertionError` where its state contradicts itself."""

    def __init__(self, outbox: Outbox, sessions: Sessions, workers: Workers, check: Callable[[], None]) -> None:
        self.not_before = float("-inf")  # the time before which no tick is due
        self._outbox = outbox
        self._sessions = sessions
        self._workers = workers
        self._check = check
        self._log_limit = LogLimit(LOG_INTERVAL, passes=LOGGED)

    def take(self, event: Event, error: Exception, now: float) -> list[Effect]:
        """Return the effects of an event whose handling raised `error`; nothing is raised."""
        reason: str | None = None
        effects: list[Effect] = []
        dropped = self._outbox.take_effects()
        try:
            self._report(event, error)
            effects = self._outbox.take_effects()
            if dropped:
                reason = f"it had {len(dropped)} effects already"
            elif isinstance(event, Tick):
                self.not_before = now + TICK_PAUSE
            elif not isinstance(event, RequestReceived | WorkerSent):
                reason = f"a {type(event).__name__} cannot be skipped"
            self._check()
        except Exception as further:  # the state is so damaged that not even the fault can be reported
            effects += self._outbox.take_effects()
            reason = f"the state contradicts itself: {_one_line(further)}"
        if reason is not None:
            effects.append(StartAgain(f"{type(event).__name__} raised {_one_line(error)}, and {reason}"))
        return effects

    def _report(self, event: Event, error: Exception) -> None:
        """Answer a request, end a worker, or tell the listeners of `system.errors`; and log the fault."""
        fault = SystemFault(f"the broker has a defect: {_one_line(error)}")
        about = self._about(event, error)
        match event:
            case RequestReceived(peer, frames):
                self._answer(peer, frames, fault, about)
            case WorkerSent(peer):
                self._outbox.report(fault, **about)
                if (worker := self._workers.at(peer)) is not None:
                    self._outbox.kill(worker.worker_id, f"it was ended: the broker failed at its message: {error!r}")
            case _:
                self._outbox.report(fault, **about)

    def _answer(self, peer: bytes, frames: list[bytes], fault: SystemFault, about: dict[str, str]) -> None:
        outbox, session, envelope = self._outbox, self._sessions.on(peer), self._envelope(frames)
        if envelope is None:
            outbox.send_unattributed(peer, outbox.error_data(fault, **about))
            return
        client_id = None if session is None else session.client_id
        data = outbox.error_data(
            fault, requestId=envelope.id, **({"clientId": client_id} if client_id else {}), **about
        )
        if client_id is not None and outbox.answers.is_running(client_id, envelope.id):
            outbox.answer((client_id, envelope.id), data)
        else:
            outbox.refuse(peer, envelope.id, data, envelope.payload.type, client_id)

    def _about(self, event: Event, error: Exception) -> dict[str, str]:
        if self._log_limit.check(self._outbox.now) is None:
            return {}
        lines = "".join(traceback.format_exception(error))
        return {
            "raised": _one_line(error),
            "during": self._described(event),
            "traceback": lines[-MAX_TRACEBACK:].strip(),
        }

    def _described(self, event: Event) -> str:
        """Return an event for the log, cut short, without keys and without content that is private."""
        shown: Any = event
        if isinstance(event, RequestReceived):
            envelope = self._envelope(event.frames)
            shown = {"frames": [len(frame) for frame in event.frames]}
            if envelope is not None:
                shown |= {"type": envelope.payload.type, "data": _decoded(envelope.payload.data)}
        elif isinstance(event, WorkerSent):
            shown = {"frames": [len(frame) for frame in event.frames], "message": self._message(event.frames)}
        return f"{type(event).__name__} {_shortened(shown)!r}"

    def _envelope(self, frames: list[bytes]) -> Envelope | None:
        try:
            return decode_message(self._outbox.envelopes.signer, REQUEST, frames).envelope
        except Exception:  # that is what raised, or it is no request
            return None

    def _message(self, frames: list[bytes]) -> worker_channel.ToBroker | None:
        try:
            if len(frames) == 2 and len(frames[0]) == SIGNATURE_BYTES:
                return worker_channel.decode_proof(self._outbox.envelopes.signer, frames)
            return worker_channel.decode_to_broker(frames)[0]
        except Exception:  # that is what raised, or it is no message of a worker
            return None

    def check_invariants(self) -> None:
        self._log_limit.check_invariants()


def fault_in(effects: list[Effect]) -> Notify | None:
    """Return the signal of the exception that an event raised in the core, if its effects have one."""
    for effect in effects:
        if isinstance(effect, Notify) and effect.signal == "fault" and "traceback" in effect.facts:
            return effect
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(repr(error).split())[:300]


def _decoded(data: msgspec.Raw) -> Any:
    try:
        return msgspec.msgpack.decode(data)
    except Exception:  # what is wrong in it may be what raised
        return f"<{memoryview(data).nbytes} bytes that cannot be decoded>"


def _shortened(value: Any, depth: int = 0) -> Any:
    """Return a value with long texts, lists and maps cut, and bytes as their number."""
    match value:
        case bool() | int() | float() | None:
            return value
        case str():
            return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}… of {len(value)} characters"
        case bytes() | bytearray() | memoryview() | msgspec.Raw():
            return f"<{memoryview(value).nbytes} bytes>"
        case msgspec.Struct():
            return _shortened(msgspec.structs.asdict(value), depth)
        case dict() | list() | tuple() if depth >= MAX_DEPTH:
            return f"<{len(value)} values>"
        case dict():
            items = list(value.items())[:MAX_SHOWN]
            cut = {"…": len(value)} if len(value) > MAX_SHOWN else {}
            return {_shortened(key): _private(key, inner, depth) for key, inner in items} | cut
        case list() | tuple():
            cut_list = [f"… of {len(value)}"] if len(value) > MAX_SHOWN else []
            return [_shortened(one, depth + 1) for one in value[:MAX_SHOWN]] + cut_list
    return f"<{type(value).__name__}>"


def _private(key: Any, value: Any, depth: int) -> Any:
    return f"<{type(value).__name__}>" if key in PRIVATE else _shortened(value, depth + 1)
