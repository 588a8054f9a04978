"""Everything that leaves the core is an effect of its outbox: answers, stream messages, changes and hooks, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_broker.core import commit_queue
from backtestr_broker.core.clients.admission import Admission
from backtestr_broker.core.clients.answers import Answer, RequestKey
from backtestr_broker.core.clients.idempotency import AnsweredRequests
from backtestr_broker.core.commit_queue import PendingBacktest
from backtestr_broker.core.counters import SUCCESS
from backtestr_broker.core.envelopes import Envelopes
from backtestr_broker.core.events import Instruct, Kill, Notify, Persist, Publish, Reply, Subscribed
from backtestr_broker.core.outbox import PASSING, REFUSALS_LOGGED, Outbox, failure
from backtestr_broker.core.records import AnswerPut, JobDeleted
from backtestr_protocol import topics, worker_channel
from backtestr_protocol.codec import Signer, encoded_payload
from backtestr_protocol.errors import (
    BacktestrError,
    Busy,
    ErrorData,
    MessageError,
    NotFound,
    RateLimitExceeded,
    SystemFault,
)
from backtestr_protocol.messages import Nothing, Pong
from support.protocol.independent import Fields, Requests, unpack_stream

KEY = bytes(32)
ANN: RequestKey = ("ann", "r1")
PEER = b"peer of ann"
WALL_MS = 1_790_000_000_000

_client = Requests(KEY, "ann", now_ms=lambda: WALL_MS)


def make_outbox() -> Outbox:
    """Return an outbox in which `ANN` is running."""
    answers = AnsweredRequests()
    outbox = Outbox(Envelopes(Signer(KEY), KEY, "instance"), answers, Admission({}, answers), now=5.0)
    outbox.wall_ms = WALL_MS
    begin(outbox, ANN)
    return outbox


@pytest.fixture
def outbox() -> Outbox:
    return make_outbox()


def begin(outbox: Outbox, request_key: RequestKey, peer: bytes = PEER) -> None:
    assert outbox.answers.begin(*request_key, peer, outbox.now) is True
    outbox.counters.began(request_key, "Ping", outbox.now)


def replied(outbox: Outbox) -> Fields:
    """Return the envelope of the first effect, which has to be a reply to `PEER`."""
    reply, *_ = outbox.take_effects()
    assert isinstance(reply, Reply)
    assert reply.peer == PEER
    return _client.answer(reply.frames)[0]


ERRORS: list[BacktestrError] = [
    NotFound("no such key"),
    Busy("full"),
    SystemFault("damaged"),
    RateLimitExceeded("often"),
]


def test_a_success_is_sent_remembered_and_counted(outbox: Outbox) -> None:
    outbox.answer(ANN, Pong(timestamp=7))
    envelope = replied(outbox)
    assert (envelope["correlationId"], envelope["payload"]) == ("r1", {"type": "Success", "data": {"timestamp": 7}})
    assert isinstance(outbox.answers.begin(*ANN, PEER, outbox.now), Answer)
    assert outbox.counters.measured().requests == {("Ping", SUCCESS): 1}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
@pytest.mark.parametrize("as_what", ["error", "data", "answer"])
def test_an_error_is_counted_and_logged_by_its_code_however_it_comes(
    outbox: Outbox, error: BacktestrError, as_what: str
) -> None:
    data = error.to_data(component="engine", timestamp=WALL_MS)
    results: dict[str, BacktestrError | ErrorData | Answer] = {"error": error, "data": data, "answer": failure(data)}
    outbox.answer(ANN, results[as_what])
    effects = outbox.take_effects()
    (reply,) = (one for one in effects if isinstance(one, Reply))
    sent = _client.answer(reply.frames)[0]["payload"]
    assert (sent["type"], sent["data"]["code"]) == ("Failure", error.code)
    assert outbox.counters.measured().requests == {("Ping", error.code): 1}
    refused = [one.facts for one in effects if isinstance(one, Notify) and one.signal == "request_refused"]
    assert [(one["clientId"], one["requestId"], one["code"]) for one in refused] == [(*ANN, error.code)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_an_error_that_says_nothing_of_the_request_is_not_remembered(outbox: Outbox, error: BacktestrError) -> None:
    outbox.answer(ANN, error)
    remembered = outbox.answers.begin(*ANN, PEER, outbox.now)
    assert (remembered is True) is (error.code in PASSING)
    if isinstance(remembered, Answer):
        assert remembered.error is None, "a remembered answer refers to bytes alone"
        assert remembered.payload


def test_the_answer_goes_to_the_connection_that_asked_last(outbox: Outbox) -> None:
    assert outbox.answers.begin(*ANN, b"another connection", outbox.now) is False
    outbox.answer(ANN, Nothing())
    assert [one.peer for one in outbox.take_effects() if isinstance(one, Reply)] == [b"another connection"]


def test_a_fault_has_one_id_in_the_answer_and_in_the_log(outbox: Outbox) -> None:
    outbox.answer(ANN, SystemFault("damaged", key="k"))
    effects = outbox.take_effects()
    (fault,) = (one.facts for one in effects if isinstance(one, Notify) and one.signal == "fault")
    (reply,) = (one for one in effects if isinstance(one, Reply))
    details = _client.answer(reply.frames)[0]["payload"]["data"]["details"]
    assert details == {"key": "k", "id": fault["id"]}
    assert (fault["clientId"], fault["requestId"]) == ANN


def test_a_durable_answer_is_sent_once_it_is_on_disk(outbox: Outbox) -> None:
    outbox.answer_durably(ANN, Pong(timestamp=7), [JobDeleted("b1")])
    (persist,) = outbox.take_effects()
    assert isinstance(persist, Persist)
    deleted, remembered = persist.changes
    assert deleted == JobDeleted("b1")
    assert isinstance(remembered, AnswerPut)
    assert (remembered.record.client_id, remembered.record.request_id) == ANN
    (pending,) = outbox.commit_queue.committed(persist.ticket)
    assert pending == commit_queue.PendingAnswer(ANN, Answer(remembered.record.payload))


def test_a_change_is_refused_while_the_disk_does_not_keep_up(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_queue, "MAX_UNCOMMITTED", 1)
    outbox.submit([JobDeleted("b1")], PendingBacktest("b1"))
    with pytest.raises(Busy, match="on their way to disk"):
        outbox.submit([JobDeleted("b2")], PendingBacktest("b2"))
    assert len(outbox.take_effects()) == 1


@given(st.lists(st.tuples(st.sampled_from(["orders.a", "progress.a"]), st.integers(1, 3), st.booleans())))
def test_every_stream_message_has_the_next_number_and_is_sent_if_the_topic_has_a_listener(
    steps: list[tuple[str, int, bool]],
) -> None:
    outbox = make_outbox()
    last = {"orders.a": 0, "progress.a": 0}
    unheard = 0
    for topic, count, listens in steps:
        topic_class = topics.class_of(topic)
        assert topic_class is not None
        outbox.listeners.clear()
        if listens:
            outbox.listeners.take(Subscribed(topic_class.socket, topic.encode(), 1, WALL_MS))
        outbox.publish(topic, encoded_payload("OrderUpdate", {}), count)
        effects = outbox.take_effects()
        if listens:
            (sent,) = effects
            assert isinstance(sent, Publish)
            name, envelope, _ = unpack_stream(KEY, sent.frames)
            assert (sent.socket, name, envelope["seq"]) == (topic_class.socket, topic, last[topic] + 1)
        else:
            assert effects == []
            unheard += count
        last[topic] += count
        assert outbox.sequencer.last_seq(topic) == last[topic]
    assert sum(one.unheard for one in outbox.counters.by_class().values()) == unheard
    outbox.check_invariants()


def test_a_message_to_a_worker_is_one_of_the_worker_channel(outbox: Outbox) -> None:
    control = worker_channel.Control(task_id="b1", action="stop")
    outbox.instruct(b"worker", control, b"data")
    outbox.kill("compute-1", "it hangs")
    instruct, kill = outbox.take_effects()
    assert isinstance(instruct, Instruct)
    assert worker_channel.decode_to_worker(instruct.frames) == (control, [b"data"])
    assert (instruct.peer, kill) == (b"worker", Kill("compute-1", "it hangs"))


def test_a_worker_without_a_connection_is_sent_nothing(outbox: Outbox) -> None:
    with pytest.raises(AssertionError, match="not connected"):
        outbox.instruct(None, worker_channel.Control(task_id="b1", action="stop"))


def _unreadable(outbox: Outbox) -> None:
    outbox.refuse_unattributed(PEER, MessageError("junk"))


def _not_begun(outbox: Outbox) -> None:
    outbox.refuse(PEER, "r2", Busy("full"), "x" * 1000, "ann")


@pytest.mark.parametrize(
    ("refuse", "signal", "most"),
    [(_unreadable, "message_refused", 1), (_not_begun, "request_refused", REFUSALS_LOGGED)],
)
def test_repeated_refusals_do_not_fill_the_log(
    outbox: Outbox, refuse: Callable[[Outbox], None], signal: str, most: int
) -> None:
    def logged() -> list[Any]:
        return [one.facts for one in outbox.take_effects() if isinstance(one, Notify) and one.signal == signal]

    for _ in range(most + 3):
        refuse(outbox)
    assert len(logged()) == most
    outbox.now += 1.0
    refuse(outbox)
    (facts,) = logged()
    assert facts.get("untold") == (3 if signal == "request_refused" else None)
    assert len(str(facts)) < 500
    outbox.check_invariants()


def test_effects_are_taken_once_and_in_order(outbox: Outbox) -> None:
    outbox.kill("compute-1", "first")
    outbox.notify("serving")
    assert outbox.take_effects() == [Kill("compute-1", "first"), Notify("serving", {})]
    assert outbox.take_effects() == []
