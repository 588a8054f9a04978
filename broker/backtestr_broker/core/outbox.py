"""Collect everything that leaves the core as effects: answers, stream messages, worker messages, changes and signals.

The outbox lies below the scheduler and the requests, so that they need not know the core above them. It owns what makes
an effect: envelopes, sequencer, listeners, counters, remembered answers and the commit queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from backtestr_broker.core.clients.admission import Admission
from backtestr_broker.core.clients.answers import Answer, RequestKey
from backtestr_broker.core.clients.idempotency import AnsweredRequests
from backtestr_broker.core.clients.log_limits import LogLimit
from backtestr_broker.core.streams.listeners import Listeners
from backtestr_broker.core.streams.sequencer import Sequencer
from backtestr_protocol import topics, worker_channel
from backtestr_protocol.codec import encoded_payload
from backtestr_protocol.errors import BacktestrError, ErrorData, MessageError, SystemFault
from backtestr_protocol.messages import Contract

from .commit_queue import CommitQueue, Pending, PendingAnswer
from .counters import REPEATED, SUCCESS, UNKNOWN, Counters
from .envelopes import Envelopes
from .events import Effect, Instruct, Kill, Notify
from .records import AnswerPut, AnswerRecord, Change

# Errors that say nothing of the request itself: the same id may try again, so they are not remembered.
PASSING = ("BUSY", "SYSTEM_ERROR", "RATE_LIMIT_EXCEEDED")
# Seconds between two errors about unreadable messages of one connection, in answers and log (PROTOCOL.md, section 5).
UNATTRIBUTED_INTERVAL = 1.0
# Refused requests that are logged in an interval, in seconds: more than a person who tries something out makes, and
# 40 kB of log in a second at the most. The recorder has them all.
REFUSALS_INTERVAL = 1.0
REFUSALS_LOGGED = 20
# Characters of a request's type that the log repeats: it may be anything.
SHOWN = 100


class Outbox:
    """The effects of the event at hand, in order. `now` and `wall_ms` are that event's times."""

    def __init__(self, envelopes: Envelopes, answers: AnsweredRequests, admission: Admission, now: float) -> None:
        self.envelopes = envelopes
        self.sequencer = Sequencer()
        self.listeners = Listeners()
        self.counters = Counters()
        self.answers = answers
        self.commit_queue = CommitQueue()
        self.now = now
        self.wall_ms = 0
        self._admission = admission
        self._unattributed = LogLimit(UNATTRIBUTED_INTERVAL)
        self._refusals = LogLimit(REFUSALS_INTERVAL, passes=REFUSALS_LOGGED)
        self._effects: list[Effect] = []

    def add(self, *effects: Effect) -> None:
        """Have effects executed that need no envelope and no count."""
        self._effects += effects

    def take_effects(self) -> list[Effect]:
        """Return the effects since this was last called, in order."""
        effects, self._effects = self._effects, []
        return effects

    # --- to clients ---

    def answer(self, request_key: RequestKey, result: Contract | Answer | BacktestrError | ErrorData) -> None:
        """Answer a running request, and remember the answer.

        An error for lack of room or a fault is not remembered: the client may try again with the same id.
        """
        answer = self._as_answer(request_key, result)
        error = answer.error
        if error is None:
            peer = self.answers.finish(*request_key, answer, self.now)
        elif error.code in PASSING:
            peer = self.answers.abandon(*request_key)
        else:
            peer = self.answers.finish(*request_key, Answer(answer.payload), self.now)
        self._effects.append(self.envelopes.response(peer, request_key[1], answer, self.wall_ms))
        if error is None:
            self.counters.ended(request_key, SUCCESS)
        else:
            request_type = self.counters.ended(request_key, error.code)
            self._admission.refused(request_key[0], error.code)
            self._log_refusal(*request_key, request_type, error)

    def _as_answer(self, request_key: RequestKey, result: Contract | Answer | BacktestrError | ErrorData) -> Answer:
        if isinstance(result, BacktestrError):
            result = self.error_data(result, clientId=request_key[0], requestId=request_key[1])
        if type(result) is Answer:  # `isinstance` asks the metaclass of a struct, which takes three times as long
            return result
        return failure(result) if type(result) is ErrorData else Answer(encoded_payload("Success", result))

    def answer_durably(self, request_key: RequestKey, result: Contract, changes: Sequence[Change] = ()) -> None:
        """Answer a running request once `changes` and the answer are on disk. Raises `Busy`.

        So it is not executed again, even by a later broker.
        """
        answer = Answer(encoded_payload("Success", result))
        self.submit([*changes, self.remembered(request_key, answer)], PendingAnswer(request_key, answer))

    def remembered(self, request_key: RequestKey, answer: Answer) -> AnswerPut:
        """Return the change that has a later broker remember this answer."""
        client_id, request_id = request_key
        record = AnswerRecord(client_id=client_id, request_id=request_id, payload=answer.payload, wall_ms=self.wall_ms)
        return AnswerPut(record)

    def repeat(self, peer: bytes, request_id: str, request_type: str, answer: Answer) -> None:
        """Answer a duplicate with what was answered before."""
        self.counters.answered(request_type, REPEATED)
        self._effects.append(self.envelopes.response(peer, request_id, answer, self.wall_ms))

    def welcome(self, peer: bytes, request_id: str, welcome: Contract) -> None:
        """Answer a Hello."""
        answer = Answer(encoded_payload("Success", welcome))
        self.counters.answered("Hello", SUCCESS)
        self._effects.append(self.envelopes.welcome(peer, request_id, answer, self.wall_ms))

    def refuse(
        self,
        peer: bytes,
        request_id: str,
        error: BacktestrError | ErrorData,
        request_type: str = UNKNOWN,
        client_id: str | None = None,
    ) -> None:
        """Answer a request that was not begun with an error."""
        data = self.error_data(error, requestId=request_id) if isinstance(error, BacktestrError) else error
        self._effects.append(self.envelopes.response(peer, request_id, failure(data), self.wall_ms))
        self.counters.answered(request_type, data.code)
        self._log_refusal(client_id, request_id, request_type, data)

    def refuse_unattributed(self, peer: bytes, error: MessageError) -> None:
        """Send an error for a message whose request id cannot be read, at most one a second and connection."""
        self.counters.answered(UNKNOWN, error.code)
        if self.may_report_unreadable(peer):
            self.notify("message_refused", code=error.code, reason=error.message)
            self.send_unattributed(peer, self.error_data(error))

    def send_unattributed(self, peer: bytes, error: ErrorData) -> None:
        """Send an error that belongs to no request."""
        answer = Answer(encoded_payload("Error", error))
        self._effects.append(self.envelopes.error(peer, answer, self.wall_ms))

    def may_report_unreadable(self, peer: bytes) -> bool:
        """Return true once a second for each connection: then an unreadable message of it is reported."""
        return self._unattributed.check(self.now, peer) is not None

    def _log_refusal(self, client_id: str | None, request_id: str, request_type: str, data: ErrorData) -> None:
        if (suppressed := self._refusals.check(self.now)) is not None:
            facts = {"clientId": client_id, "requestId": request_id, "type": request_type[:SHOWN], "code": data.code}
            more = {"untold": suppressed} if suppressed else {}
            self.notify("request_refused", **facts, message=data.message, **more)

    # --- to listeners ---

    def create_topics(self, names: Iterable[str]) -> None:
        """Make topics known before their first message."""
        for topic in names:
            self.sequencer.create(topic)

    def publish(self, topic: str, payload: bytes, count: int = 1) -> None:
        """Sequence and retain one stream payload, and send it if the topic has a listener."""
        sequenced = self.sequencer.append(topic, payload, count)
        heard = self.listeners.wants(sequenced.topic_class.socket, sequenced.name)
        if heard:
            self._effects.append(self.envelopes.stream(sequenced, payload, self.wall_ms))
        self.counters.published(sequenced.topic_class, count, len(payload), heard=heard)

    def skip(self, topic: str, count: int) -> None:
        """Give numbers to messages that no listener would get; the log of their backtest has them."""
        self.counters.published(self.sequencer.skip(topic, count), count, 0, heard=False)

    def report(self, error: BacktestrError, **about: str) -> None:
        """Publish an error on `system.errors`; the log has what it is `about`."""
        self.publish(topics.ERRORS, encoded_payload("Error", self.error_data(error, **about)))

    # --- to workers ---

    def instruct(self, peer: bytes | None, message: worker_channel.ToWorker, payload: bytes | None = None) -> None:
        """Send a message to the worker on that connection."""
        assert peer is not None, "the worker is not connected"
        payloads = () if payload is None else (payload,)
        self._effects.append(Instruct(peer, worker_channel.encode_to_worker(message, payloads)))

    def kill(self, worker_id: str, reason: str) -> None:
        """End a worker's process."""
        self._effects.append(Kill(worker_id, reason))

    # --- to disk ---

    def submit(self, changes: Sequence[Change], pending: Pending) -> None:
        """Write `changes`, all or none, and release `pending` when they are on disk. Raises `Busy`."""
        self.commit_queue.check_room(sum(change.size for change in changes))
        self.submit_admitted(changes, pending)

    def submit_admitted(self, changes: Sequence[Change], pending: Pending) -> None:
        """Write `changes` for which there was room when the commit queue was checked."""
        self._effects.append(self.commit_queue.issue(changes, pending))

    # --- to this process ---

    def notify(self, signal: Any, **facts: Any) -> None:
        """Send a hook."""
        self._effects.append(Notify(signal, facts))

    def error_data(self, error: BacktestrError, **about: str) -> ErrorData:
        """Return the error as it is sent.

        A fault of the broker's own gets an id that is also logged, with what it is `about`.
        """
        if isinstance(error, SystemFault):
            fault_id = self.unique_id()
            error = type(error)(error.message, **{**(error.details or {}), "id": fault_id})
            self.notify("fault", code=error.code, message=error.message, id=fault_id, **about)
        return error.to_data(component="broker", timestamp=self.wall_ms)

    def unique_id(self) -> str:
        """Return a new UUID as text."""
        return self.envelopes.unique_id()

    def check_invariants(self) -> None:
        assert not self._effects
        assert self.counters.running() == self.answers.all_running(), "a request runs for the counters alone"
        self.answers.check_invariants()
        self.commit_queue.check_invariants()
        self.sequencer.check_invariants()
        self.listeners.check_invariants()
        self.counters.check_invariants()
        self._unattributed.check_invariants()
        self._refusals.check_invariants()


def failure(error: ErrorData) -> Answer:
    """Return the answer that gives an error."""
    return Answer(encoded_payload("Failure", error), error=error)
