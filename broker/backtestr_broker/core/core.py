"""The broker's core: a function of events and time that composes the machines beside it.

    effects = core.handle(event, now)      # now: monotonic seconds
    deadline = core.next_deadline()        # when handle(Tick(…), now) is due

What a request passes, in this order: signature, envelope, session, counter, duplicate, room and rate, type, data
(PROTOCOL.md, sections 2 to 5). Whatever fails there is answered and changes nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from backtestr_broker.core.clients.admission import Admission
from backtestr_broker.core.clients.idempotency import Answer, AnsweredRequests, RequestKey
from backtestr_broker.core.clients.log_limits import LogLimit
from backtestr_broker.core.clients.sessions import Hellos, Session, Sessions
from backtestr_broker.core.requests.dispatch import Requests
from backtestr_broker.core.requests.price_replay_requests import PriceReplayRequests
from backtestr_broker.core.requests.state_requests import update_message
from backtestr_broker.core.scheduling.jobs import Job
from backtestr_broker.core.scheduling.liveness import Liveness
from backtestr_broker.core.scheduling.scheduler import Scheduler
from backtestr_broker.core.scheduling.workers import Worker
from backtestr_broker.core.streams.feeds import Feeds
from backtestr_broker.core.streams.listeners import Listeners
from backtestr_broker.core.streams.sequencer import Sequencer
from backtestr_protocol import PROTOCOL_VERSION, __version__, topics, worker_channel
from backtestr_protocol.codec import REQUEST, Envelope, decode, decode_message, encoded_payload
from backtestr_protocol.errors import (
    BacktestrError,
    ErrorData,
    MessageError,
    MessageTooLarge,
    ProtocolVersionUnsupported,
    SystemFault,
    ValidationError,
)
from backtestr_protocol.messages import AlgorithmInfo, AlgorithmStatus, Contract, Hello, Welcome
from backtestr_protocol.stream_messages import Watermarks
from backtestr_protocol.system_status import SystemStatus

from .commit_queue import Pending
from .counters import REPEATED, SUCCESS, UNKNOWN, Counters, failure_in
from .durability import Durability
from .envelopes import Envelopes
from .events import (
    ClientsDropped,
    CommitFailed,
    Committed,
    Effect,
    Event,
    HostSample,
    Instruct,
    Kill,
    ListenersFound,
    Notify,
    Persist,
    ReadState,
    RequestReceived,
    StateRead,
    Subscribed,
    SubscribersDropped,
    Tick,
    WorkerExited,
    WorkerSent,
    WorkerStarted,
)
from .price_replays import PriceReplay
from .records import Change, Restored, StateRecord
from .settings import CoreSettings
from .shared_state import SharedState
from .status import streams_status, system_status
from .worker_messages import WorkerMessages

# Heartbeats that a session may be silent for and is still spared when their table is full: clients ping at every one.
SPARED_HEARTBEATS = 3
# Refusals that say nothing of the request itself: the same id may try again, so they are not remembered.
PASSING = ("BUSY", "SYSTEM_ERROR", "RATE_LIMIT_EXCEEDED")

# Algorithm versions whose last error is remembered; the ones that failed longest ago are forgotten.
MAX_ALGORITHM_ERRORS = 1000
# Seconds between two errors about unreadable messages of one connection, in answers and log (PROTOCOL.md, section 5).
UNATTRIBUTED_INTERVAL = 1.0
# Refused requests that are logged in an interval, in seconds: more than a person who tries something out makes, and
# 40 kB of log in a second at the most. The recorder has them all.
REFUSALS_INTERVAL = 1.0
REFUSALS_LOGGED = 20
# Characters of a request's type that the log repeats: it may be anything.
SHOWN = 100

_hello_decoder = msgspec.msgpack.Decoder(Hello)


class Core:
    """One broker's whole state. `workers` counts the workers it is configured to have, by kind."""

    def __init__(
        self,
        *,
        key: bytes,
        instance_id: str,
        limits: CoreSettings,
        workers: Mapping[worker_channel.WorkerKind, int],
        now: float,
        restored: Restored = Restored(),  # noqa: B008 - frozen
    ) -> None:
        """`restored` is what an earlier broker left on disk."""
        self.instance_id = instance_id
        self.limits = limits
        heartbeat = limits.heartbeat_interval_ms / 1000
        self.sessions = Sessions(key, limits.session_timeout_ms / 1000, SPARED_HEARTBEATS * heartbeat)
        self._hellos = Hellos()
        self.sequencer = Sequencer()
        self.subscriptions = Listeners()
        self.measures = Counters()
        self._refusals = LogLimit(REFUSALS_INTERVAL, passes=REFUSALS_LOGGED)
        self.scheduler = Scheduler(
            self,
            max_queued_backtests=limits.max_queued_backtests,
            max_queued_questions=limits.max_queued_questions,
        )
        self.algorithms: dict[str, AlgorithmInfo] = {}  # by name, the newest version
        self.algorithm_errors: OrderedDict[str, ErrorData] = OrderedDict()  # by id, the latest of each, the latest last
        self.wall_ms = 0
        self.host = HostSample(memory_used=0, memory_total=0, cpu_percent=0.0, loop_lag_ms=0.0)
        self._post = Envelopes(key, instance_id)
        self._answers = AnsweredRequests()
        self._admission = Admission(limits.rates, self._answers)
        self._complaints = LogLimit(UNATTRIBUTED_INTERVAL)
        hung, silence = limits.worker_hung_ms / 1000, limits.worker_silence_ms / 1000
        liveness = Liveness(hung=hung, silence=silence, interval=heartbeat, now=now)
        self.crew = WorkerMessages(self, liveness, self._post.signer, self._complaints)
        self.replays = PriceReplayRequests(self)
        self.feeds = Feeds()
        self._requests = Requests(self)
        self._configured_workers = workers
        self._started = self._now = now
        self._effects: list[Effect] = []
        self._heartbeat_due = now
        self._watermarks_due = now
        self.state = SharedState()
        self.durability = Durability(self)
        self._verify_due = now
        self._restore(restored, now)

    def _restore(self, restored: Restored, now: float) -> None:
        self.scheduler.restore(restored.jobs)
        for job in self.scheduler.jobs:
            self._create_topics(job)
        for one in restored.answers:
            answered = now - max(0, restored.wall_ms - one.wall_ms) / 1000
            self._answers.restore(one.client_id, one.request_id, Answer(one.payload), answered)
        self.state.restore(restored.state)
        self._moved_aside = restored.moved_aside

    # --- the three entrances ---

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event at `now`; returns what is to be done, in order."""
        self.measures.settle(self._now)  # for whoever does not measure how long effects take
        self._now = now
        self.wall_ms = event.wall_ms
        self.scheduler.at(event.wall_ms)
        match event:
            case RequestReceived(peer, frames):
                self._on_frames(peer, frames)
            case ClientsDropped(reason):
                for session in self.sessions.clear():
                    self.notify("client_left", clientId=session.client_id, reason=reason)
                self.subscriptions.clear()
            case Subscribed() | ListenersFound() | SubscribersDropped():
                self.subscriptions.take(event)
            case WorkerSent(peer, frames):
                self.crew.said(peer, frames, now)
            case WorkerStarted():
                self.crew.started(event, now)
            case WorkerExited():
                self.crew.exited(event, now)
            case Tick(host):
                self.host = host
                self._on_time(now)
            case Committed(ticket):
                self.durability.committed(ticket)
            case CommitFailed(generation, reason):
                self.measures.commit_failures += 1
                self.durability.failed(generation, reason, now)
            case StateRead(key, record):
                self._on_state_read(key, record)
        self.durability.save(now)
        self._mend_state()
        effects, self._effects = self._effects, []
        return effects

    def next_deadline(self) -> float:
        """When `handle(Tick(…))` is due at the latest, in the same monotonic seconds."""
        deadline = self._heartbeat_due
        if self.sequencer.has_moved:
            deadline = min(deadline, self._watermarks_due)
        if len(self.state):
            deadline = min(deadline, self._verify_due)
        for other in (self.sessions.next_deadline(), self.durability.next_deadline()):
            if other is not None and other < deadline:
                deadline = other
        return deadline

    def check_invariants(self) -> None:
        """Raise `AssertionError` where the state contradicts itself."""
        self.sessions.check_invariants()
        self._hellos.check_invariants()
        self._answers.check_invariants()
        self._admission.check_invariants()
        self.sequencer.check_invariants()
        self.subscriptions.check_invariants()
        self.measures.check_invariants()
        self._refusals.check_invariants()
        self.scheduler.check_invariants()
        self.durability.check_invariants()
        self.state.check_invariants()
        self.replays.check_invariants()
        self.feeds.check_invariants()
        assert not self._effects
        self._complaints.check_invariants()
        assert len(self.algorithm_errors) <= MAX_ALGORITHM_ERRORS
        assert all(info.name == name for name, info in self.algorithms.items())

    # --- requests ---

    def _on_frames(self, peer: bytes, frames: list[bytes]) -> None:
        try:
            size = sum(map(len, frames))
            if size > self.limits.max_message_bytes:
                raise MessageTooLarge(
                    f"{size} bytes came; a request has at most {self.limits.max_message_bytes}",
                    bytes=size,
                    maxMessageBytes=self.limits.max_message_bytes,
                )
            envelope = decode_message(self._post.signer, REQUEST, frames).envelope
        except MessageError as error:
            self._refuse(peer, error)
            return
        request_type = envelope.payload.type
        if envelope.message_type != "Request":
            wrong = ValidationError(
                f"$.messageType: {envelope.message_type!r} came, expected 'Request'", path="$.messageType"
            )
            self._reply_error(peer, envelope.id, wrong, request_type)
            return
        try:
            if request_type == "Hello":
                self._hellos.take(frames[0], envelope.timestamp)
                welcome = self._greet(envelope, peer)
                answer = Answer(encoded_payload("Success", welcome))
                self.measures.answered(request_type, SUCCESS)
                self._effects.append(self._post.welcome(peer, envelope.id, answer, self.wall_ms))
                return
            session = self._admit(envelope, peer)
        except BacktestrError as error:
            self._reply_error(peer, envelope.id, error, request_type)
            return
        self._execute(session, envelope, peer)

    def _admit(self, envelope: Envelope, peer: bytes) -> Session:
        for name, value in (("sessionId", envelope.session_id), ("counter", envelope.counter)):
            if value is None:
                raise ValidationError(f"$.{name}: required in every request but Hello, and missing", path=f"$.{name}")
        session = self.sessions.find(envelope.session_id, peer, self._now)
        assert envelope.counter is not None
        session.use(envelope.counter)
        return session

    def _greet(self, envelope: Envelope, peer: bytes) -> Welcome:
        hello = decode(_hello_decoder, envelope.payload.data)
        if PROTOCOL_VERSION not in hello.protocol_versions:
            raise ProtocolVersionUnsupported(
                f"no protocol version in common: this broker speaks [{PROTOCOL_VERSION}]",
                supported=[PROTOCOL_VERSION],
            )
        if (earlier := self.sessions.on(peer)) is not None:
            self._leave(earlier, "said Hello again")
        self._admission.count(hello.client_id, "Hello")
        self._admission.check(hello.client_id, "Hello", self._now)
        if (silent := self.sessions.make_room(self._now)) is not None:
            self.notify("client_left", clientId=silent.client_id, reason="silent while the table of sessions was full")
        session = self.sessions.open(hello.client_id, peer, self._now)
        self.notify("client_joined", clientId=hello.client_id, clientName=hello.client_name)
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

    def close(self, session: Session) -> None:
        """The client said goodbye."""
        self._leave(session, "said goodbye")

    def _leave(self, session: Session, reason: str) -> None:
        self.sessions.close(session)
        self.notify("client_left", clientId=session.client_id, reason=reason)

    def _execute(self, session: Session, envelope: Envelope, peer: bytes) -> None:
        """Run a request that is allowed in, unless it ran before."""
        request_key = (session.client_id, envelope.id)
        self._admission.count(session.client_id, envelope.payload.type)
        begun = self._answers.begin(*request_key, peer, self._now)
        if begun is not True:
            self.measures.answered(envelope.payload.type, REPEATED)
            if isinstance(begun, Answer):
                self._reply(peer, envelope.id, begun)
            return
        if (job := self.scheduler.jobs.started_by(request_key)) is not None:  # its answer is forgotten, the job is not
            self.measures.answered(envelope.payload.type, REPEATED)
            accepted = Answer(encoded_payload("Success", job.accepted()))
            self._reply(self._answers.finish(*request_key, accepted, self._now), envelope.id, accepted)
            return
        try:
            self._admission.check(session.client_id, envelope.payload.type, self._now)
        except BacktestrError as error:
            self._answers.abandon(*request_key)
            self._admission.refused(session.client_id, error.code)
            self._reply_error(peer, envelope.id, error, envelope.payload.type)
            return
        self.measures.began(request_key, envelope.payload.type, self._now)
        try:
            answer = self._requests.execute(session, envelope.payload, request_key)
        except BacktestrError as error:
            self.answer(request_key, error)
        else:
            if answer is not None:
                self.answer(request_key, answer)

    def _refuse(self, peer: bytes, error: MessageError) -> None:
        """Answer what could not be decoded: to its request where its id can be read, else at most once a second."""
        if error.message_id is not None:
            self._reply_error(peer, error.message_id, error)
            return
        self.measures.answered(UNKNOWN, error.code)
        if self._complaints.check(self._now, peer) is not None:
            self.notify("message_refused", code=error.code, reason=error.message)
            payload = encoded_payload("Error", self.error_data(error))
            self._effects.append(self._post.complaint(peer, Answer(payload), self.wall_ms))

    # --- time ---

    def _on_time(self, now: float) -> None:
        if self._moved_aside is not None:
            self.report(SystemFault(self._moved_aside))
            self._moved_aside = None
        if now >= self._heartbeat_due:
            self._heartbeat_due = now + self.limits.heartbeat_interval_ms / 1000
            self._answers.expire(now)
            self.crew.look(self.host.cpu_seconds, now)
            self.replays.look({session.client_id for session in self.sessions}, now)
            self._effects += self.subscriptions.to_ask()
            self.publish(topics.STATUS, encoded_payload("SystemStatus", self.status()))
        if now >= self._verify_due:
            self._verify_due = now + self.limits.verify_interval_ms / 1000
            self.state.verify()
        for session in self.sessions.expire(now):
            self.notify("client_left", clientId=session.client_id, reason="silent for too long")
        if now >= self._watermarks_due and self.sequencer.has_moved:
            self._watermarks_due = now + self.limits.watermark_interval_ms / 1000
            moved = Watermarks(topics=self.sequencer.take_moved())
            self.publish(topics.WATERMARKS, encoded_payload("Watermarks", moved))
            self.sequencer.forget_move(topics.WATERMARKS)

    def status(self) -> SystemStatus:
        """SystemStatus as of now."""
        return system_status(
            scheduler=self.scheduler,
            liveness=self.crew.liveness,
            connections=self._admission.connections(self.sessions, self.scheduler),
            throttle=self._admission.throttling(),
            streams=streams_status(self.sequencer, self.subscriptions, self.measures),
            host=self.host,
            disk_fails=self.durability.fails,
            configured_workers=self._configured_workers,
            uptime=self._now - self._started,
            now=self._now,
            wall_ms=self.wall_ms,
        )

    # --- shared state ---

    def state_changed(self, record: StateRecord) -> None:
        self.publish(topics.state(record.key), encoded_payload("StateUpdate", update_message(record)))

    def _mend_state(self) -> None:
        """Have what was found damaged in memory read from disk."""
        for key in self.state.take_damaged():
            self.report(SystemFault(f"the value of state key {key!r} in memory is damaged; it is read from disk again"))
            self._effects.append(ReadState(key))

    def _on_state_read(self, key: str, record: StateRecord | None) -> None:
        if self.state.repair(key, record):
            self.notify("state_repaired", key=key)
        else:
            lost = "is damaged on disk too; it cannot be read until it is set anew"
            self.report(SystemFault(f"the value of state key {key!r} {lost}"))

    # --- what the scheduler makes happen ---

    def answer(self, request_key: RequestKey, result: Contract | Answer | BacktestrError | ErrorData) -> None:
        """Answer a running request, and remember the answer; a refusal for lack of room or a fault may be tried again
        with the same id, so those are not remembered."""
        if isinstance(result, BacktestrError):
            result = self.error_data(result, clientId=request_key[0], requestId=request_key[1])
        if isinstance(result, ErrorData):
            result = Answer(encoded_payload("Failure", result))
        answer = result if isinstance(result, Answer) else Answer(encoded_payload("Success", result))
        error = failure_in(answer.payload)
        is_passing = error is not None and error.code in PASSING
        peer = (
            self._answers.abandon(*request_key) if is_passing else self._answers.finish(*request_key, answer, self._now)
        )
        self._reply(peer, request_key[1], answer)
        request_type = self.measures.ended(request_key, SUCCESS if error is None else error.code)
        if error is not None:
            self._admission.refused(request_key[0], error.code)
            self._tell_of_refusal(*request_key, request_type, error)

    def instruct(self, worker: Worker, note: worker_channel.ToWorker, payload: bytes | None = None) -> None:
        assert worker.peer is not None
        frames = worker_channel.encode_to_worker(self._post.signer, note, () if payload is None else (payload,))
        self._effects.append(Instruct(worker.peer, frames))

    def publish(self, topic: str, payload: bytes, count: int = 1) -> None:
        """Sequence and keep one stream payload, and send it where anybody may listen."""
        placed = self.sequencer.append(topic, payload, count)
        heard = self.subscriptions.wants(placed.topic_class.socket, placed.name)
        if heard:
            self._effects.append(self._post.stream(placed, payload, self.wall_ms))
        self.measures.published(placed.topic_class, count, len(payload), heard=heard)

    def kill(self, worker_id: str, reason: str) -> None:
        self._effects.append(Kill(worker_id, reason))

    def report(self, error: BacktestrError) -> None:
        """Tell everyone who listens to `system.errors`."""
        self.publish(topics.ERRORS, encoded_payload("Error", self.error_data(error)))

    def persist(self, changes: Sequence[Change], held: Pending) -> None:
        self.durability.persist(changes, held)

    def answer_durably(self, request_key: RequestKey, result: Contract) -> None:
        self.durability.answer(request_key, result)

    def save_job(self, backtest_id: str) -> None:
        self.durability.save_job(backtest_id)

    def send_to_disk(self, persist: Persist) -> None:
        self._effects.append(persist)

    def job_changed(self, job: Job) -> None:
        if job.status == "queued" and not job.losses:
            self._create_topics(job)
        if job.error is not None and job.error.code == "ALGORITHM_ERROR":
            self.algorithm_errors[job.algorithm_id] = job.error
            self.algorithm_errors.move_to_end(job.algorithm_id)
            if len(self.algorithm_errors) > MAX_ALGORITHM_ERRORS:
                self.algorithm_errors.popitem(last=False)
        self.notify("backtest_changed", **job.facts())
        self.save_job(job.backtest_id)
        while (forgotten := self.scheduler.jobs.forget_oldest()) is not None:
            self.save_job(forgotten.backtest_id)
            for topic in topics.of_backtest(forgotten.backtest_id):
                self.sequencer.drop(topic)

    def registered(self, info: AlgorithmInfo) -> None:
        """A worker has, or was given, an algorithm: its name means it, unless a version that was registered later does.
        A worker may have started to get ready before that."""
        known = self.algorithms.get(info.name)
        later = known.registered_time if known is not None else None
        if info.registered_time is None or later is None or info.registered_time >= later:
            self.algorithms[info.name] = info

    def algorithm_status(self, info: AlgorithmInfo) -> AlgorithmStatus:
        return self._requests.status_of(info)

    def replay_opened(self, replay_id: str, worker: Worker | None, result: bytes | BacktestrError | ErrorData) -> None:
        self.replays.opened(replay_id, worker, result)

    def replays_lost(self, worker_id: str, reason: str) -> None:
        self.replays.lost(worker_id, reason)

    def replay_changed(self, replay: PriceReplay) -> None:
        self.notify("replay_changed", **replay.facts())

    def _create_topics(self, job: Job) -> None:
        for topic in topics.of_backtest(job.backtest_id):
            self.sequencer.create(topic)

    def last_seq(self, topic: str) -> int:
        return self.sequencer.last_seq(topic)

    def error_data(self, error: BacktestrError, **about: str) -> ErrorData:
        """The error as it travels; a fault of our own gets an id that also stands in the log, with what it is about."""
        if isinstance(error, SystemFault):
            fault_id = self.unique_id()
            error = type(error)(error.message, **{**(error.details or {}), "id": fault_id})
            self.notify("fault", code=error.code, message=error.message, id=fault_id, **about)
        return error.to_data(component="broker", timestamp=self.wall_ms)

    def unique_id(self) -> str:
        return self._post.unique_id()

    def _reply_error(self, peer: bytes, request_id: str, error: BacktestrError, request_type: str = UNKNOWN) -> None:
        """Refuse a request that was not begun."""
        data = self.error_data(error, requestId=request_id)
        self._reply(peer, request_id, Answer(encoded_payload("Failure", data)))
        self.measures.answered(request_type, data.code)
        session = self.sessions.on(peer)
        self._tell_of_refusal(session.client_id if session else None, request_id, request_type, data)

    def _tell_of_refusal(self, client_id: str | None, request_id: str, request_type: str, data: ErrorData) -> None:
        if (untold := self._refusals.check(self._now)) is not None:
            facts = {"clientId": client_id, "requestId": request_id, "type": request_type[:SHOWN], "code": data.code}
            more = {"untold": untold} if untold else {}
            self.notify("request_refused", **facts, message=data.message, **more)

    def _reply(self, peer: bytes, request_id: str, answer: Answer) -> None:
        self._effects.append(self._post.response(peer, request_id, answer, self.wall_ms))

    def notify(self, signal: Any, **facts: Any) -> None:
        self._effects.append(Notify(signal, facts))
