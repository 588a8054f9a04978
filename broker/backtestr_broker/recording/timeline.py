"""The timeline of a recording: one fact a line, with its kind, ids and numbers, and the subjects that it is about.

    timeline = Timeline()
    for step in playback: facts += timeline.add(step)

It is pure. Where the state of the core is not known, a step has no effects: then its only fact is the event itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import msgspec

from backtestr_broker.core import events
from backtestr_broker.core.records import AnswerPut, Change, JobPut
from backtestr_protocol import topics, worker_channel
from backtestr_protocol.envelopes import Envelope
from backtestr_protocol.errors import ErrorData
from backtestr_protocol.timeframes import canonical_timeframe

from .format import Skipped
from .playback import Step

T = TypeVar("T")
SubjectKind = Literal["job", "session", "client", "topic"]
SUBJECT_KINDS: tuple[SubjectKind, ...] = ("job", "session", "client", "topic")
Subject = tuple[SubjectKind, str]

# Details that name a subject; keys of shared state and price replays name one in a roundabout way.
_SUBJECT_KIND_OF: dict[str, SubjectKind] = {
    "backtestId": "job",
    "sessionId": "session",
    "clientId": "client",
    "topic": "topic",
}


class _Counted(msgspec.Struct, frozen=True):
    count: int


_counted = msgspec.msgpack.Decoder(_Counted)
_envelopes = msgspec.msgpack.Decoder(Envelope)
_to_broker: msgspec.msgpack.Decoder[worker_channel.ToBroker] = msgspec.msgpack.Decoder(worker_channel.ToBroker)
_to_worker: msgspec.msgpack.Decoder[worker_channel.ToWorker] = msgspec.msgpack.Decoder(worker_channel.ToWorker)


class Fact(msgspec.Struct, kw_only=True):
    """Something that happened, the `index`-th fact of its event. The detail `type` names it.

    `kind` is `request`, `answer`, `stream`, `worker` or `instruction` for a message, `signal` for a hook, and otherwise
    `event` or `effect`, with the fields of that as details.
    """

    event: int
    index: int
    now: float
    wall_ms: int
    kind: str
    details: dict[str, Any]
    subjects: set[Subject]

    @property
    def place(self) -> tuple[int, int]:
        """Position in the timeline."""
        return self.event, self.index

    @property
    def text(self) -> str:
        """The type, then `name=value` for every other detail."""
        named = (f"{name}={_shown(value)}" for name, value in self.details.items() if name != "type")
        return " ".join([_shown(self.details["type"]), *named])


class Timeline:
    """Finds the subjects of each fact: from its own ids, and from what earlier steps had to do with them."""

    def __init__(self) -> None:
        self.sessions: dict[str, str] = {}  # every session that was opened, and its client
        self.topics: dict[str, int] = {}  # the last sequence number of each
        self._clients: dict[bytes, str] = {}  # peer -> clientId of its Hello
        self._sessions: dict[bytes, str] = {}  # peer -> its session
        self._requests: dict[tuple[str, str], Fact] = {}  # request key -> request, until it is answered
        self._workers: dict[bytes, str] = {}  # peer -> worker
        self._worker_kinds: dict[str, worker_channel.WorkerKind] = {}
        self._assigned: dict[str, set[str]] = {}  # worker -> tasks and price replays that it has
        self._tasks: dict[str, set[Subject]] = {}  # interactive task -> subjects
        self._opening: dict[str, str] = {}  # interactive task -> price replay that it opens
        self._replays: dict[str, set[Subject]] = {}  # price replay -> subjects; a backtest may have the same id
        self._tickets: dict[int, set[Subject]] = {}  # change on its way to disk -> subjects
        self._facts: list[Fact] = []
        self._step = Step(0, 0.0, Skipped("", 0, 0), None)

    def add(self, step: Step) -> list[Fact]:
        """Return the facts of a step, and again each earlier fact of which a further subject is known by now."""
        self._step, self._facts = step, []
        self._add_event(step.event)
        for effect in step.effects or ():
            self._add_effect(effect)
        return self._facts

    def _fact(self, kind: str, fact_type: str, details: dict[str, Any], about: Iterable[Subject] = ()) -> Fact:
        """Add a fact. Its subjects are `about` and those that its details name."""
        step, known = self._step, {name: value for name, value in details.items() if value is not None}
        fact = Fact(
            event=step.number,
            index=len(self._facts),
            now=step.now,
            wall_ms=step.event.wall_ms,
            kind=kind,
            details={"type": fact_type, **known},
            subjects={*about, *self._named(known)},
        )
        self._facts.append(fact)
        return fact

    # --- events and effects ---

    def _add_event(self, event: events.Event | Skipped) -> None:
        if isinstance(event, events.RequestReceived):
            return self._add_request(event.peer, event.frames)
        if isinstance(event, events.WorkerSent):
            return self._add_worker_message(event.peer, event.frames)
        about, details = set[Subject](), _fields(event)
        match event:
            case events.WorkerStarted(worker_id, kind):
                self._assigned[worker_id], self._worker_kinds[worker_id] = set(), kind
            case events.WorkerExited(worker_id):
                tasks = sorted(self._assigned.pop(worker_id, ()))
                about, details = self._of_tasks(worker_id, tasks), {**details, "tasks": tasks or None}
            case events.ClientsDropped():
                about = about.union(*map(self._of_peer, self._clients))
            case events.Subscribed(_, prefix):
                about = _of_prefixes([prefix])
            case events.ListenersFound(_, _, unheld):
                about = _of_prefixes(unheld)
            case events.Committed(ticket):
                about = self._settled(ticket)
            case events.CommitFailed():
                about = self._settled(None)
            case events.StateRead(_, record):
                details["version"] = None if record is None else record.version
        self._fact("event", type(event).__name__, details, about)

    def _add_effect(self, effect: events.Effect) -> None:
        about = set[Subject]()
        match effect:
            case events.Reply(peer, frames):
                return self._add_answer(peer, frames)
            case events.Publish(_, frames):
                return self._add_stream_message(frames)
            case events.Instruct(peer, frames):
                return self._add_instruction(peer, frames)
            case events.Notify(signal, facts):
                if signal != "worker_lost":  # the event WorkerExited says the same
                    self._fact("signal", signal, dict(facts), self._of_signal(signal, facts))
                return
            case events.Persist(ticket, _, changes):
                about = self._tickets[ticket] = about.union(*map(self._of_change, changes))
            case events.RemoveResults(_, backtest_ids):
                about = {("job", one) for one in backtest_ids}
            case events.Kill(worker_id):
                about = self._of_tasks(worker_id, self._assigned.get(worker_id, ()))
        self._fact("effect", type(effect).__name__, _fields(effect), about)

    # --- messages ---

    def _add_request(self, peer: bytes, frames: list[bytes]) -> None:
        envelope = _decoded(_envelopes, frames[1:2])
        if envelope is None:
            details = {"clientId": self._clients.get(peer), "frames": len(frames), "bytes": sum(map(len, frames))}
            self._fact("request", "unreadable", details, self._of_peer(peer))
            return
        request_type, data = envelope.payload.type, _mapping(envelope.payload.data)
        if request_type == "Hello":
            self._clients[peer] = str(data.get("clientId"))
            self._sessions.pop(peer, None)
        client_id = self._clients.get(peer)
        details = {"clientId": client_id, "id": envelope.id, "counter": envelope.counter}
        about = self._of_peer(peer) | self._named(data) | _of_replay(request_type, data)
        fact = self._fact("request", request_type, {**details, "sessionId": envelope.session_id}, about)
        if self._step.effects is not None:  # without effects there is no answer, which ends the wait for it
            self._requests[client_id or "", envelope.id] = fact

    def _add_answer(self, peer: bytes, frames: list[bytes]) -> None:
        envelope = _decoded(_envelopes, frames[1:2])
        assert envelope is not None, "the core wrote it"
        data, client_id = _mapping(envelope.payload.data), self._clients.get(peer, "")
        request = self._requests.pop((client_id, envelope.correlation_id or ""), None)
        request_type = "unknown" if request is None else str(request.details["type"])
        if request_type == "Hello" and "sessionId" in data:
            self._sessions[peer] = data["sessionId"]
            self.sessions[data["sessionId"]] = client_id
        about = self._of_peer(peer)
        if request is not None:
            self._extend(request, about)
            about |= request.subjects
        details = {"clientId": client_id or None, "id": envelope.correlation_id, "result": envelope.payload.type}
        if envelope.payload.type != "Success":
            details |= {"code": data.get("code"), "message": data.get("message")}
        self._fact("answer", request_type, details, about)

    def _add_stream_message(self, frames: list[bytes]) -> None:
        topic, envelope = frames[0].decode(), _decoded(_envelopes, frames[2:3])
        assert envelope is not None, "the core wrote it"
        assert envelope.seq is not None
        payload = envelope.payload
        count = _counted.decode(payload.data).count if payload.type == "Batch" else 1
        self.topics[topic] = envelope.seq + count - 1
        self._fact("stream", payload.type, {"topic": topic, "seq": envelope.seq, "count": count})

    def _add_worker_message(self, peer: bytes, frames: list[bytes]) -> None:
        # The first message on a connection has a signature before it.
        message = _decoded(_to_broker, frames[:1] if peer in self._workers else frames[1:2])
        if message is None:
            self._fact("worker", "unreadable", {"workerId": self._workers.get(peer), "frames": len(frames)})
            return
        if isinstance(message, worker_channel.Ready):
            self._workers[peer], self._worker_kinds[message.worker_id] = message.worker_id, message.kind
        worker_id = self._workers.get(peer, "")
        task_id: str | None = getattr(message, "task_id", None)
        about = self._of_tasks(worker_id, [task_id] if task_id is not None else [])
        self._fact("worker", type(message).__name__, {"workerId": worker_id or None, **_fields(message)}, about)
        if isinstance(message, worker_channel.Finished):
            assigned = self._assigned.setdefault(worker_id, set())
            assigned.discard(message.task_id)
            self._tasks.pop(message.task_id, None)
            if (replay_id := self._opening.pop(message.task_id, None)) and message.outcome == "completed":
                assigned.add(replay_id)

    def _add_instruction(self, peer: bytes, frames: list[bytes]) -> None:
        message = _decoded(_to_worker, frames[:1])
        assert message is not None, "the core wrote it"
        worker_id = self._workers.get(peer, "")
        if isinstance(message, worker_channel.Assign):
            self._assigned.setdefault(worker_id, set()).add(message.task_id)
            if message.work == "CheckBacktest":
                self._tasks[message.task_id] = self._named(_mapping(b"".join(frames[1:2])))
            elif message.work == "OpenReplay":
                data = _mapping(b"".join(frames[1:2]))
                about = _of_replay("StartPriceReplay", data) | self._named({"clientId": message.client_id})
                self._tasks[message.task_id] = self._replays[data["replayId"]] = about
                self._opening[message.task_id] = data["replayId"]
        about = self._of_tasks(worker_id, [] if isinstance(message, worker_channel.Credit) else [message.task_id])
        self._fact("instruction", type(message).__name__, {"workerId": worker_id, **_fields(message)}, about)

    # --- subjects ---

    def _named(self, details: Mapping[str, Any]) -> set[Subject]:
        """Return the subjects whose names are in the details of a fact or in the data of a message."""
        about: set[Subject] = set()
        for name, value in details.items():
            if not isinstance(value, str):
                continue
            if (kind := _SUBJECT_KIND_OF.get(name)) is not None:
                about.add((kind, value))
            elif name == "key":
                about.add(("topic", topics.state(value)))
            elif name == "replayId":
                about |= self._replays.get(value, set())
        return about

    def _of_peer(self, peer: bytes) -> set[Subject]:
        return self._named({"clientId": self._clients.get(peer), "sessionId": self._sessions.get(peer)})

    def _of_tasks(self, worker_id: str, task_ids: Iterable[str]) -> set[Subject]:
        """Return the subjects of tasks. Those of a compute worker are backtests, by their id."""
        about: set[Subject] = set()
        for task_id in task_ids:
            kind = self._worker_kinds.get(worker_id, "interactive" if task_id.startswith("question-") else "compute")
            if kind == "compute":
                about.add(("job", task_id))
            else:
                about |= self._tasks.get(task_id) or self._replays.get(task_id, set())
        return about

    def _of_signal(self, signal: str, facts: Mapping[str, Any]) -> set[Subject]:
        """Return the session that a client left, where the client has one only: the signal does not name it."""
        peers = [peer for peer, client in self._clients.items() if client == facts.get("clientId")]
        sessions = [self._of_peer(peer) for peer in peers if peer in self._sessions]
        return sessions[0] if signal == "client_left" and len(sessions) == 1 else set()

    def _of_change(self, change: Change) -> set[Subject]:
        if isinstance(change, JobPut | AnswerPut):
            request = self._requests.get((change.record.client_id, change.record.request_id))
            if isinstance(change, AnswerPut):
                return set(request.subjects) if request is not None else self._named(_fields(change.record))
            # This is the first fact with the backtest id of a request that names none itself.
            job: set[Subject] = {("job", change.record.backtest_id)}
            if request is not None:
                self._extend(request, job)
            return job
        return self._named(_fields(change) | _fields(getattr(change, "record", change)))

    def _extend(self, fact: Fact, subjects: set[Subject]) -> None:
        """Add subjects to an earlier fact."""
        if not subjects <= fact.subjects:
            fact.subjects |= subjects
            self._facts.append(fact)

    def _settled(self, ticket: int | None) -> set[Subject]:
        """Return the subjects of the changes up to `ticket`, or of all; they are no longer on their way."""
        settled = [one for one in self._tickets if ticket is None or one <= ticket]
        return set[Subject]().union(*(self._tickets.pop(one) for one in settled))


def _of_replay(request_type: str, data: dict[str, Any]) -> set[Subject]:
    """Return the topic of the prices that a `StartPriceReplay` asks for."""
    symbol, timeframe = data.get("symbol"), data.get("timeframe")
    if request_type == "StartPriceReplay" and isinstance(symbol, str) and isinstance(timeframe, str):
        return {("topic", topics.prices(symbol, canonical_timeframe(timeframe) or timeframe))}
    return set()


def _of_prefixes(prefixes: list[bytes]) -> set[Subject]:
    """Return the topics among prefixes; the others are the start of several."""
    names = (prefix.decode("utf-8", "replace") for prefix in prefixes)
    return {("topic", name) for name in names if topics.class_of(name) is not None}


def _fields(struct: msgspec.Struct) -> dict[str, Any]:
    """Return the plain fields of a struct, the code and message of an error in it, and the names of changes."""
    found: dict[str, Any] = {}
    for name, value in msgspec.structs.asdict(struct).items():
        first, *rest = name.split("_")
        name = "".join([first, *(word.title() for word in rest)])
        match value:
            case ErrorData(code=code, message=message):
                found |= {"code": code, "message": message}
            case bytes():
                found[name] = value.decode("utf-8", "replace")
            case str() | int() | float() if value is not False and name != "wallMs":
                found[name] = value
            case list() | tuple() if all(isinstance(one, bytes) for one in value):
                found[name] = [one.decode("utf-8", "replace") for one in value]
            case list() | tuple() if all(isinstance(one, str) for one in value):
                found[name] = list(value)
            case tuple():
                found[name] = [type(one).__name__ for one in value]
    return found


def _shown(value: Any) -> str:
    """Return a value as one word: quoted where it has blanks, equals signs, quotes or unprintable characters."""
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    text = str(value)
    return text if text.isprintable() and text and not set(" ='\"") & set(text) else repr(text)


def _decoded(decoder: msgspec.msgpack.Decoder[T], frames: list[bytes]) -> T | None:
    """Return the one frame decoded; None where it is something else."""
    try:
        return decoder.decode(frames[0])
    except (IndexError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _mapping(data: bytes | msgspec.Raw) -> dict[str, Any]:
    """Return the data of a request or an answer; an empty map for anything else."""
    try:
        decoded = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}
