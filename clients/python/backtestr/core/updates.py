"""Updates are the messages of a topic with their data decoded."""

from __future__ import annotations

from itertools import count, repeat
from typing import Any, Literal

import msgspec

from backtestr_protocol.codec import decode
from backtestr_protocol.errors import MessageError
from backtestr_protocol.message_types import STREAMED

from .batches import PriceColumns
from .effects import DeliveredBatch, StreamMessage


# Untracked by the garbage collector: nothing in an update refers back to it, and tracking thousands takes time.
class Update(msgspec.Struct, frozen=True, gc=False):
    """One message of a topic, with its data decoded.

    `data` is a `PriceUpdate`, `BacktestProgress`, `OrderUpdate`, `PositionUpdate`, `BacktestStatus`,
    `PriceReplayStatus`, `SystemStatus`, `Watermarks` or `ErrorData`. It is a map if this client does not know the
    `type`.
    """

    topic: str
    seq: int
    type: str
    data: Any


_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    name: msgspec.msgpack.Decoder(contract) for name, contract in STREAMED.items()
}


def _decoder_of_one_type(name: str, contract: type[msgspec.Struct]) -> msgspec.msgpack.Decoder[Any]:
    payload: Any = msgspec.defstruct(name, [("type", Literal[name]), ("data", contract)], gc=False)
    return msgspec.msgpack.Decoder(list[payload])


# The messages of a batch usually have one type; decoding them together costs a third of decoding each.
_batch_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    name: _decoder_of_one_type(name, contract) for name, contract in STREAMED.items() if name != "Batch"
}
_any_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()


def read_message(message: StreamMessage) -> Update:
    """Decode the data of `message`. Raises `MessageError` if the data do not fit the type."""
    data = decode(_decoders.get(message.type, _any_decoder), message.data)
    return Update(message.topic, message.seq, message.type, data)


def decode_batch(batch: DeliveredBatch) -> list[Update | StreamMessage]:
    """Decode the messages of a batch together, or return them as they came if that fails, for `as_update`.

    Decoding together fails for several types, an unknown type or a damaged message. Decoding each then costs only the
    damaged ones.
    """
    topic, content = batch.topic, batch.content
    if isinstance(content, PriceColumns):
        return list(map(Update, repeat(topic), count(batch.seq), repeat("PriceUpdate"), content.prices()))
    try:
        decoded = decode(_batch_decoders[content.type], content.packed)[-content.count :]
    except (KeyError, MessageError):
        return [StreamMessage(topic, seq, name, data) for seq, (name, data) in enumerate(content.parts(), batch.seq)]
    return [Update(topic, seq, content.type, one.data) for seq, one in enumerate(decoded, batch.seq)]


def as_update(message: Update | StreamMessage) -> Update:
    """Return one message of `decode_batch` as an update. Raises `MessageError` as `read_message` does."""
    return message if isinstance(message, Update) else read_message(message)
