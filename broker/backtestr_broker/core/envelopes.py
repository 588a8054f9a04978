"""Make the frames for clients: ids, envelopes and signatures."""

from __future__ import annotations

import hashlib
import hmac
import uuid

import msgspec

from backtestr_broker.core.clients.answers import Answer
from backtestr_broker.core.streams.sequenced import Sequenced
from backtestr_protocol.codec import RESPONSE, Signer, encode_message, encode_stream
from backtestr_protocol.envelopes import Outgoing
from backtestr_protocol.messages import MessageType

from .events import Publish, Reply


class Envelopes:
    """Makes the messages of one broker instance, each with an id of its own."""

    def __init__(self, signer: Signer, id_seed: bytes, instance_id: str) -> None:
        self.signer = signer
        self.instance_id = instance_id
        self._id_seed = id_seed
        self._made = 0  # envelopes and ids, so that each is unique

    def unique_id(self) -> str:
        """Return a UUID as text: a function of the seed and of the number of ids that were made before."""
        self._made += 1
        digest = hmac.digest(self._id_seed, b"id %d" % self._made, hashlib.sha256)
        return str(uuid.UUID(bytes=digest[:16], version=4))

    def response(self, peer: bytes, request_id: str, answer: Answer, wall_ms: int) -> Reply:
        """Make the answer to a request."""
        return self._reply(peer, "Response", answer, wall_ms, correlation_id=request_id)

    def welcome(self, peer: bytes, request_id: str, answer: Answer, wall_ms: int) -> Reply:
        """Make the answer to a Hello: it names the instance."""
        return self._reply(peer, "Response", answer, wall_ms, correlation_id=request_id, instance_id=self.instance_id)

    def error(self, peer: bytes, answer: Answer, wall_ms: int) -> Reply:
        """Make an unattributed error."""
        return self._reply(peer, "Error", answer, wall_ms)

    def stream(self, sequenced: Sequenced, payload: bytes, wall_ms: int) -> Publish:
        """Make the message of one stream payload, with its sequence number."""
        envelope = self._envelope(
            sequenced.topic_class.message_type, payload, wall_ms, seq=sequenced.seq, instance_id=self.instance_id
        )
        return Publish(sequenced.topic_class.socket, encode_stream(self.signer, sequenced.name, envelope))

    def _reply(
        self,
        peer: bytes,
        message_type: MessageType,
        answer: Answer,
        wall_ms: int,
        *,
        correlation_id: str | None = None,
        instance_id: str | None = None,
    ) -> Reply:
        envelope = self._envelope(
            message_type, answer.payload, wall_ms, correlation_id=correlation_id, instance_id=instance_id
        )
        return Reply(peer, encode_message(self.signer, RESPONSE, envelope, answer.attachments))

    def _envelope(
        self,
        message_type: MessageType,
        payload: bytes,
        wall_ms: int,
        *,
        correlation_id: str | None = None,
        seq: int | None = None,
        instance_id: str | None = None,
    ) -> Outgoing:
        self._made += 1
        return Outgoing(
            id=f"{self.instance_id[:8]}-{self._made}",
            timestamp=wall_ms,
            schema_version=1,
            message_type=message_type,
            payload=msgspec.Raw(payload),
            correlation_id=correlation_id,
            seq=seq,
            instance_id=instance_id,
        )
