"""The broker's core: a function of events and time that composes the machines beside it.

    effects = core.handle(event, now)      # now: monotonic seconds
    deadline = core.next_deadline()        # when handle(Tick(…), now) is due

A request passes these checks, in this order: signature, envelope, session, counter, right, duplicate, space and rate,
type, data (PROTOCOL.md, sections 2 to 5). One that fails is answered with an error and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from backtestr_broker.core.clients.admission import Admission
from backtestr_broker.core.clients.answers import Answer
from backtestr_broker.core.clients.hellos import Hellos
from backtestr_broker.core.clients.idempotency import AnsweredRequests
from backtestr_broker.core.clients.sessions import Session, Sessions, owner_of
from backtestr_broker.core.requests.dispatch import Requests
from backtestr_broker.core.requests.price_replay_requests import PriceReplayRequests
from backtestr_broker.core.requests.result_requests import ResultRequests
from backtestr_broker.core.requests.state_requests import StateRequests
from backtestr_broker.core.requests.sweep_requests import SweepRequests
from backtestr_broker.core.scheduling.liveness import Liveness
from backtestr_broker.core.scheduling.scheduler import Scheduler
from backtestr_protocol import PROTOCOL_VERSION, __version__, topics, worker_channel
from backtestr_protocol.codec import REQUEST, Signer, decode, decode_message, encoded_payload, readable_id
from backtestr_protocol.envelopes import Envelope
from backtestr_protocol.errors import (
    BacktestrError,
    MessageError,
    MessageTooLarge,
    ProtocolVersionUnsupported,
    SystemFault,
    ValidationError,
)
from backtestr_protocol.message_types import REQUESTS
from backtestr_protocol.messages import Hello, Welcome
from backtestr_protocol.rights import check_right
from backtestr_protocol.stream_messages import Watermarks
from backtestr_protocol.system_status import SystemStatus

from .algorithms import Algorithms
from .counters import REPEATED, UNKNOWN
from .deletions import Deletions
from .durability import Durability
from .envelopes import Envelopes
from .events import (
    ClientsDropped,
    CommitFailed,
    Committed,
    Effect,
    Event,
    FilesSurveyed,
    ListenersFound,
    ReadState,
    RequestReceived,
    ResultsRemoved,
    StateRead,
    Subscribed,
    SubscribersDropped,
    Tick,
    WorkerExited,
    WorkerSent,
    WorkerStarted,
)
from .faults import Faults
from .outbox import Outbox
from .records import Restored, StateRecord
from .settings import CoreSettings
from .shared_state import SharedState
from .status import Status
from .stored_results import StoredResults
from .sweep_retention import SweepRetention
from .worker_messages import WorkerMessages

# ZeroMQ gives a connection an id that begins with this byte, another to each, unless the peer gives itself one.
GENERATED = b"\0"
# A message of up to so many times the limit is read as far as its id: some ten milliseconds. ZeroMQ itself ends a
# connection whose frame is larger (`io/sockets`).
ATTRIBUTED = 2
# Heartbeats that a session may be silent for and is still spared when their table is full: clients ping at every one.
SPARED_HEARTBEATS = 3

_hello_decoder = msgspec.msgpack.Decoder(Hello)


class Core:
    """One broker's whole state. `workers` counts the workers that it is configured to have, by kind."""

    def __init__(
        self,
        *,
        signer: Signer,
        id_seed: bytes,
        instance_id: str,
        limits: CoreSettings,
        workers: Mapping[worker_channel.WorkerKind, int],
        now: float,
        restored: Restored = Restored(),  # noqa: B008 - frozen
        build: str | None = None,
    ) -> None:
        """Take over what an earlier broker left on disk, `restored`.

        `signer` holds the signing key. The ids of sessions and messages are made from `id_seed`, and say nothing of it.
        `build` says which parts are compiled, for the status.
        """
        self.instance_id = instance_id
        self.limits = limits
        heartbeat = limits.heartbeat_interval_ms / 1000
        hung, silence = limits.worker_hung_ms / 1000, limits.worker_silence_ms / 1000
        timeout, spared = limits.session_timeout_ms / 1000, SPARED_HEARTBEATS * heartbeat
        self.sessions = Sessions(id_seed, timeout, spared, limits.max_connections)
        self._hellos = Hellos()
        self._answers = AnsweredRequests()
        self._admission = Admission(limits.rates, self._answers)
        self.outbox = Outbox(Envelopes(signer, id_seed, instance_id), self._answers, self._admission, now)
        self.counters = self.outbox.counters
        self.listeners = self.outbox.listeners
        self.sequencer = self.outbox.sequencer
        self.algorithms = Algorithms()
        self.state = SharedState()
        self.scheduler = Scheduler(
            self.outbox,
            self.algorithms,
            replays_lost=self._replays_lost,
            configured=workers,
            max_queued_backtests=limits.max_queued_backtests,
            max_queued_questions=limits.max_queued_questions,
        )
        self.deletions = Deletions(self.outbox, self.scheduler, StoredResults(), limits.retention)
        self.sweep_retention = SweepRetention(self.outbox, self.scheduler.sweeping, limits.sweep_retention)
        self.durability = Durability(self.outbox, self.scheduler, self.state, self.deletions)
        self.replays = PriceReplayRequests(self.outbox, self.scheduler)
        liveness = Liveness(hung=hung, silence=silence, interval=heartbeat, now=now)
        self.worker_messages = WorkerMessages(
            self.outbox,
            scheduler=self.scheduler,
            replays=self.replays,
            algorithms=self.algorithms,
            liveness=liveness,
        )
        self._status = Status(
            self.outbox,
            sessions=self.sessions,
            admission=self._admission,
            scheduler=self.scheduler,
            liveness=liveness,
            configured=workers,
            state=self.state,
            stored=self.deletions.stored,
        )
        self._status.build = build
        self._requests = Requests(
            self.outbox,
            sessions=self.sessions,
            status=self._status,
            scheduler=self.scheduler,
            algorithms=self.algorithms,
            state=StateRequests(self.outbox, self.state, self.durability),
            replays=self.replays,
            results=ResultRequests(self.outbox, self.scheduler.jobs, self.deletions),
            sweeps=SweepRequests(self.outbox, self.scheduler, limits.sweep_scheduler),
        )
        self._faults = Faults(self.outbox, self.sessions, self.scheduler.workers, self.check_invariants)
        self._heartbeat_due = self._watermarks_due = self._verify_due = now
        self._restore(restored, now)

    def _restore(self, restored: Restored, now: float) -> None:
        self.scheduler.restore(restored.jobs)
        self.scheduler.sweeping.restore(restored.sweeps)
        for one in restored.answers:
            answered = now - max(0, restored.wall_ms - one.wall_ms) / 1000
            self._answers.restore(one.client_id, one.request_id, Answer(one.payload), answered)
        self.state.restore(restored.state)
        self.deletions.stored.restore(restored.pins)
        self.deletions.restore(restored.deletions)
        self._moved_aside = restored.moved_aside
        self._status.was_damaged = restored.moved_aside is not None

    def _replays_lost(self, worker_id: str, reason: str) -> None:
        self.replays.lost(worker_id, reason)

    # --- the three entrances ---

    def handle(self, event: Event, now: float, *, goes_on: bool = False) -> list[Effect]:
        """Take one event at `now`; returns what is to be done, in order. It raises nothing: see `faults`.

        `goes_on`: it came with the event before, whose effects are executed only after this call.
        """
        outbox = self.outbox
        try:
            if not goes_on:
                self.counters.settle(outbox.now)  # in case the caller does not measure how long effects take
            outbox.now, outbox.wall_ms = now, event.wall_ms
            match event:
                case RequestReceived():
                    self._on_frames(event)
                case WorkerSent(peer, frames):
                    self.worker_messages.received(peer, frames, now)
                case ClientsDropped(reason):
                    for session in self.sessions.clear():
                        outbox.notify("client_left", clientId=session.client_id, reason=reason)
                    self.listeners.clear()
                    self.scheduler.stream_fetches.listeners_changed()
                case Subscribed() | ListenersFound() | SubscribersDropped():
                    self.listeners.take(event)
                    self.scheduler.stream_fetches.listeners_changed()
                case WorkerStarted():
                    self.worker_messages.started(event, now)
                case WorkerExited():
                    self.worker_messages.exited(event, now)
                case Tick(host):
                    self._status.host = host
                    self._on_time(now)
                case Committed(ticket):
                    self.durability.committed(ticket)
                case CommitFailed(generation, reason):
                    self.counters.commit_failures += 1
                    self.durability.failed(generation, reason, now)
                case StateRead(key, record):
                    self._on_state_read(key, record)
                case FilesSurveyed():
                    self.deletions.surveyed(event, now)
                    if event.problem is None:
                        self.sweep_retention.surveyed(event.sweeps)
                case ResultsRemoved():
                    self.deletions.removed(event)
            self.durability.save(now)
            if self.state.damage_found:
                self._repair_state()
            return outbox.take_effects()
        except Exception as error:  # a defect, of whatever kind, ends neither the broker nor other clients' work
            return self._faults.take(event, error, now)

    def next_deadline(self) -> float:
        """Return when `handle(Tick(…))` is due at the latest, in the same monotonic seconds."""
        deadline = self._heartbeat_due
        if self.sequencer.has_advanced:
            deadline = min(deadline, self._watermarks_due)
        if len(self.state):
            deadline = min(deadline, self._verify_due)
        others = (self.sessions.next_deadline(), self.durability.next_deadline(), self.deletions.next_deadline())
        for other in others:
            if other is not None and other < deadline:
                deadline = other
        return max(deadline, self._faults.not_before)

    def status(self) -> SystemStatus:
        """Return the status as of now."""
        return self._status.report()

    def check_invariants(self) -> None:
        """Raise `AssertionError` where the state contradicts itself."""
        self.outbox.check_invariants()
        self.sessions.check_invariants()
        self._hellos.check_invariants()
        self._admission.check_invariants()
        self.algorithms.check_invariants()
        self.state.check_invariants()
        self.scheduler.check_invariants()
        self.durability.check_invariants()
        self.deletions.check_invariants()
        self.replays.check_invariants()
        self._requests.check_invariants()
        self._faults.check_invariants()
        waiting = [*self.scheduler.waiting_requests(), *self.replays.waiting_requests()]
        waiting += [*self.outbox.commit_queue.waiting_requests(), *self.deletions.waiting_requests()]
        assert len(waiting) == len(set(waiting)), "two answers of a request are on their way"
        assert set(waiting) == self._answers.all_running(), "a request waits for nothing, or its answer for no request"

    # --- requests ---

    def _on_frames(self, received: RequestReceived) -> None:
        peer, frames = received.peer, received.frames
        try:
            size = 0
            for frame in frames:
                size += len(frame)
            if size > self.limits.max_message_bytes:
                raise self._too_large(size, frames)
            envelope = decode_message(self.outbox.envelopes.signer, REQUEST, frames).envelope
        except MessageError as error:
            if error.message_id is not None:
                self._refuse(peer, error.message_id, error)
            else:
                self.outbox.refuse_unattributed(peer, error)
            return
        request_type = envelope.payload.type
        if envelope.message_type != "Request":
            wrong = ValidationError(
                f"$.messageType: {envelope.message_type!r} came, expected 'Request'", path="$.messageType"
            )
            self._refuse(peer, envelope.id, wrong, request_type)
            return
        try:
            if request_type == "Hello":
                self.outbox.welcome(peer, envelope.id, self._open_session(envelope, received))
                return
            session = self._admit(envelope, received)
        except BacktestrError as error:
            self._refuse(peer, envelope.id, error, request_type)
            return
        self._execute(session, envelope, peer)

    def _too_large(self, size: int, frames: list[bytes]) -> MessageTooLarge:
        """Return the error for a request that is too large, with its id where that can be read for a bounded price."""
        most = self.limits.max_message_bytes
        error = MessageTooLarge(f"{size} bytes came; a request has at most {most}", bytes=size, maxMessageBytes=most)
        if size <= ATTRIBUTED * most:
            error.message_id = readable_id(self.outbox.envelopes.signer, REQUEST, frames)
        return error

    def _admit(self, envelope: Envelope, received: RequestReceived) -> Session:
        for name, value in (("sessionId", envelope.session_id), ("counter", envelope.counter)):
            if value is None:
                raise ValidationError(f"$.{name}: required in every request but Hello, and missing", path=f"$.{name}")
        session = self.sessions.find(envelope.session_id, received.peer, self.outbox.now)
        assert envelope.counter is not None
        session.use(envelope.counter)
        row = REQUESTS.get(envelope.payload.type)
        if row is not None and received.key is not None:
            check_right(envelope.payload.type, row.right, received.right, received.key)
        return session

    def _open_session(self, envelope: Envelope, received: RequestReceived) -> Welcome:
        peer, now = received.peer, self.outbox.now
        if not peer.startswith(GENERATED):
            raise ValidationError(
                "this connection has given itself a routing id (ZMQ_ROUTING_ID), under which another could go on with "
                "its session; connect without one",
                path="$",
            )
        hello = decode(_hello_decoder, envelope.payload.data)
        owner = owner_of(hello.client_id, received.key)
        if self._answers.is_of_another(hello.client_id, owner):
            raise ValidationError(
                "$.clientId: a client with another key has this id, and answers are remembered for it; make a new id",
                path="$.clientId",
            )
        self._hellos.take(owner, received.frames[0], envelope.timestamp, self.outbox.wall_ms)
        if PROTOCOL_VERSION not in hello.protocol_versions:
            raise ProtocolVersionUnsupported(
                f"no protocol version in common: this broker speaks [{PROTOCOL_VERSION}]",
                supported=[PROTOCOL_VERSION],
            )
        if (earlier := self.sessions.on(peer)) is not None:
            self._close_session(earlier, "said Hello again")
        self._admission.count(hello.client_id, "Hello")
        self._admission.check(owner, "Hello", now)
        if (silent := self.sessions.make_room(now, received.key)) is not None:
            self.outbox.notify(
                "client_left", clientId=silent.client_id, reason="silent while the table of sessions was full"
            )
        session = self.sessions.open(hello.client_id, peer, now, received.key)
        key = {} if received.key is None else {"key": received.key}
        self.outbox.notify("client_joined", clientId=hello.client_id, clientName=hello.client_name, **key)
        return Welcome(
            session_id=session.session_id,
            instance_id=self.instance_id,
            protocol_version=PROTOCOL_VERSION,
            server_version=__version__,
            heartbeat_interval_ms=self.limits.heartbeat_interval_ms,
            session_timeout_ms=self.limits.session_timeout_ms,
            max_message_bytes=self.limits.max_message_bytes,
            topics=[one.prefix for one in topics.CLASSES],
        )

    def _close_session(self, session: Session, reason: str) -> None:
        self.sessions.close(session)
        self.outbox.notify("client_left", clientId=session.client_id, reason=reason)

    def _execute(self, session: Session, envelope: Envelope, peer: bytes) -> None:
        """Execute an admitted request, unless it was executed before."""
        outbox, request_type = self.outbox, envelope.payload.type
        request_key = (session.client_id, envelope.id)
        self._admission.count(session.client_id, request_type)
        begun = self._answers.begin(*request_key, peer, outbox.now, session.owner)
        if begun is not True:
            if isinstance(begun, Answer):
                outbox.repeat(peer, envelope.id, request_type, begun)
            else:
                self.counters.answered(request_type, REPEATED)
            return
        if (started := self.scheduler.started_by(request_key)) is not None:  # its answer is forgotten, that is not
            accepted = Answer(encoded_payload("Success", started))
            latest = self._answers.finish(*request_key, accepted, outbox.now)
            outbox.repeat(latest, envelope.id, request_type, accepted)
            return
        try:
            self._admission.check(session.owner, request_type, outbox.now)
        except BacktestrError as error:
            self._answers.abandon(*request_key)
            self._admission.refused(session.client_id, error.code)
            self._refuse(peer, envelope.id, error, request_type)
            return
        self.counters.began(request_key, request_type, outbox.now)
        try:
            answer = self._requests.execute(session, envelope.payload, request_key)
        except BacktestrError as error:
            outbox.answer(request_key, error)
        else:
            if answer is not None:
                outbox.answer(request_key, answer)

    def _refuse(self, peer: bytes, request_id: str, error: BacktestrError, request_type: str = UNKNOWN) -> None:
        """Answer a request that was not begun with an error."""
        session = self.sessions.on(peer)
        self.outbox.refuse(peer, request_id, error, request_type, session.client_id if session else None)

    # --- time ---

    def _on_time(self, now: float) -> None:
        if self._moved_aside is not None:
            self.outbox.report(SystemFault(self._moved_aside))
            self._moved_aside = None
        self.scheduler.sweeping.report_unreadable()
        self.deletions.on_time(now)
        if now >= self._heartbeat_due:
            self._heartbeat_due = now + self.limits.heartbeat_interval_ms / 1000
            self._answers.expire(now)
            self.scheduler.results.on_time(now)
            self.worker_messages.check_liveness(self._status.host.cpu_seconds, now)
            self.replays.stop_unread({session.client_id for session in self.sessions}, now)
            self.outbox.add(*self.listeners.to_ask())
            self.outbox.publish(topics.STATUS, encoded_payload("SystemStatus", self._status.heartbeat()))
        if now >= self._verify_due:
            self._verify_due = now + self.limits.verify_interval_ms / 1000
            self.state.verify()
        for session in self.sessions.expire(now):
            self.outbox.notify("client_left", clientId=session.client_id, reason="silent for too long")
        if now >= self._watermarks_due and self.sequencer.has_advanced:
            self._watermarks_due = now + self.limits.watermark_interval_ms / 1000
            advanced = Watermarks(topics=self.sequencer.take_advanced())
            self.outbox.publish(topics.WATERMARKS, encoded_payload("Watermarks", advanced))
            self.sequencer.forget_advance(topics.WATERMARKS)

    # --- shared state ---

    def _repair_state(self) -> None:
        """Have what was found damaged in memory read from disk."""
        for key in self.state.take_damaged():
            self.outbox.report(
                SystemFault(f"the value of state key {key!r} in memory is damaged; it is read from disk again")
            )
            self.outbox.add(ReadState(key))

    def _on_state_read(self, key: str, record: StateRecord | None) -> None:
        if self.state.repair(key, record):
            self.outbox.notify("state_repaired", key=key)
        else:
            lost = "is damaged on disk too; it cannot be read until it is set again"
            self.outbox.report(SystemFault(f"the value of state key {key!r} {lost}"))
