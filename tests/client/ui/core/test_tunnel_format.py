"""The messages between page and tunnel: what is packed is unpacked, and hostile bytes raise one type of error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.ui.core.tunnel_format import (
    REQUEST,
    SUBSCRIBE,
    TAKEN,
    UNSUBSCRIBE,
    MalformedMessage,
    PageRequest,
    PageSubscription,
    PageTaken,
    packed,
    page_message,
    unpacked,
)
from backtestr_protocol.topics import SOCKETS

kinds = st.integers(0, 255)
parts = st.lists(st.binary(max_size=300), max_size=20)


@given(kinds, parts)
def test_what_is_packed_is_unpacked(kind: int, frames: list[bytes]) -> None:
    assert unpacked(packed(kind, frames)) == (kind, frames)


@given(st.binary(max_size=200))
def test_what_is_unpacked_was_packed_in_one_way_only(data: bytes) -> None:
    try:
        kind, frames = unpacked(data)
    except MalformedMessage:
        return
    assert packed(kind, frames) == data


@given(st.one_of(st.binary(max_size=100), st.builds(packed, st.integers(0, 6), parts)))
def test_a_page_says_something_or_something_malformed(data: bytes) -> None:
    try:
        said = page_message(data)
    except MalformedMessage:
        return
    match said:
        case PageRequest(frames):
            assert packed(REQUEST, frames) == data
        case PageSubscription(socket, prefix, begins):
            assert packed(SUBSCRIBE if begins else UNSUBSCRIBE, [socket.encode(), prefix.encode()]) == data
        case PageTaken(count):
            assert 0 <= count < 10**7


@given(kinds, st.lists(st.binary(max_size=30), min_size=1, max_size=5), st.data())
def test_no_beginning_of_a_message_is_one_unless_it_ends_with_a_part(
    kind: int, frames: list[bytes], data: st.DataObject
) -> None:
    message = packed(kind, frames)
    cut = message[: data.draw(st.integers(1, len(message) - 1))]
    ends = [len(packed(kind, frames[:count])) for count in range(len(frames))]
    if len(cut) in ends:
        assert unpacked(cut) == (kind, frames[: ends.index(len(cut))])
    else:
        with pytest.raises(MalformedMessage, match="ends within a part"):
            unpacked(cut)


def test_the_bytes_are_those_that_the_typescript_client_sends() -> None:
    assert packed(SUBSCRIBE, [b"prices", b"prices."]) == b"\x02\0\0\0\x06prices\0\0\0\x07prices."
    assert page_message(b"\x04\0\0\0\x03100") == PageTaken(100)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "an empty message"),
        (packed(REQUEST, []), "kind 1 with 0 parts"),
        (packed(SUBSCRIBE, [b"engine", b""]), "does not exist"),
        (packed(SUBSCRIBE, [b"prices", b"x" * 501]), "more than 500 bytes"),
        (packed(SUBSCRIBE, [b"prices", b"\xff"]), "not UTF-8"),
        (packed(SUBSCRIBE, [b"prices"]), "kind 2 with 1 parts"),
        (packed(TAKEN, [b"-1"]), "kind 4"),
        (packed(TAKEN, [b"12345678"]), "kind 4"),
        (packed(TAKEN, ["²".encode()]), "kind 4"),
        (packed(7, [b"x"]), "kind 7"),
        (packed(REQUEST, [b""] * 1024), "more than 1,023 parts"),
        (b"\x01\xff\xff\xff\xff", "ends within a part"),
    ],
)
def test_a_malformed_message_says_what_it_is(message: bytes, reason: str) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        page_message(message)


def test_every_socket_can_be_subscribed_to() -> None:
    for name in SOCKETS:
        assert page_message(packed(SUBSCRIBE, [name.encode(), b"x"])) == PageSubscription(name, "x", True)
