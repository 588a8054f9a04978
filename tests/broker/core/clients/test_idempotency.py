"""An answer is remembered for five minutes by client and request id, and the remembered answers are bounded."""

from __future__ import annotations

import gc

import pytest

from backtestr_broker.core.clients import idempotency as idempotency_module
from backtestr_broker.core.clients.answers import Answer
from backtestr_broker.core.clients.idempotency import KEPT_ANSWERS, KEPT_SECONDS, AnsweredRequests

ONE = Answer(b"one")


def answered(
    answers: AnsweredRequests, client_id: str, request_id: str, answer: Answer = ONE, now: float = 0.0
) -> None:
    assert answers.begin(client_id, request_id, b"peer", now) is True
    assert answers.finish(client_id, request_id, answer, now) == b"peer"
    answers.check_invariants()


def test_a_request_runs_once_and_its_answer_is_remembered() -> None:
    answers = AnsweredRequests()
    answered(answers, "ann", "r")
    assert answers.begin("ann", "r", b"peer", 1.0) == ONE


def test_request_ids_belong_to_their_client() -> None:
    answers = AnsweredRequests()
    answered(answers, "ann", "r")
    assert answers.begin("bob", "r", b"peer", 0.0) is True


def test_a_duplicate_that_comes_while_the_request_runs_gets_the_answer() -> None:
    answers = AnsweredRequests()
    assert answers.begin("ann", "r", b"first", 0.0) is True
    assert answers.begin("ann", "r", b"second", 1.0) is False
    assert answers.finish("ann", "r", ONE, 2.0) == b"second"
    answers.check_invariants()


def test_an_abandoned_request_may_run_again() -> None:
    answers = AnsweredRequests()
    answers.begin("ann", "r", b"peer", 0.0)
    assert answers.abandon("ann", "r") == b"peer"
    assert answers.begin("ann", "r", b"peer", 0.0) is True


def test_an_answer_is_remembered_for_five_minutes() -> None:
    answers = AnsweredRequests()
    answered(answers, "ann", "r")
    assert answers.begin("ann", "r", b"peer", KEPT_SECONDS - 0.001) == ONE
    assert answers.begin("ann", "r", b"peer", KEPT_SECONDS) is True
    assert answers.finish("ann", "r", Answer(b"two"), KEPT_SECONDS) == b"peer"
    answers.check_invariants()
    answers.expire(KEPT_SECONDS + 1)
    assert answers.begin("ann", "r", b"peer", KEPT_SECONDS + 1) == Answer(b"two")


def test_expiry_forgets_old_answers_and_keeps_newer_ones() -> None:
    answers = AnsweredRequests()
    answered(answers, "ann", "old", now=0.0)
    answered(answers, "ann", "young", now=10.0)
    answers.expire(KEPT_SECONDS)
    answers.check_invariants()
    assert answers.begin("ann", "young", b"peer", KEPT_SECONDS) == ONE
    assert answers.begin("ann", "old", b"peer", KEPT_SECONDS) is True


def test_1024_answers_are_remembered_for_a_client() -> None:
    answers = AnsweredRequests()
    for number in range(KEPT_ANSWERS):
        answered(answers, "ann", f"r{number}")
    assert answers.begin("ann", "r0", b"peer", 0.0) == ONE
    answered(answers, "ann", "one more")
    assert answers.begin("ann", "r0", b"peer", 0.0) is True
    assert answers.begin("ann", "r1", b"peer", 0.0) == ONE


@pytest.mark.parametrize("large", [Answer(bytes(400)), Answer(b"x", (bytes(200), bytes(200)))])
def test_large_answers_are_forgotten_before_small_ones(large: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large answer comes from a read, which can be repeated; the answer to a change has a few bytes."""
    monkeypatch.setattr(idempotency_module, "SMALL_BYTES", 100)
    monkeypatch.setattr(idempotency_module, "KEPT_LARGE_BYTES", 1000)
    answers = AnsweredRequests()
    answered(answers, "ann", "small")
    for number in range(4):
        answered(answers, "ann", f"ann's {number}", large)
    answered(answers, "bob", "bob's", large)
    assert answers.begin("ann", "small", b"peer", 0.0) == ONE
    assert [answers.begin("ann", f"ann's {number}", b"peer", 0.0) == large for number in range(4)] == [
        False,
        False,
        False,
        True,
    ]
    assert answers.begin("bob", "bob's", b"peer", 0.0) == large


def test_an_answer_larger_than_the_limit_is_sent_and_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency_module, "SMALL_BYTES", 100)
    monkeypatch.setattr(idempotency_module, "KEPT_LARGE_BYTES", 1000)
    answers = AnsweredRequests()
    answered(answers, "ann", "huge", Answer(bytes(2000)))
    assert answers.begin("ann", "huge", b"peer", 0.0) is True


def test_the_longest_quiet_clients_without_a_running_request_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(idempotency_module, "MAX_CLIENTS", 2)
    answers = AnsweredRequests()
    assert answers.begin("ann", "runs", b"peer", 0.0) is True
    answered(answers, "bob", "r")
    answered(answers, "carl", "r")
    assert answers.begin("bob", "r", b"peer", 0.0) is True, "forgotten"
    assert answers.finish("ann", "runs", ONE, 0.0) == b"peer"
    answers.check_invariants()


def test_a_client_that_asks_again_is_not_the_longest_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency_module, "MAX_CLIENTS", 2)
    answers = AnsweredRequests()
    answered(answers, "ann", "r")
    answered(answers, "bob", "r")
    assert answers.begin("ann", "r", b"peer", 0.0) == ONE
    answered(answers, "carl", "r")
    assert answers.begin("ann", "r", b"peer", 0.0) == ONE
    assert answers.begin("bob", "r", b"peer", 0.0) is True


def test_a_new_client_is_never_the_one_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency_module, "MAX_CLIENTS", 2)
    answers = AnsweredRequests()
    for client_id in ("ann", "bob", "carl"):
        assert answers.begin(client_id, "runs", b"peer", 0.0) is True
    for client_id in ("ann", "bob", "carl"):
        assert answers.finish(client_id, "runs", ONE, 0.0) == b"peer"
    answers.check_invariants()


def test_a_client_without_remembered_answers_is_forgotten() -> None:
    answers = AnsweredRequests()
    for number in range(100):
        answered(answers, f"client {number}", "r", now=0.0)
    assert answers.begin("waits", "r", b"peer", 0.0) is True
    assert (answers.running("waits"), answers.running("client 0"), answers.running("unknown")) == (1, 0, 0)
    assert len(answers) == 101
    answers.expire(KEPT_SECONDS)
    assert len(answers) == 1, "a client with a waiting request is kept"
    assert answers.finish("waits", "r", ONE, KEPT_SECONDS) == b"peer"
    answers.check_invariants()


def test_the_garbage_collector_does_not_track_remembered_answers() -> None:
    remembered = [(float(number), Answer(b"one", (b"a table",))) for number in range(100)]
    gc.collect()
    assert not any(gc.is_tracked(one) or gc.is_tracked(one[1]) for one in remembered)
