"""A secret prints as `<key>` wherever it is, and only who asks for its bytes gets them."""

from __future__ import annotations

import copy
import pickle
import traceback

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol.connection import Signing
from backtestr_protocol.keys import KeyPair
from backtestr_protocol.secret import Secret, decode_secret, encode_secret
from backtestr_protocol.worker_channel import WorkerSettings, decode_settings, encode_settings
from support.protocol.strategies import laws

KEY = b"0123456789abcdef" * 2
HOLDERS = [
    Secret(KEY),
    [Secret(KEY)],
    {"key": Secret(KEY)},
    Signing(algorithm="hmac-sha256", key=Secret(KEY)),
    KeyPair("public", Secret(KEY)),
    WorkerSettings(worker_id="w", kind="compute", endpoint="e", key=Secret(KEY)),
]


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda one: type(one).__name__)
def test_whatever_holds_it_prints_it_as_a_word(holder: object) -> None:
    for text in (repr(holder), str(holder), f"{holder}", f"{holder!s:>40}", "%s %r" % (holder, holder)):  # noqa: UP031
        assert "<key>" in text
        assert KEY.decode() not in text
        assert KEY.hex() not in text


def test_format_specifications_show_nothing() -> None:
    assert f"{Secret(KEY):x}" == f"{Secret(KEY):>100}" == "<key>"


def test_it_is_in_no_traceback_with_locals() -> None:
    def held() -> None:
        key = Secret(KEY)
        raise ValueError(f"about {key}")

    with pytest.raises(ValueError, match="about <key>") as caught:
        held()
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "key = <key>" in shown
    assert KEY.decode() not in shown


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_not_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="a key is not pickled"):
        pickle.dumps(Secret(KEY), protocol)
    with pytest.raises(TypeError, match="a key is not pickled"):
        copy.deepcopy([Secret(KEY)])


def test_it_has_no_attributes_to_be_listed() -> None:
    with pytest.raises(TypeError):
        vars(Secret(KEY))


@laws
@given(key=st.binary(max_size=40), other=st.binary(max_size=40))
def test_its_bytes_and_digits_are_those_given(key: bytes, other: bytes) -> None:
    assert (Secret(key).reveal(), len(Secret(key))) == (key, len(key))
    assert Secret.from_hex(Secret(key).hex()) == Secret(key)
    assert (Secret(key) == Secret(other)) is (key == other)
    assert hash(Secret(key)) == hash(Secret(bytes(key)))
    assert Secret(key) != key


def test_digits_that_are_none_are_not_repeated() -> None:
    with pytest.raises(ValueError, match="hexadecimal") as caught:
        Secret.from_hex(KEY.hex() + "x")
    assert KEY.hex() not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("library", [msgspec.json, msgspec.msgpack])
def test_only_structs_that_hand_it_over_encode_it(library: object) -> None:
    signing = Signing(algorithm="hmac-sha256", key=Secret(KEY))
    with pytest.raises(TypeError):
        library.encode(signing)  # type: ignore[attr-defined]
    text = library.encode(signing, enc_hook=encode_secret)  # type: ignore[attr-defined]
    assert library.decode(text, type=Signing, dec_hook=decode_secret) == signing  # type: ignore[attr-defined]


def test_the_hooks_leave_other_types_alone() -> None:
    with pytest.raises(TypeError):
        msgspec.json.encode([object()], enc_hook=encode_secret)
    with pytest.raises(msgspec.ValidationError, match=r"expected the hexadecimal digits of a key; got int.*\$\.key"):
        msgspec.json.decode(b'{"algorithm":"hmac-sha256","key":1}', type=Signing, dec_hook=decode_secret)


def test_a_worker_reads_the_key_that_its_broker_wrote() -> None:
    settings = WorkerSettings(worker_id="w", kind="compute", endpoint="e", key=Secret(KEY))
    assert decode_settings(encode_settings(settings)) == settings
    with pytest.raises(msgspec.DecodeError) as caught:
        decode_settings(encode_settings(settings).replace(b'"endpoint":"e",', b""))
    assert KEY.hex() not in "".join(traceback.format_exception(caught.value))
