"""A session has a replay window, belongs to one connection and expires; the number of sessions is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core.clients import sessions
from backtestr_broker.core.clients.sessions import REPLAY_WINDOW, Session, Sessions
from backtestr_protocol.errors import Busy, ReplayDetected, SessionUnknown

SECRET = bytes(32)


def used(*counters: int) -> Session:
    session = Session("s", "ann", b"peer", 0.0)
    for counter in counters:
        session.use(counter)
    return session


def is_refused(session: Session, counter: int) -> bool:
    try:
        session.use(counter)
    except ReplayDetected:
        return True
    return False


def test_a_counter_is_accepted_once() -> None:
    session = used(1, 2, 3)
    assert [is_refused(session, counter) for counter in (1, 2, 3, 4, 4)] == [True, True, True, False, True]


def test_a_refusal_has_the_counter_and_the_highest() -> None:
    with pytest.raises(ReplayDetected, match="counter 5 was used, or is older") as caught:
        used(7, 5).use(5)
    assert caught.value.details == {"counter": 5, "highest": 7}


def test_counters_may_come_out_of_order_within_the_window() -> None:
    session = used(10, 7, 9)
    assert not is_refused(session, 8)
    assert is_refused(session, 8)
    assert is_refused(session, 7)


def test_the_window_holds_the_highest_and_the_1023_before_it() -> None:
    highest = 5000
    assert not is_refused(used(highest), highest - REPLAY_WINDOW + 1)
    assert is_refused(used(highest), highest - REPLAY_WINDOW)
    assert is_refused(used(highest), 1)


@pytest.mark.parametrize("jump", [REPLAY_WINDOW - 1, REPLAY_WINDOW, REPLAY_WINDOW + 1, 2**62])
def test_a_jump_forgets_only_what_leaves_the_window(jump: int) -> None:
    session = used(1, 1 + jump)
    assert is_refused(session, 1), "used, or too old"
    assert is_refused(session, 1 + jump)
    assert not is_refused(session, jump), "just below the highest, and never used"


@settings(deadline=None)
@given(st.lists(st.integers(1, 3000) | st.integers(1, 2**63 - 1), max_size=60))
def test_the_window_is_that_of_a_set_and_a_maximum(counters: list[int]) -> None:
    session = used()
    seen: set[int] = set()
    for counter in counters:
        highest = max(seen, default=0)
        expected = counter in seen or counter <= highest - REPLAY_WINDOW
        assert is_refused(session, counter) == expected
        if not expected:
            seen.add(counter)


def test_a_session_is_found_on_its_own_connection_only() -> None:
    table = Sessions(SECRET, timeout=30.0)
    ann, bob = table.open("ann", b"a", 0.0), table.open("bob", b"b", 0.0)
    assert ann.session_id != bob.session_id
    assert table.find(ann.session_id, b"a", 1.0) is ann
    for session_id, peer in ((ann.session_id, b"b"), ("none such", b"a"), (None, b"a")):
        with pytest.raises(SessionUnknown):
            table.find(session_id, peer, 1.0)
    table.check_invariants()


def test_a_connection_has_one_session_at_most() -> None:
    table = Sessions(SECRET, timeout=30.0)
    first = table.open("ann", b"a", 0.0)
    assert table.on(b"a") is first
    table.close(first)
    assert table.on(b"a") is None
    second = table.open("ann", b"a", 1.0)
    assert table.find(second.session_id, b"a", 1.0) is second
    with pytest.raises(SessionUnknown):
        table.find(first.session_id, b"a", 1.0)
    table.check_invariants()


def test_one_client_may_have_several_connections() -> None:
    table = Sessions(SECRET, timeout=30.0)
    first, second = table.open("ann", b"1", 0.0), table.open("ann", b"2", 0.0)
    assert table.find(first.session_id, b"1", 0.0) is first
    assert table.find(second.session_id, b"2", 0.0) is second


def test_silence_for_the_whole_time_out_ends_a_session() -> None:
    table = Sessions(SECRET, timeout=30.0)
    ann, bob = table.open("ann", b"a", 0.0), table.open("bob", b"b", 1.0)
    assert table.next_deadline() == 30.0
    table.find(ann.session_id, b"a", 5.0)
    assert table.next_deadline() == 31.0
    assert table.expire(30.999) == []
    assert table.expire(31.0) == [bob]
    assert table.next_deadline() == 35.0
    table.check_invariants()
    assert table.expire(100.0) == [ann]
    assert table.next_deadline() is None
    with pytest.raises(SessionUnknown):
        table.find(ann.session_id, b"a", 100.0)


def test_a_full_table_drops_the_longest_silent_session_or_answers_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    table = Sessions(SECRET, timeout=30.0, spared=3.0)
    ann, bob = table.open("ann", b"a", 0.0), table.open("bob", b"b", 0.0)
    with pytest.raises(Busy) as caught:
        table.make_room(0.25)
    assert caught.value.details == {"retryAfterMs": 2750}
    table.find(ann.session_id, b"a", 2.0)
    with pytest.raises(Busy):
        table.make_room(2.999)
    assert table.make_room(3.0) is bob, "the longest silent session"
    table.open("carl", b"c", 3.0)
    assert [session.client_id for session in table] == ["ann", "carl"]
    table.check_invariants()


@pytest.mark.parametrize(("most", "limit"), [(1, 1), (1024, 1024), (10**6, sessions.MAX_SESSIONS)])
def test_the_table_is_as_large_as_is_configured(most: int, limit: int) -> None:
    table = Sessions(SECRET, 30.0, 3.0, most)
    assert table.limit == limit
    if limit == 1:
        table.open("ann", b"a", 0.0)
        with pytest.raises(Busy, match=r"1 sessions are open.*max_connections under"):
            table.make_room(0.0)


def test_a_table_with_room_drops_no_session() -> None:
    table = Sessions(SECRET, timeout=30.0, spared=3.0)
    table.open("ann", b"a", 0.0)
    assert table.make_room(29.0) is None
    assert len(table) == 1


def test_session_ids_follow_from_the_secret_and_not_from_each_other() -> None:
    def ids(secret: bytes) -> list[str]:
        table = Sessions(secret, timeout=30.0)
        return [table.open("ann", b"%d" % number, 0.0).session_id for number in range(3)]

    assert ids(SECRET) == ids(SECRET)
    assert not set(ids(SECRET)) & set(ids(bytes([1]) * 32))
    assert len(set(ids(SECRET))) == 3


def test_clearing_the_table_closes_every_session() -> None:
    table = Sessions(SECRET, timeout=30.0)
    ann, bob = table.open("ann", b"a", 0.0), table.open("bob", b"b", 0.0)
    assert table.clear() == [ann, bob]
    assert len(table) == 0
    assert table.next_deadline() is None
    table.check_invariants()
