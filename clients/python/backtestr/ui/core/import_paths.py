"""Requests that name a file of this machine: a page may name its own uploads only.

Every request of a page is decoded here as the broker decodes it, so both read the same in it. One that cannot be
decoded is not passed on.
"""

from __future__ import annotations

from collections.abc import Container
from typing import ClassVar

import msgspec

from backtestr_protocol.codec import decode, encode
from backtestr_protocol.envelopes import Envelope, Identified, Outgoing, OutgoingPayload
from backtestr_protocol.errors import BacktestrError, MessageError, RecoveryAction, UnusableFile
from backtestr_protocol.import_messages import ImportMarketData

from .tunnel_format import MalformedMessage

_envelopes = msgspec.msgpack.Decoder(Envelope)
_identified = msgspec.msgpack.Decoder(Identified)
# By the type of the request: the contracts that have the path of a file. A test holds that these are all.
_WITH_PATHS = {"ImportMarketData": msgspec.msgpack.Decoder(ImportMarketData)}


class NotUploaded(UnusableFile):
    """A page names a file that was not uploaded to this server."""

    advice: ClassVar[tuple[RecoveryAction, ...] | None] = (
        RecoveryAction(
            action="upload_file",
            description="Choose the file on the page, or import it with: backtestr import FILE --symbol SYMBOL",
            automatic=False,
            user_required=True,
        ),
    )


def refusal(frames: list[bytes], uploads: Container[str], answer_id: str, wall_ms: int) -> list[bytes] | None:
    """Return the answer to a request that the broker must not get, None for any other.

    `uploads` has the paths that may be named. Raises `MalformedMessage` for a request that cannot be answered.
    """
    try:
        envelope = decode(_envelopes, frames[0])
    except MessageError as error:
        return _answer(_readable_id(frames[0]), error, answer_id, wall_ms)
    decoder = _WITH_PATHS.get(envelope.payload.type)
    if decoder is None:
        return None
    try:
        path = decode(decoder, envelope.payload.data).path
        if path in uploads:
            return None
        raise NotUploaded(f"a page imports what was uploaded to it, and {path!r} was not; choose the file there")
    except (MessageError, NotUploaded) as error:
        return _answer(envelope.id, error, answer_id, wall_ms)


def _readable_id(body: bytes) -> str:
    try:
        return decode(_identified, body).id
    except MessageError:
        raise MalformedMessage("a request whose envelope cannot be read") from None


def _answer(request_id: str, error: BacktestrError, answer_id: str, wall_ms: int) -> list[bytes]:
    envelope = Outgoing(
        id=answer_id,
        timestamp=wall_ms,
        schema_version=1,
        message_type="Response",
        payload=OutgoingPayload("Failure", error.to_data(component="ui", timestamp=wall_ms)),
        correlation_id=request_id,
    )
    return [encode(envelope)]
