"""A Hello is taken once, near the broker's clock; no flood has an honest client refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core.clients import hellos as hellos_module
from backtestr_broker.core.clients.hellos import MAX_DIFFERENCE_MS, MAX_HELLOS, MAX_OF_CLIENT, Hellos
from backtestr_protocol.errors import BacktestrError, ReplayDetected, ValidationError

NOW = 1_790_000_000_000
_numbers = itertools.count()


def is_taken(hellos: Hellos, signature: bytes, timestamp: float, *, client_id: str = "ann", now: int = NOW) -> bool:
    try:
        hellos.take(client_id, signature, timestamp, now)
    except BacktestrError:
        return False
    return True


def unique() -> bytes:
    return b"%d" % next(_numbers)


def test_a_hello_opens_one_session() -> None:
    hellos = Hellos()
    assert [is_taken(hellos, one, NOW) for one in (b"a", b"b", b"a", b"b")] == [True, True, False, False]
    hellos.check_invariants()


def test_the_time_of_a_hello_is_near_the_broker_s_clock() -> None:
    hellos = Hellos()
    assert is_taken(hellos, b"ahead", NOW + MAX_DIFFERENCE_MS)
    assert is_taken(hellos, b"behind", NOW - MAX_DIFFERENCE_MS)
    with pytest.raises(ValidationError, match="300 s ahead of the broker's clock, and 300 s are tolerated") as caught:
        hellos.take("ann", b"too far ahead", NOW + MAX_DIFFERENCE_MS + 1, NOW)
    assert caught.value.details == {"path": "$.timestamp"}
    with pytest.raises(ReplayDetected, match="make a new one"):
        hellos.take("ann", b"too far behind", NOW - MAX_DIFFERENCE_MS - 1, NOW)


def test_hellos_of_the_future_are_refused_and_push_out_nothing() -> None:
    hellos = Hellos()
    hellos.take("ann", b"honest", NOW, NOW)
    for number in range(MAX_HELLOS + 2):
        assert not is_taken(hellos, b"%d" % number, NOW + 3_600_000 + number)
    assert not is_taken(hellos, b"honest", NOW), "it is remembered"
    assert is_taken(hellos, b"the next", NOW + 1, now=NOW + 1)


@pytest.mark.parametrize("ahead", [0, MAX_DIFFERENCE_MS])
def test_a_flood_of_one_name_concerns_that_name_alone(ahead: int) -> None:
    hellos = Hellos()
    hellos.take("ann", b"honest", NOW, NOW)
    for number in range(MAX_HELLOS + 2):
        now = NOW + number // 100
        assert is_taken(hellos, unique(), now + ahead, client_id="eve", now=now)
    now += 1
    assert not is_taken(hellos, b"honest", NOW, now=now), "it is remembered"
    assert is_taken(hellos, unique(), now, client_id="ann", now=now)
    assert is_taken(hellos, unique(), now - 60_000, client_id="bob", now=now), "its clock may be behind"
    assert is_taken(hellos, unique(), now, client_id="eve", now=now)
    hellos.check_invariants()


@pytest.mark.parametrize("ahead", [0, MAX_DIFFERENCE_MS])
def test_a_flood_of_many_names_refuses_nobody_whose_clock_is_right(ahead: int) -> None:
    hellos = Hellos()
    hellos.take("ann", b"honest", NOW, NOW)
    for number in range(MAX_HELLOS + 2):
        now = NOW + number // 100
        hellos.take(f"eve {number}", unique(), now + ahead, now)
    now += 1
    assert not is_taken(hellos, b"honest", NOW, now=now), "forgotten, and so too old to tell"
    for client_id in ("ann", "bob", "eve 7"):
        assert is_taken(hellos, unique(), now, client_id=client_id, now=now)
    hellos.check_invariants()


def test_a_forgotten_hello_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hellos_module, "MAX_OF_CLIENT", 3)
    hellos = Hellos()
    assert all(is_taken(hellos, b"%d" % at, NOW - 50 + at) for at in (10, 30, 20, 40, 50))
    assert not any(is_taken(hellos, b"%d" % at, NOW - 50 + at) for at in (10, 20, 30, 40, 50))
    assert not is_taken(hellos, b"late", NOW - 30), "it may be one of those that were forgotten"
    assert is_taken(hellos, b"late, but after those", NOW - 29)
    hellos.check_invariants()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.sampled_from(["ann", "bob", "eve"])), max_size=60))
def test_no_hello_is_accepted_twice(sent: list[tuple[int, int, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hellos_module, "MAX_OF_CLIENT", 3)
        patch.setattr(hellos_module, "MAX_HELLOS", 5)
        hellos = Hellos()
        taken = [
            one
            for one in sent
            if is_taken(hellos, b"%d %d %s" % (one[0], one[1], one[2].encode()), NOW - one[1], client_id=one[2])
        ]
        assert len(taken) == len(set(taken))
        hellos.check_invariants()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-2, 2), st.integers(-400_000, 400_000), st.sampled_from(["ann", "bob", "eve", "dan"])),
        max_size=60,
    )
)
def test_a_clock_that_jumps_breaks_nothing(sent: list[tuple[int, int, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hellos_module, "MAX_OF_CLIENT", 3)
        patch.setattr(hellos_module, "MAX_HELLOS", 5)
        hellos, now = Hellos(), NOW
        for jump, difference, client_id in sent:
            now += jump * 3_600_000
            is_taken(hellos, unique(), now + difference, client_id=client_id, now=now)
            hellos.check_invariants()


def test_the_bounds_are_those_of_the_protocol_page() -> None:
    assert (MAX_DIFFERENCE_MS, MAX_OF_CLIENT, MAX_HELLOS) == (5 * 60 * 1000, 1024, 65_536)
