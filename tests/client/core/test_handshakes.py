"""What follows from handshakes: one denial or several failures in a row lock out; a success after the first is news."""

from __future__ import annotations

import pytest

from backtestr.core.handshakes import MAX_FAILURES, Finding, Handshakes, Outcome


def findings(*outcomes: Outcome, of_requests: bool = True) -> list[Finding | None]:
    handshakes = Handshakes()
    return [handshakes.heard(one, of_requests=of_requests) for one in outcomes]


def test_the_first_success_is_no_news_and_the_next_is() -> None:
    assert findings("succeeded", "succeeded", "succeeded") == [None, "again", "again"]


def test_streams_have_nothing_to_begin_anew() -> None:
    assert findings("succeeded", "succeeded", of_requests=False) == [None, None]


@pytest.mark.parametrize("of_requests", [True, False])
def test_a_denial_is_final(of_requests: bool) -> None:
    assert findings("denied", of_requests=of_requests) == ["locked out"]


def test_failures_lock_out_when_there_are_enough_in_a_row() -> None:
    assert findings("failed", "failed", "failed") == [None] * (MAX_FAILURES - 1) + ["locked out"]
    assert findings("failed", "failed", "succeeded", "failed", "failed") == [None] * 5


def test_a_success_after_all_begins_anew() -> None:
    assert findings("denied", "succeeded") == ["locked out", "again"]
