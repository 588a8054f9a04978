"""The broker's channel to its workers: every note arrives as it was sent, in its own direction only."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol import engine
from backtestr_protocol.codec import TO_BROKER, TO_WORKER, Signer
from backtestr_protocol.errors import AuthenticationError, MessageError
from protocol.strategies import WILD_BYTES, instances, laws

SIGNER = Signer(bytes(range(32)))
TO_BROKER_NOTES: tuple[type[msgspec.Struct], ...] = get_args(engine.ToBroker)
TO_WORKER_NOTES: tuple[type[msgspec.Struct], ...] = get_args(engine.ToWorker)

payload_lists = st.lists(st.binary(max_size=20), max_size=3)


@pytest.mark.parametrize("struct", TO_BROKER_NOTES, ids=lambda struct: struct.__name__)
@laws
@given(data=st.data(), payload=payload_lists)
def test_notes_to_the_broker_round_trip(
    struct: type[msgspec.Struct], data: st.DataObject, payload: list[bytes]
) -> None:
    note = data.draw(instances(struct))
    frames = engine.encode_to_broker(SIGNER, note, payload)
    assert engine.decode_to_broker(SIGNER, frames) == (note, payload)
    with pytest.raises(AuthenticationError):
        engine.decode_to_worker(SIGNER, frames)


@pytest.mark.parametrize("struct", TO_WORKER_NOTES, ids=lambda struct: struct.__name__)
@laws
@given(data=st.data(), payload=payload_lists)
def test_notes_to_a_worker_round_trip(struct: type[msgspec.Struct], data: st.DataObject, payload: list[bytes]) -> None:
    note = data.draw(instances(struct))
    frames = engine.encode_to_worker(SIGNER, note, payload)
    assert engine.decode_to_worker(SIGNER, frames) == (note, payload)
    with pytest.raises(AuthenticationError):
        engine.decode_to_broker(SIGNER, frames)


def test_every_note_goes_one_way() -> None:
    notes = {
        one
        for one in vars(engine).values()
        if isinstance(one, type) and issubclass(one, engine._Note) and one is not engine._Note
    }
    assert set(TO_BROKER_NOTES) | set(TO_WORKER_NOTES) == notes
    assert not set(TO_BROKER_NOTES) & set(TO_WORKER_NOTES)


@laws
@given(body=WILD_BYTES, payload=payload_lists)
def test_hostile_notes_raise_message_errors_only(body: bytes, payload: list[bytes]) -> None:
    with pytest.raises(MessageError):
        engine.decode_to_broker(SIGNER, SIGNER.seal(TO_BROKER, [body, *payload]))
    with pytest.raises(MessageError):
        engine.decode_to_worker(SIGNER, SIGNER.seal(TO_WORKER, [body, *payload]))


@laws
@given(frames=st.lists(st.binary(max_size=40), max_size=4))
def test_random_frames_raise_message_errors_only(frames: list[bytes]) -> None:
    with pytest.raises(MessageError):
        engine.decode_to_broker(SIGNER, frames)
    with pytest.raises(MessageError):
        engine.decode_to_worker(SIGNER, frames)


def test_a_changed_payload_is_refused() -> None:
    frames = engine.encode_to_broker(SIGNER, engine.Published(topic="orders.x", count=1), [b"payload"])
    with pytest.raises(AuthenticationError):
        engine.decode_to_broker(SIGNER, [*frames[:-1], b"Payload"])
