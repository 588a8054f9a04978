"""Every worker message is decoded as it was encoded, and only in its own direction."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol import worker_channel
from backtestr_protocol.codec import TO_BROKER, TO_WORKER, Signer
from backtestr_protocol.errors import AuthenticationError, MessageError
from support.protocol.strategies import WILD_BYTES, instances, laws

SIGNER = Signer(bytes(range(32)))
TO_BROKER_MESSAGES: tuple[type[msgspec.Struct], ...] = get_args(worker_channel.ToBroker)
TO_WORKER_MESSAGES: tuple[type[msgspec.Struct], ...] = get_args(worker_channel.ToWorker)

payload_lists = st.lists(st.binary(max_size=20), max_size=3)


@pytest.mark.parametrize("struct", TO_BROKER_MESSAGES, ids=lambda struct: struct.__name__)
@laws
@given(data=st.data(), payload=payload_lists)
def test_messages_to_the_broker_round_trip(
    struct: type[msgspec.Struct], data: st.DataObject, payload: list[bytes]
) -> None:
    message = data.draw(instances(struct))
    frames = worker_channel.encode_to_broker(SIGNER, message, payload)
    assert worker_channel.decode_to_broker(SIGNER, frames) == (message, payload)
    with pytest.raises(AuthenticationError):
        worker_channel.decode_to_worker(SIGNER, frames)


@pytest.mark.parametrize("struct", TO_WORKER_MESSAGES, ids=lambda struct: struct.__name__)
@laws
@given(data=st.data(), payload=payload_lists)
def test_messages_to_a_worker_round_trip(
    struct: type[msgspec.Struct], data: st.DataObject, payload: list[bytes]
) -> None:
    message = data.draw(instances(struct))
    frames = worker_channel.encode_to_worker(SIGNER, message, payload)
    assert worker_channel.decode_to_worker(SIGNER, frames) == (message, payload)
    with pytest.raises(AuthenticationError):
        worker_channel.decode_to_broker(SIGNER, frames)


def test_every_message_has_one_direction() -> None:
    messages = {
        one
        for one in vars(worker_channel).values()
        if isinstance(one, type)
        and issubclass(one, worker_channel._WorkerMessage)
        and one is not worker_channel._WorkerMessage
    }
    assert set(TO_BROKER_MESSAGES) | set(TO_WORKER_MESSAGES) == messages
    assert not set(TO_BROKER_MESSAGES) & set(TO_WORKER_MESSAGES)


@laws
@given(body=WILD_BYTES, payload=payload_lists)
def test_hostile_messages_raise_message_errors_only(body: bytes, payload: list[bytes]) -> None:
    with pytest.raises(MessageError):
        worker_channel.decode_to_broker(SIGNER, SIGNER.seal(TO_BROKER, [body, *payload]))
    with pytest.raises(MessageError):
        worker_channel.decode_to_worker(SIGNER, SIGNER.seal(TO_WORKER, [body, *payload]))


@laws
@given(frames=st.lists(st.binary(max_size=40), max_size=4))
def test_random_frames_raise_message_errors_only(frames: list[bytes]) -> None:
    with pytest.raises(MessageError):
        worker_channel.decode_to_broker(SIGNER, frames)
    with pytest.raises(MessageError):
        worker_channel.decode_to_worker(SIGNER, frames)


def test_a_changed_payload_is_refused() -> None:
    frames = worker_channel.encode_to_broker(SIGNER, worker_channel.Published(topic="orders.x", count=1), [b"payload"])
    with pytest.raises(AuthenticationError):
        worker_channel.decode_to_broker(SIGNER, [*frames[:-1], b"Payload"])
