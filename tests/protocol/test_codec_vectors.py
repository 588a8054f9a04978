"""Two decoders that share no code read the golden vectors, and their generator still writes the same files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from backtestr.core.topic_stream import unpack
from backtestr_protocol.codec import RESPONSE, STREAM, Signer, decode_message, decode_stream, encode
from backtestr_protocol.envelopes import Outgoing
from backtestr_protocol.errors import BacktestrError, MessageError
from backtestr_protocol.message_types import REQUESTS, STREAMED
from backtestr_protocol.payload_compression import decompress
from backtestr_protocol.state_values import checksum, same_value_bytes
from backtestr_protocol.stream_messages import Batch
from support.protocol import independent, make_vectors, rejected_vectors, vector_cases

Case = dict[str, Any]
Decoded = dict[str, Any]
Decoder = Callable[[bytes, bytes, Sequence[bytes]], Decoded]

DIRECTORY = Path(__file__).parents[2] / "protocol" / "vectors"


def cases(*file_names: str) -> list[Any]:
    found = []
    for file_name in file_names:
        content = json.loads((DIRECTORY / file_name).read_text("utf-8"))
        key = bytes.fromhex(content["key"])
        found += [
            pytest.param(key, case, id=f"{file_name.removesuffix('.json')}: {case['name']}")
            for case in content["cases"]
        ]
    return found


def frames_of(case: Case) -> list[bytes]:
    return [
        bytes.fromhex(frame) if isinstance(frame, str) else b"".join(map(piece_of, frame)) for frame in case["frames"]
    ]


def piece_of(piece: str | dict[str, Any]) -> bytes:
    return bytes.fromhex(piece) if isinstance(piece, str) else bytes.fromhex(piece["hex"]) * piece["times"]


def as_decoded(envelope: Any, attachments: Sequence[bytes], topic: str | None) -> Decoded:
    decoded = {"envelope": vector_cases.in_json(envelope), "attachments": [one.hex() for one in attachments]}
    if envelope["payload"]["type"] == "Batch":
        decoded["messages"] = independent.messages_of(envelope["payload"])
    return decoded if topic is None else {"topic": topic, **decoded}


def by_independent(key: bytes, label: bytes, frames: Sequence[bytes]) -> Decoded:
    if label == STREAM:
        topic, envelope, attachments = independent.unpack_stream(key, frames)
        return as_decoded(envelope, attachments, topic)
    envelope, attachments = independent.unpack(key, label, frames)
    return as_decoded(envelope, attachments, None)


def by_codec(key: bytes, label: bytes, frames: Sequence[bytes]) -> Decoded:
    if label == STREAM:
        streamed = decode_stream(Signer(key), frames)
        return as_decoded(msgspec.msgpack.decode(encode(streamed.envelope)), streamed.attachments, streamed.topic)
    message = decode_message(Signer(key), label, frames)
    return as_decoded(msgspec.msgpack.decode(encode(message.envelope)), message.attachments, None)


def known_keys(expected: Decoded) -> Decoded:
    """Return `expected` without the keys that the envelope ignores, and without nil for absent keys."""
    known = set(Outgoing.__struct_encode_fields__)
    envelope = {key: value for key, value in expected["envelope"].items() if key in known and value is not None}
    envelope["payload"] = {key: envelope["payload"][key] for key in ("type", "data")}
    return {**expected, "envelope": envelope}


ACCEPTED = cases("requests.json", "responses.json", "streams.json")
REJECTED = cases("rejected.json")


@pytest.mark.parametrize(("key", "case"), ACCEPTED)
def test_independent_decoder_reads_what_is_expected(key: bytes, case: Case) -> None:
    assert by_independent(key, case["label"].encode(), frames_of(case)) == case["expected"]


@pytest.mark.parametrize(("key", "case"), ACCEPTED)
def test_codec_reads_what_is_expected(key: bytes, case: Case) -> None:
    assert by_codec(key, case["label"].encode(), frames_of(case)) == known_keys(case["expected"])


@pytest.mark.parametrize(("key", "case"), REJECTED)
def test_independent_decoder_rejects(key: bytes, case: Case) -> None:
    with pytest.raises(independent.Rejected) as caught:
        by_independent(key, case["label"].encode(), frames_of(case))
    assert (caught.value.code, caught.value.path) == (case["code"], case.get("path"))


@pytest.mark.parametrize(("key", "case"), REJECTED)
def test_codec_rejects(key: bytes, case: Case) -> None:
    with pytest.raises(MessageError) as caught:
        by_codec(key, case["label"].encode(), frames_of(case))
    assert (caught.value.code, (caught.value.details or {}).get("path")) == (case["code"], case.get("path"))


@pytest.mark.parametrize(("key", "case"), cases("requests.json"))
def test_the_data_of_requests_match_their_type(key: bytes, case: Case) -> None:
    payload = case["expected"]["envelope"]["payload"]
    struct = REQUESTS[payload["type"]].data
    assert through(payload["data"], struct) == payload["data"]


def through(data: Any, struct: type[msgspec.Struct]) -> Any:
    """Return the data after decoding them as the struct and encoding them again."""
    return msgspec.msgpack.decode(encode(msgspec.msgpack.decode(encode(data), type=struct)))


@pytest.mark.parametrize(("key", "case"), cases("state_values.json"))
def test_values_of_state_have_one_form(key: bytes, case: Case) -> None:
    kept = bytes.fromhex(case["kept"])
    assert same_value_bytes(bytes.fromhex(case["came"])) == kept
    assert same_value_bytes(kept) == kept
    assert checksum(kept) == case["checksum"] == hashlib.sha256(kept).hexdigest()[:16]
    # The independent library reads the same value from both, and writes the same form where it can.
    came, stored = (msgpack.unpackb(bytes.fromhex(case[name]), timestamp=3) for name in ("came", "kept"))
    assert repr(came) == repr(stored) or came == stored
    if not isinstance(came, (datetime, float)):
        assert msgpack.packb(by_key(came)) == kept


def by_key(value: Any) -> Any:
    """Return the value with the keys of its maps in order."""
    if isinstance(value, dict):
        return {key: by_key(value[key]) for key in sorted(value)}
    return [by_key(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("key", "case"), cases("streams.json"))
def test_the_data_of_stream_messages_match_their_type(key: bytes, case: Case) -> None:
    envelope = decode_stream(Signer(key), frames_of(case)).envelope
    payloads = case["expected"].get("messages", [case["expected"]["envelope"]["payload"]])
    if envelope.payload.type == "Batch":
        batch = msgspec.msgpack.decode(envelope.payload.data, type=Batch)
        content = batch.columns if batch.messages is None else batch.messages
        raw = encode(content)
        if isinstance(content, bytes):
            raw = decompress(batch.compression, content, batch.raw_bytes, 1 << 20)
        assert batch.raw_bytes == len(raw)
        assert batch.count == len(payloads)
        # The Python client reads the same messages.
        unpacked = unpack(1, envelope.payload)
        assert [{"type": one.type, "data": msgspec.msgpack.decode(one.data)} for _, one in unpacked] == payloads
    for payload in payloads:
        struct = STREAMED[payload["type"]]
        assert through(payload["data"], struct) == payload["data"]


def test_there_is_every_kind_of_rejection() -> None:
    codes = {case.values[1]["code"] for case in REJECTED}
    assert codes == {"AUTHENTICATION_ERROR", "IPC_SERIALIZATION_ERROR", "VALIDATION_ERROR"}
    names = [case.values[1]["name"] for case in REJECTED]
    assert len(names) == len(set(names))


def test_the_files_equal_those_that_the_generator_writes() -> None:
    written = {file.name: file.read_text("utf-8") for file in DIRECTORY.glob("*.json")}
    assert written == make_vectors.rendered(), "run: PYTHONPATH=tests python -m support.protocol.make_vectors"


def test_an_error_for_a_signed_and_wrong_envelope_has_the_id_of_its_request() -> None:
    key = bytes(32)
    envelope = {**rejected_vectors.ENVELOPE, "timestamp": "now"}
    with pytest.raises(MessageError) as caught:
        decode_message(Signer(key), RESPONSE, independent.pack(key, RESPONSE, envelope))
    assert caught.value.message_id == rejected_vectors.ENVELOPE["id"]
    nameless = {name: value for name, value in envelope.items() if name != "id"} | {"id": 5}
    with pytest.raises(MessageError) as caught:
        decode_message(Signer(key), RESPONSE, independent.pack(key, RESPONSE, nameless))
    assert caught.value.message_id is None
    assert caught.value.details == {"path": "$.timestamp"}
    with pytest.raises(BacktestrError) as forged:
        decode_message(Signer(bytes(31) + b"\x01"), RESPONSE, independent.pack(key, RESPONSE, envelope))
    assert forged.value.code == "AUTHENTICATION_ERROR"
