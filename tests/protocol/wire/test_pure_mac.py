"""Both MACs are the HMAC-SHA256 of the protocol page, and neither shows its key."""

from __future__ import annotations

import copy
import hashlib
import hmac
import pickle
import sys
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol.wire.compiled import Mac
from support.protocol.implementations import EVERY_MAC, needs_compiled_mac

KEY = bytes(range(32))

NewMac = Callable[[bytes], Mac]

every_mac = pytest.mark.parametrize("new_mac", EVERY_MAC)
# Above 65,535 bytes both hash frame by frame, and without the GIL.
sizes = st.sampled_from([0, 1, 33, 55, 56, 63, 64, 65, 65_535, 65_536, 70_000]) | st.integers(0, 300)
frame_lists = st.lists(st.builds(lambda size, byte: bytes([byte]) * size, sizes, st.integers(0, 255)), max_size=6)


def plain(label: bytes, frames: list[bytes]) -> bytes:
    return label + b"".join(len(one).to_bytes(4, "big") + one for one in frames)


@every_mac
@given(key=st.binary(min_size=32, max_size=32), label=st.binary(max_size=4), frames=frame_lists)
def test_it_is_the_hmac_of_the_label_and_of_the_frames_with_their_lengths(
    new_mac: NewMac, key: bytes, label: bytes, frames: list[bytes]
) -> None:
    right = hmac.new(key, plain(label, frames), hashlib.sha256).digest()
    mac = new_mac(key)
    assert mac.sign(label, frames) == mac.sign(label, tuple(frames)) == right
    assert mac.verifies(label, right, frames)


@every_mac
@given(frames=frame_lists, at=st.integers(0, 255), other=st.binary(min_size=32, max_size=32), size=st.integers(0, 64))
def test_no_other_signature_is_right(new_mac: NewMac, frames: list[bytes], at: int, other: bytes, size: int) -> None:
    mac = new_mac(KEY)
    right = mac.sign(b"req", frames)
    changed = (int.from_bytes(right, "big") ^ 1 << at).to_bytes(32, "big")
    assert not mac.verifies(b"req", changed, frames)
    assert mac.verifies(b"req", (right * 2)[:size], frames) is (size == 32)
    assert not mac.verifies(b"rep", right, frames)
    assert not mac.verifies(b"req", right, [*frames, b""])
    assert new_mac(other).verifies(b"req", right, frames) is (other == KEY)


@every_mac
def test_a_frame_is_bytes(new_mac: NewMac) -> None:
    mac = new_mac(KEY)
    for label, frames in ((b"req", ["text"]), (b"req", [b"", 5]), ("text", [b""]), (b"req", 7)):
        with pytest.raises(TypeError):
            mac.sign(label, frames)  # type: ignore[arg-type]  # what a mistake would pass
        with pytest.raises(TypeError):
            mac.verifies(label, bytes(32), frames)  # type: ignore[arg-type]  # the same
    assert mac.sign(b"req", [bytearray(b"one"), memoryview(b"two")]) == mac.sign(b"req", [b"one", b"two"])  # type: ignore[list-item]  # bytes all the same


@every_mac
def test_neither_repr_nor_pickle_has_the_key(new_mac: NewMac) -> None:
    mac = new_mac(b"k" * 32)
    assert "kkk" not in repr(mac)
    for take in (pickle.dumps, copy.deepcopy):
        with pytest.raises((TypeError, pickle.PicklingError)):
            take(mac)


@every_mac
def test_threads_sign_with_one_key_at_the_same_time(new_mac: NewMac) -> None:
    mac = new_mac(KEY)
    wrong: list[int] = []
    messages = [[b"small", bytes([one])] for one in range(8)] + [[bytes([one]) * 200_000] for one in range(4)]
    right = [hmac.new(KEY, plain(b"req", frames), hashlib.sha256).digest() for frames in messages]

    def sign() -> None:
        for _ in range(20):
            wrong.extend(at for at, frames in enumerate(messages) if mac.sign(b"req", frames) != right[at])

    threads = [threading.Thread(target=sign) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert wrong == []


@every_mac
def test_it_keeps_nothing_of_what_it_signed(new_mac: NewMac) -> None:
    mac, frame, label = new_mac(KEY), bytes(100), b"a label of its own"
    frames = [frame, frame]
    before = [sys.getrefcount(one) for one in (frame, label, frames)]
    for _ in range(1000):
        mac.verifies(label, mac.sign(label, frames), frames)
        with pytest.raises(TypeError):
            mac.sign(label, [frame, None])  # type: ignore[list-item]  # what a mistake would pass
    assert [sys.getrefcount(one) for one in (frame, label, frames)] == before


@needs_compiled_mac
def test_the_compiled_one_takes_one_key_of_a_block_at_most() -> None:
    from backtestr_protocol.wire._mac import Mac as Compiled

    with pytest.raises(ValueError, match="64 bytes at most, this one 65"):
        Compiled(bytes(65))
    with pytest.raises(TypeError):
        Compiled(key=bytes(32))  # type: ignore[call-arg]  # what a mistake would pass
    with pytest.raises(TypeError):
        Compiled("text")  # type: ignore[arg-type]  # the same
