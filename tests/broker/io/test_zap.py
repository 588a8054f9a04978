"""Only a CURVE key on the allow-list may connect, whatever the frames of the request are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backtestr_broker.io.zap import DOMAIN, WORKERS_DOMAIN, decide

ANN, OTHER = bytes(range(32)), bytes(32)


def allowed(key: bytes, _address: str) -> str | None:
    return {ANN: "ann"}.get(key)


ALLOWED = {DOMAIN: allowed}
GOOD = [b"1.0", b"42", DOMAIN, b"127.0.0.1", b"", b"CURVE", ANN]


def test_an_allowed_key_may_connect_under_its_name() -> None:
    decision = decide(GOOD, ALLOWED)
    assert decision.frames == [b"1.0", b"42", b"200", b"OK", b"ann", b""]
    assert (decision.name, decision.address) == ("ann", "127.0.0.1")


def test_another_key_is_refused_with_a_reason() -> None:
    decision = decide([*GOOD[:-1], OTHER], ALLOWED)
    assert decision.frames == [b"1.0", b"42", b"400", b"not on the allow-list", b"", b""]
    assert decision.name is None
    assert decision.reason == "a key that is unknown or revoked"


@given(st.integers(0, 6), st.binary(max_size=40))
def test_a_request_that_is_changed_anywhere_is_refused(index: int, other: bytes) -> None:
    changed = [*GOOD[:index], other, *GOOD[index + 1 :]]
    decision = decide(changed, ALLOWED)
    is_free = index in (1, 3, 4)  # request id, address and routing id may be anything
    assert (decision.name == "ann") == (is_free or changed == GOOD)


@given(st.lists(st.binary(max_size=40) | st.sampled_from(GOOD), max_size=9))
def test_random_frames_are_refused_and_never_raise(frames: list[bytes]) -> None:
    decision = decide(frames, ALLOWED)
    expected = len(frames) == 7 and frames[0] == b"1.0" and frames[2] == DOMAIN and frames[5:] == [b"CURVE", ANN]
    assert (decision.name is not None) == expected
    assert decision.frames is None or len(decision.frames) == 6


def test_an_empty_list_allows_no_key() -> None:
    assert decide(GOOD, {DOMAIN: lambda _key, _address: None}).name is None


def test_each_domain_has_keys_of_its_own() -> None:
    of_a_worker = [*GOOD[:2], WORKERS_DOMAIN, *GOOD[3:]]
    assert decide(of_a_worker, ALLOWED).name is None
    both = ALLOWED | {WORKERS_DOMAIN: lambda key, _address: "(worker)" if key == OTHER else None}
    assert decide(of_a_worker, both).name is None
    assert decide([*of_a_worker[:-1], OTHER], both).name == "(worker)"
    assert decide([*GOOD[:-1], OTHER], both).name is None
