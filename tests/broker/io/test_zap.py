"""The decision at the door: only a CURVE key on the list gets in, whatever the frames are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backtestr_broker.io.zap import DOMAIN, decide

ANN, EVE = bytes(range(32)), bytes(32)
ALLOWED = {ANN: "ann"}
GOOD = [b"1.0", b"42", DOMAIN, b"127.0.0.1", b"", b"CURVE", ANN]


def test_an_allowed_key_gets_in_under_its_name() -> None:
    decision = decide(GOOD, ALLOWED)
    assert decision.frames == [b"1.0", b"42", b"200", b"OK", b"ann", b""]
    assert (decision.name, decision.address) == ("ann", "127.0.0.1")


def test_another_key_does_not_and_the_reason_is_said() -> None:
    decision = decide([*GOOD[:-1], EVE], ALLOWED)
    assert decision.frames == [b"1.0", b"42", b"400", b"not on the allow-list", b"", b""]
    assert decision.name is None
    assert decision.reason == "a key that is unknown or revoked"


@given(st.integers(0, 6), st.binary(max_size=40))
def test_whatever_is_changed_about_a_good_request_it_lets_nobody_in(index: int, other: bytes) -> None:
    changed = [*GOOD[:index], other, *GOOD[index + 1 :]]
    decision = decide(changed, ALLOWED)
    says_nothing = index in (1, 3, 4)  # the number, the address and the routing id are the peer's to choose
    assert (decision.name == "ann") == (says_nothing or changed == GOOD)


@given(st.lists(st.binary(max_size=40) | st.sampled_from(GOOD), max_size=9))
def test_random_frames_let_nobody_in_and_never_raise(frames: list[bytes]) -> None:
    decision = decide(frames, ALLOWED)
    let_in = len(frames) == 7 and frames[0] == b"1.0" and frames[2] == DOMAIN and frames[5:] == [b"CURVE", ANN]
    assert (decision.name is not None) == let_in
    assert decision.frames is None or len(decision.frames) == 6


def test_an_empty_list_lets_nobody_in() -> None:
    assert decide(GOOD, {}).name is None
