"""Complaints come once a second for each connection, and what is remembered of them has a bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backtestr_broker.core.clients.log_limits import INTERVAL, MAX_PEERS, Complaints

PEERS = [b"ann", b"bob"]


@given(st.lists(st.tuples(st.sampled_from(PEERS), st.floats(0.0, 3.0))))
def test_two_about_one_connection_are_an_interval_apart_and_a_quiet_one_is_complained_of_at_once(
    steps: list[tuple[bytes, float]],
) -> None:
    complaints, now = Complaints(), 0.0
    made: dict[bytes, float] = {}
    for peer, later in steps:
        now += later
        due = peer not in made or now - made[peer] >= INTERVAL
        assert complaints.may(peer, now) is due
        if due:
            made[peer] = now
        complaints.check_invariants()


def test_the_connection_that_was_bad_longest_ago_is_forgotten() -> None:
    complaints = Complaints()
    for number in range(MAX_PEERS + 1):
        assert complaints.may(b"%d" % number, 0.0)
    complaints.check_invariants()
    assert not complaints.may(b"1", 0.0)
    assert complaints.may(b"0", 0.0)
