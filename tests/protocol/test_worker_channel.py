"""Every worker message is decoded as it was encoded, and only in its own direction."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol import worker_channel
from backtestr_protocol.codec import REQUEST, TO_BROKER, Signer
from backtestr_protocol.errors import AuthenticationError, MessageError, SerializationError, ValidationError
from support.protocol.strategies import WILD_BYTES, instances, laws

SIGNER = Signer(bytes(range(32)))
READY = worker_channel.Ready(worker_id="compute-1", pid=1, kind="compute", algorithms=[], series=[])
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
    frames = worker_channel.encode_to_broker(message, payload)
    assert worker_channel.decode_to_broker(frames) == (message, payload)
    with pytest.raises(MessageError):
        worker_channel.decode_to_worker(frames)


@pytest.mark.parametrize("struct", TO_WORKER_MESSAGES, ids=lambda struct: struct.__name__)
@laws
@given(data=st.data(), payload=payload_lists)
def test_messages_to_a_worker_round_trip(
    struct: type[msgspec.Struct], data: st.DataObject, payload: list[bytes]
) -> None:
    message = data.draw(instances(struct))
    frames = worker_channel.encode_to_worker(message, payload)
    assert worker_channel.decode_to_worker(frames) == (message, payload)
    with pytest.raises(MessageError):
        worker_channel.decode_to_broker(frames)


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
        worker_channel.decode_to_broker([body, *payload])
    with pytest.raises(MessageError):
        worker_channel.decode_to_worker([body, *payload])
    with pytest.raises(MessageError):
        worker_channel.decode_proof(SIGNER, SIGNER.seal(TO_BROKER, [body, *payload]))


@laws
@given(frames=st.lists(st.binary(max_size=40), max_size=4))
def test_random_frames_raise_message_errors_only(frames: list[bytes]) -> None:
    with pytest.raises(MessageError):
        worker_channel.decode_to_broker(frames)
    with pytest.raises(MessageError):
        worker_channel.decode_to_worker(frames)
    with pytest.raises(MessageError):
        worker_channel.decode_proof(SIGNER, frames)


@laws
@given(ready=instances(worker_channel.Ready))
def test_a_proof_round_trips(ready: worker_channel.Ready) -> None:
    assert worker_channel.decode_proof(SIGNER, worker_channel.encode_proof(SIGNER, ready)) == ready


def test_a_proof_with_another_key_label_or_content_is_refused() -> None:
    signature, body = worker_channel.encode_proof(SIGNER, READY)
    other_body = worker_channel.encode_proof(SIGNER, msgspec.structs.replace(READY, worker_id="compute-2"))[1]
    for frames in (
        worker_channel.encode_proof(Signer(bytes(32)), READY),
        SIGNER.seal(REQUEST, [body]),
        [signature, other_body],
        [bytes(32), body],
        [b"", body],
    ):
        with pytest.raises(AuthenticationError):
            worker_channel.decode_proof(SIGNER, frames)


def test_no_other_message_proves_a_worker() -> None:
    """A signed message of another kind, or with a payload, is refused though the key is right."""
    beat = worker_channel.encode_to_broker(worker_channel.Beat(task_id=None))
    with pytest.raises(ValidationError, match="expected Ready as the first message of a worker, not Beat"):
        worker_channel.decode_proof(SIGNER, SIGNER.seal(TO_BROKER, beat))
    with pytest.raises(SerializationError, match="expected the frames signature, message; 3 frame"):
        worker_channel.decode_proof(SIGNER, [*worker_channel.encode_proof(SIGNER, READY), b"payload"])
