"""One denial or several failed handshakes in a row lock a client out, and a success after the first reconnects it."""

from __future__ import annotations

import pytest

from backtestr.core.handshakes import MAX_FAILURES, Handshakes, HandshakeVerdict, Outcome, locked_out


def verdicts(*outcomes: Outcome, of_requests: bool = True) -> list[HandshakeVerdict | None]:
    handshakes = Handshakes()
    return [handshakes.ended(one, of_requests=of_requests) for one in outcomes]


def test_every_success_after_the_first_reconnects() -> None:
    assert verdicts("succeeded", "succeeded", "succeeded") == [None, "reconnected", "reconnected"]


def test_a_success_of_a_stream_has_no_consequence() -> None:
    assert verdicts("succeeded", "succeeded", of_requests=False) == [None, None]


@pytest.mark.parametrize("of_requests", [True, False])
def test_one_denial_locks_out(of_requests: bool) -> None:
    assert verdicts("denied", of_requests=of_requests) == ["locked out"]


def test_enough_failures_in_a_row_lock_out() -> None:
    assert verdicts("failed", "failed", "failed") == [None] * (MAX_FAILURES - 1) + ["locked out"]
    assert verdicts("failed", "failed", "succeeded", "failed", "failed") == [None] * 5


def test_a_success_after_a_denial_reconnects() -> None:
    assert verdicts("denied", "succeeded") == ["locked out", "reconnected"]


def test_who_is_locked_out_is_told_its_own_key() -> None:
    assert "this client's is abc." in str(locked_out("abc"))
    assert "this client's is missing." in str(locked_out(None))
