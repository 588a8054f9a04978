"""What a recording tells, in lines: who asked what, what came of it, and whom it was about.

    teller = Storyteller()
    for step in replay: lines += teller.tell(step)      # lines.subjects says whose story each belongs to

Pure: a step is an event, with the effects that the core had on it where its state is known. Without them only what
clients and workers said can be told.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeVar, assert_never

import msgspec

from backtestr_broker.core.events import (
    ClientsDropped,
    CommitFailed,
    Committed,
    Effect,
    Event,
    FindListeners,
    Instruct,
    Kill,
    ListenersFound,
    Notify,
    Persist,
    Publish,
    ReadState,
    Reply,
    RequestReceived,
    StateRead,
    Subscribed,
    SubscribersDropped,
    Tick,
    WorkerExited,
    WorkerSent,
    WorkerStarted,
)
from backtestr_broker.core.records import AnswerPut, Change, JobDeleted, JobPut, StatePut
from backtestr_protocol import topics, worker_channel
from backtestr_protocol.codec import Envelope

from .format import Skipped

T = TypeVar("T")
Sort = Literal["job", "session", "client", "topic"]
SORTS: tuple[Sort, ...] = ("job", "session", "client", "topic")
Subject = tuple[Sort, str]
Subjects = frozenset[Subject]
NOBODY: Subjects = frozenset()


class _Counted(msgspec.Struct, frozen=True):
    count: int


_counted = msgspec.msgpack.Decoder(_Counted)
_envelopes = msgspec.msgpack.Decoder(Envelope)
_to_broker: msgspec.msgpack.Decoder[worker_channel.ToBroker] = msgspec.msgpack.Decoder(worker_channel.ToBroker)
_to_worker: msgspec.msgpack.Decoder[worker_channel.ToWorker] = msgspec.msgpack.Decoder(worker_channel.ToWorker)


class Step(msgspec.Struct, frozen=True):
    """One event, the `number`-th of the recording from 1; `effects` are None where the core's state is not known."""

    number: int
    now: float
    event: Event | Skipped
    effects: list[Effect] | None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. `index` counts within its step; a line whose subjects become known later comes again,
    with the same place."""

    step: int
    index: int
    now: float
    wall_ms: int
    kind: str
    text: str
    facts: dict[str, Any]
    subjects: Subjects

    @property
    def place(self) -> tuple[int, int]:
        return self.step, self.index


class Storyteller:
    def __init__(self) -> None:
        self.sessions: dict[str, str] = {}  # every session that was opened, and its client
        self.topics: dict[str, int] = {}  # the last number of each
        self._clients: dict[bytes, str] = {}  # connection -> who said Hello on it
        self._sessions: dict[bytes, str] = {}  # connection -> its session
        self._asked: dict[tuple[str, str], Line] = {}  # client and request id -> the request, until it is answered
        self._workers: dict[bytes, str] = {}  # connection -> worker
        self._kinds: dict[str, worker_channel.WorkerKind] = {}  # of each worker
        self._held: dict[str, set[str]] = {}  # worker -> tasks
        self._tasks: dict[str, Subjects] = {}  # question -> whom it is about
        self._opening: dict[str, str] = {}  # question -> the replay that is hosted once it is answered
        self._replays: dict[str, Subjects] = {}  # replay -> whom it is about; a backtest may have the same id
        self._tickets: dict[int, Subjects] = {}  # changes on their way to disk
        self._again: list[Line] = []
        self._step = Step(0, 0.0, Skipped("", 0, 0), None)
        self._index = 0

    def tell(self, step: Step) -> Iterator[Line]:
        self._step, self._index = step, 0
        yield self._of_event(step.event)
        for effect in step.effects or ():
            if (line := self._of_effect(effect)) is not None:
                yield line
        again, self._again = self._again, []
        yield from again

    def _line(self, kind: str, text: str, subjects: Subjects = NOBODY, /, **facts: Any) -> Line:
        self._index += 1
        return Line(
            step=self._step.number,
            index=self._index,
            now=self._step.now,
            wall_ms=self._step.event.wall_ms,
            kind=kind,
            text=text,
            facts=facts,
            subjects=subjects,
        )

    # --- events ---

    def _of_event(self, event: Event | Skipped) -> Line:
        match event:
            case RequestReceived(peer, frames):
                return self._request(peer, frames)
            case WorkerSent(peer, frames):
                return self._note(peer, frames)
            case WorkerStarted(worker_id, kind, pid):
                self._held[worker_id] = set()
                self._kinds[worker_id] = kind
                return self._line("worker", f"{worker_id} was started as process {pid}", workerId=worker_id, kind=kind)
            case WorkerExited(worker_id, reason):
                held = self._held.pop(worker_id, set())
                about = NOBODY.union(*(self._about(worker_id, task_id) for task_id in held))
                holding = f", holding {', '.join(sorted(held))}" if held else ""
                return self._line(
                    "worker", f"{worker_id} ended{holding}: {reason}", about, workerId=worker_id, reason=reason
                )
            case ClientsDropped(reason):
                about = NOBODY.union(*(self._on(peer) for peer in self._clients))
                said = f"every connection of clients was ended: {reason}"
                return self._line("connections", said, about, reason=reason)
            case Subscribed(socket, prefix, delta):
                done = "subscribed to" if delta > 0 else "listens no longer to"
                said = f"a peer of the {socket} socket {done} {_shown(prefix)}"
                return self._line("listening", said, _of_prefix(prefix), socket=socket, delta=delta)
            case ListenersFound(socket, held, deserted):
                about = NOBODY.union(*map(_of_prefix, deserted))
                names = ", ".join(map(_shown, deserted)) or "none"
                said = f"of {len(held) + len(deserted)} prefixes on the {socket} socket nobody holds: {names}"
                return self._line("listening", said, about, socket=socket)
            case SubscribersDropped(socket):
                return self._line("connections", f"every connection to the {socket} socket was ended", socket=socket)
            case Tick():
                return self._line("tick", "time was looked at")
            case Committed(ticket):
                about = self._settled(ticket)
                return self._line("disk", f"everything up to change {ticket} is on disk", about, ticket=ticket)
            case CommitFailed(_, reason):
                about = self._settled(None)
                return self._line("disk", f"changes could not be written to disk: {reason}", about, reason=reason)
            case StateRead(key, record):
                found = "nothing" if record is None else f"version {record.version}"
                return self._line("disk", f"of key {key!r} {found} was read", _of_key(key), key=key)
            case Skipped(name, size):
                return self._line("skipped", f"{name} with {size:,} bytes was too large to be recorded", bytes=size)
            case _:
                assert_never(event)

    def _request(self, peer: bytes, frames: list[bytes]) -> Line:
        envelope = _envelope(frames[1:2])
        if envelope is None:
            who = self._clients.get(peer, "someone")
            said = f"{who} sent {len(frames)} frames, {sum(map(len, frames)):,} bytes, that are no request"
            return self._line("request", said, self._on(peer))
        data = _mapping(envelope.payload.data)
        type_name = envelope.payload.type
        if type_name == "Hello":
            self._clients[peer] = str(data.get("clientId"))
            self._sessions.pop(peer, None)
        about = self._on(peer) | _named(type_name, data)
        if isinstance(replay_id := data.get("replayId"), str):
            about |= self._replays.get(replay_id, NOBODY)
        if envelope.session_id is not None:
            about |= {("session", envelope.session_id)}
        line = self._line(
            "request",
            f"{self._clients.get(peer, 'someone')} asked {type_name}, {_identified(envelope)}",
            about,
            type=type_name,
            id=envelope.id,
            counter=envelope.counter,
            sessionId=envelope.session_id,
        )
        self._asked[self._clients.get(peer, ""), envelope.id] = line
        return line

    def _note(self, peer: bytes, frames: list[bytes]) -> Line:
        note = _decoded(_to_broker, frames[1:2])
        worker_id = self._workers.get(peer, "a worker")
        match note:
            case None:
                return self._line("note", f"{worker_id} sent {len(frames)} frames that say nothing")
            case worker_channel.Ready(worker_id=worker_id, kind=kind):
                self._workers[peer] = worker_id
                self._kinds[worker_id] = kind
                return self._line("note", f"{worker_id} said that it is ready", workerId=worker_id)
            case worker_channel.Beat():
                return self._line("note", f"{worker_id} said that it is alive", workerId=worker_id)
            case worker_channel.Published(topic=topic, count=count):
                said = f"{worker_id} published {_messages(count)} on {topic}"
                return self._line("note", said, frozenset({("topic", topic)}), workerId=worker_id, count=count)
            case worker_channel.Paused(task_id=task_id) | worker_channel.Resumed(task_id=task_id):
                said = f"{worker_id} said that {task_id} is {type(note).__name__.lower()}"
                return self._line("note", said, self._about(worker_id, task_id), workerId=worker_id, taskId=task_id)
            case worker_channel.Finished(task_id=task_id, outcome=outcome, error=error):
                self._held.get(worker_id, set()).discard(task_id)
                if (replay_id := self._opening.pop(task_id, None)) is not None and outcome == "completed":
                    self._held.setdefault(worker_id, set()).add(replay_id)
                why = f", {error.code}: {error.message}" if error is not None else ""
                said = f"{worker_id} said that {task_id} is {outcome}{why}"
                about = self._about(worker_id, task_id)
                return self._line("note", said, about, workerId=worker_id, taskId=task_id, outcome=outcome)
            case _:
                assert_never(note)

    # --- effects ---

    def _of_effect(self, effect: Effect) -> Line | None:
        match effect:
            case Reply(peer, frames):
                return self._reply(peer, frames)
            case Publish(_, frames):
                return self._published(frames)
            case Instruct(peer, frames):
                return self._instructed(peer, frames)
            case Persist(ticket, _, changes):
                about = NOBODY.union(*map(self._of_change, changes))
                self._tickets[ticket] = about
                kinds = ", ".join(type(change).__name__ for change in changes)
                return self._line("disk", f"change {ticket} is on its way to disk: {kinds}", about, ticket=ticket)
            case ReadState(key):
                return self._line("disk", f"key {key!r} is to be read from disk", _of_key(key), key=key)
            case FindListeners(socket, prefixes):
                said = f"ZeroMQ is asked who holds {len(prefixes)} prefixes on the {socket} socket"
                return self._line("listening", said, socket=socket)
            case Kill(worker_id, reason):
                held = self._held.get(worker_id, set())
                about = NOBODY.union(*(self._about(worker_id, task_id) for task_id in held))
                return self._line("worker", f"{worker_id} is to be killed", about, workerId=worker_id, reason=reason)
            case Notify(signal, facts):
                return self._noticed(signal, dict(facts))
            case _:
                assert_never(effect)

    def _reply(self, peer: bytes, frames: list[bytes]) -> Line:
        envelope = _envelope(frames[1:2])
        assert envelope is not None, "the core wrote it"
        client = self._clients.get(peer, "someone")
        data = _mapping(envelope.payload.data)
        request = self._asked.pop((client if peer in self._clients else "", envelope.correlation_id or ""), None)
        if request is not None and request.facts["type"] == "Hello" and "sessionId" in data:
            self._sessions[peer] = data["sessionId"]
            self.sessions[data["sessionId"]] = client
            request = self._tell_again(request, self._on(peer))
        came = envelope.payload.type if envelope.payload.type == "Success" else f"{data['code']}: {data['message']}"
        if request is None:
            said = f"{client} was answered {came}"
            return self._line("answer", said, self._on(peer), id=envelope.correlation_id, code=data.get("code"))
        asked = request.facts["type"]
        return self._line(
            "answer",
            f"{client} was answered to {asked}, id {envelope.correlation_id}: {came}",
            request.subjects | self._on(peer),
            type=asked,
            id=envelope.correlation_id,
            code=data.get("code") if envelope.payload.type != "Success" else None,
        )

    def _published(self, frames: list[bytes]) -> Line:
        topic, envelope = frames[0].decode(), _envelope(frames[2:3])
        assert envelope is not None, "the core wrote it"
        payload = envelope.payload
        count = _counted.decode(payload.data).count if payload.type == "Batch" else 1
        assert envelope.seq is not None
        self.topics[topic] = last = envelope.seq + count - 1
        said = f"{topic} {envelope.seq}{f' to {last}' if count > 1 else ''}: {payload.type}"
        return self._line("stream", said, frozenset({("topic", topic)}), topic=topic, seq=envelope.seq, count=count)

    def _instructed(self, peer: bytes, frames: list[bytes]) -> Line:
        note = _decoded(_to_worker, frames[1:2])
        worker_id = self._workers.get(peer, "a worker")
        match note:
            case worker_channel.Assign(task_id=task_id, work=work, client_id=client_id):
                self._held.setdefault(worker_id, set()).add(task_id)
                if work == "CheckBacktest":
                    self._tasks[task_id] = _named("StartBacktest", _mapping(b"".join(frames[2:3])))
                if work == "OpenReplay":
                    data = _mapping(b"".join(frames[2:3]))
                    whose: Subjects = frozenset({("client", str(client_id))})
                    self._tasks[task_id] = self._replays[data["replayId"]] = _named("StartPriceReplay", data) | whose
                    self._opening[task_id] = data["replayId"]
                about = self._about(worker_id, task_id)
                said = f"{worker_id} was given {task_id}: {work}"
                return self._line("work", said, about, workerId=worker_id, taskId=task_id, work=work)
            case worker_channel.Control(task_id=task_id, action=action):
                about = self._about(worker_id, task_id)
                said = f"{worker_id} was told to {action} {task_id}"
                return self._line("work", said, about, workerId=worker_id, taskId=task_id, action=action)
            case worker_channel.Credit(replay_id=replay_id, allowed=allowed):
                said = f"{worker_id} was told that {replay_id} may publish up to {allowed} bars"
                about = self._replays.get(replay_id, NOBODY)
                return self._line("work", said, about, workerId=worker_id, replayId=replay_id, allowed=allowed)
            case None:
                raise AssertionError("the core wrote it")
            case _:
                assert_never(note)

    def _noticed(self, signal: str, facts: dict[str, Any]) -> Line | None:
        about: set[Subject] = set()
        said = f"{signal} {', '.join(f'{name} {value}' for name, value in facts.items())}".strip()
        match signal:
            case "backtest_changed":
                said = f"{facts['backtestId']} is {facts['status']}"
                about = {("job", facts["backtestId"])}
            case "replay_changed":
                said = f"replay {facts['replayId']} is {facts['status']}"
                about = {("client", facts["clientId"]), *self._replays.get(facts["replayId"], NOBODY)}
            case "client_joined" | "client_left":
                client_id = facts["clientId"]
                on = [peer for peer, client in self._clients.items() if client == client_id and peer in self._sessions]
                about = {("client", client_id)}
                if signal == "client_left" and len(on) == 1:
                    about.add(("session", self._sessions[on[0]]))
            case "worker_lost":
                return None  # told of as the event that it is
        return self._line("signal", said, frozenset(about), signal=signal, **facts)

    # --- who is meant ---

    def _on(self, peer: bytes) -> Subjects:
        about: set[Subject] = set()
        if peer in self._clients:
            about.add(("client", self._clients[peer]))
        if peer in self._sessions:
            about.add(("session", self._sessions[peer]))
        return frozenset(about)

    def _about(self, worker_id: str, task_id: str) -> Subjects:
        """An interactive worker has questions and replays; what another has is a backtest of that id."""
        kind = self._kinds.get(worker_id, "interactive" if task_id.startswith("question-") else "compute")
        if kind == "compute":
            return frozenset({("job", task_id)})
        return self._tasks.get(task_id, self._replays.get(task_id, NOBODY))

    def _of_change(self, change: Change) -> Subjects:
        match change:
            case JobPut(record):
                # Here at the latest it is known which backtest a request without an id of its own has started.
                job: Subjects = frozenset({("job", record.backtest_id)})
                if (request := self._asked.get((record.client_id, record.request_id))) is not None:
                    self._tell_again(request, job)
                return job
            case JobDeleted(backtest_id):
                return frozenset({("job", backtest_id)})
            case AnswerPut(record):
                request = self._asked.get((record.client_id, record.request_id))
                return request.subjects if request is not None else frozenset({("client", record.client_id)})
            case StatePut(record):
                return _of_key(record.key)
            case _:
                assert_never(change)

    def _tell_again(self, line: Line, more: Subjects) -> Line:
        """The line with what is known now."""
        if more <= line.subjects:
            return line
        line = msgspec.structs.replace(line, subjects=line.subjects | more)
        for key, request in self._asked.items():
            if request.place == line.place:
                self._asked[key] = line
        self._again.append(line)
        return line

    def _settled(self, ticket: int | None) -> Subjects:
        """Whom the changes up to `ticket`, or all of them, are about; they are on their way no longer."""
        settled = [one for one in self._tickets if ticket is None or one <= ticket]
        return NOBODY.union(*(self._tickets.pop(one) for one in settled))


def _of_prefix(prefix: bytes) -> Subjects:
    """The topic, where the prefix is all of one."""
    topic = prefix.decode("utf-8", "replace")
    return frozenset({("topic", topic)}) if topics.class_of(topic) is not None else NOBODY


def _shown(prefix: bytes) -> str:
    return repr(prefix.decode("utf-8", "replace"))


def _of_key(key: str) -> Subjects:
    return frozenset({("topic", topics.state(key))})


def _named(type_name: str, data: dict[str, Any]) -> Subjects:
    """What a request names: a backtest, a topic, also by the symbol that is replayed on it, a key of shared state."""
    named: set[Subject] = set()
    if isinstance(backtest_id := data.get("backtestId"), str):
        named.add(("job", backtest_id))
    if type_name == "FetchMissed" and isinstance(topic := data.get("topic"), str):
        named.add(("topic", topic))
    symbol, timeframe = data.get("symbol"), data.get("timeframe")
    if type_name == "StartPriceReplay" and isinstance(symbol, str) and isinstance(timeframe, str):
        named.add(("topic", topics.prices(symbol, timeframe)))
    if isinstance(key := data.get("key"), str):
        named.add(("topic", topics.state(key)))
    return frozenset(named)


def _identified(envelope: Envelope) -> str:
    return f"id {envelope.id}, counter {envelope.counter}" if envelope.counter is not None else f"id {envelope.id}"


def _messages(count: int) -> str:
    return "a message" if count == 1 else f"{count} messages"


def _envelope(frames: list[bytes]) -> Envelope | None:
    return _decoded(_envelopes, frames)


def _decoded(decoder: msgspec.msgpack.Decoder[T], frames: list[bytes]) -> T | None:
    """The one frame as what it should be; None where it is not that."""
    try:
        return decoder.decode(frames[0])
    except (IndexError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _mapping(data: bytes | msgspec.Raw) -> dict[str, Any]:
    """A request's or an answer's data; nothing of what is no map."""
    try:
        decoded = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}
