"""Idempotency: an answer is remembered by client and id, given again for five minutes, and bounded in every way."""

from __future__ import annotations

import gc

import pytest

from backtestr_broker.core.clients import idempotency as answers_module
from backtestr_broker.core.clients.idempotency import KEPT_ANSWERS, KEPT_SECONDS, Answer, AnsweredRequests

ONE = Answer(b"one")


def answered(book: AnsweredRequests, client_id: str, request_id: str, answer: Answer = ONE, now: float = 0.0) -> None:
    assert book.begin(client_id, request_id, b"peer", now) is True
    assert book.finish(client_id, request_id, answer, now) == b"peer"
    book.check_invariants()


def test_a_request_runs_once_and_its_answer_is_remembered() -> None:
    book = AnsweredRequests()
    answered(book, "ann", "r")
    assert book.begin("ann", "r", b"peer", 1.0) == ONE


def test_ids_belong_to_their_client() -> None:
    book = AnsweredRequests()
    answered(book, "ann", "r")
    assert book.begin("bob", "r", b"peer", 0.0) is True


def test_a_duplicate_that_comes_while_the_request_runs_gets_the_answer() -> None:
    book = AnsweredRequests()
    assert book.begin("ann", "r", b"first", 0.0) is True
    assert book.begin("ann", "r", b"second", 1.0) is False
    assert book.finish("ann", "r", ONE, 2.0) == b"second"
    book.check_invariants()


def test_an_abandoned_request_may_run_again() -> None:
    book = AnsweredRequests()
    book.begin("ann", "r", b"peer", 0.0)
    assert book.abandon("ann", "r") == b"peer"
    assert book.begin("ann", "r", b"peer", 0.0) is True


def test_an_answer_is_remembered_for_five_minutes() -> None:
    book = AnsweredRequests()
    answered(book, "ann", "r")
    assert book.begin("ann", "r", b"peer", KEPT_SECONDS - 0.001) == ONE
    assert book.begin("ann", "r", b"peer", KEPT_SECONDS) is True
    assert book.finish("ann", "r", Answer(b"two"), KEPT_SECONDS) == b"peer"
    book.check_invariants()
    book.expire(KEPT_SECONDS + 1)
    assert book.begin("ann", "r", b"peer", KEPT_SECONDS + 1) == Answer(b"two")


def test_expiry_forgets_the_old_and_keeps_the_young() -> None:
    book = AnsweredRequests()
    answered(book, "ann", "old", now=0.0)
    answered(book, "ann", "young", now=10.0)
    book.expire(KEPT_SECONDS)
    book.check_invariants()
    assert book.begin("ann", "young", b"peer", KEPT_SECONDS) == ONE
    assert book.begin("ann", "old", b"peer", KEPT_SECONDS) is True


def test_1024_answers_are_remembered_for_a_client() -> None:
    book = AnsweredRequests()
    for number in range(KEPT_ANSWERS):
        answered(book, "ann", f"r{number}")
    assert book.begin("ann", "r0", b"peer", 0.0) == ONE
    answered(book, "ann", "one more")
    assert book.begin("ann", "r0", b"peer", 0.0) is True
    assert book.begin("ann", "r1", b"peer", 0.0) == ONE


@pytest.mark.parametrize("large", [Answer(bytes(400)), Answer(b"x", (bytes(200), bytes(200)))])
def test_large_answers_go_first_and_never_take_small_ones_with_them(
    large: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large answer was read from somewhere and can be read again; a change is answered in a few bytes."""
    monkeypatch.setattr(answers_module, "SMALL_BYTES", 100)
    monkeypatch.setattr(answers_module, "KEPT_LARGE_BYTES", 1000)
    book = AnsweredRequests()
    answered(book, "ann", "small")
    for number in range(4):
        answered(book, "ann", f"ann's {number}", large)
    answered(book, "bob", "bob's", large)
    assert book.begin("ann", "small", b"peer", 0.0) == ONE
    assert [book.begin("ann", f"ann's {number}", b"peer", 0.0) == large for number in range(4)] == [
        False,
        False,
        False,
        True,
    ]
    assert book.begin("bob", "bob's", b"peer", 0.0) == large


def test_an_answer_larger_than_all_the_room_is_given_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "SMALL_BYTES", 100)
    monkeypatch.setattr(answers_module, "KEPT_LARGE_BYTES", 1000)
    book = AnsweredRequests()
    answered(book, "ann", "huge", Answer(bytes(2000)))
    assert book.begin("ann", "huge", b"peer", 0.0) is True


def test_the_longest_quiet_clients_are_forgotten_but_none_with_a_running_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers_module, "MAX_CLIENTS", 2)
    book = AnsweredRequests()
    assert book.begin("ann", "runs", b"peer", 0.0) is True
    answered(book, "bob", "r")
    answered(book, "carl", "r")
    assert book.begin("bob", "r", b"peer", 0.0) is True, "forgotten"
    assert book.finish("ann", "runs", ONE, 0.0) == b"peer"
    book.check_invariants()


def test_a_client_that_asks_again_is_not_the_longest_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "MAX_CLIENTS", 2)
    book = AnsweredRequests()
    answered(book, "ann", "r")
    answered(book, "bob", "r")
    assert book.begin("ann", "r", b"peer", 0.0) == ONE
    answered(book, "carl", "r")
    assert book.begin("ann", "r", b"peer", 0.0) == ONE
    assert book.begin("bob", "r", b"peer", 0.0) is True


def test_a_new_client_is_never_the_one_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "MAX_CLIENTS", 2)
    book = AnsweredRequests()
    for client_id in ("ann", "bob", "carl"):
        assert book.begin(client_id, "runs", b"peer", 0.0) is True
    for client_id in ("ann", "bob", "carl"):
        assert book.finish(client_id, "runs", ONE, 0.0) == b"peer"
    book.check_invariants()


def test_a_client_of_which_nothing_is_left_is_forgotten() -> None:
    book = AnsweredRequests()
    for number in range(100):
        answered(book, f"client {number}", "r", now=0.0)
    assert book.begin("waits", "r", b"peer", 0.0) is True
    assert (book.running("waits"), book.running("client 0"), book.running("nobody")) == (1, 0, 0)
    assert len(book) == 101
    book.expire(KEPT_SECONDS)
    assert len(book) == 1, "who waits is kept"
    assert book.finish("waits", "r", ONE, KEPT_SECONDS) == b"peer"
    book.check_invariants()


def test_the_garbage_collector_does_not_look_at_what_is_remembered() -> None:
    remembered = [(float(number), Answer(b"one", (b"a table",))) for number in range(100)]
    gc.collect()
    assert not any(gc.is_tracked(one) or gc.is_tracked(one[1]) for one in remembered)
