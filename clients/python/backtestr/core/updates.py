"""What a reader of a stream gets: messages with their data decoded."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from backtestr_protocol.codec import decode
from backtestr_protocol.errors import MessageError
from backtestr_protocol.message_types import STREAMED

from .batches import PriceColumns
from .effects import DeliveredBatch, StreamMessage


# Not for the garbage collector: nothing in it refers back to it, and looking through thousands takes as long.
class Update(msgspec.Struct, frozen=True, gc=False):
    """One message of a topic. `data` is a `PriceUpdate`, `BacktestProgress`, `OrderUpdate`, `PositionUpdate`,
    `BacktestStatus`, `PriceReplayStatus`, `SystemStatus`, `Watermarks` or `ErrorData`; a map where this client does not
    know the `type`."""

    topic: str
    seq: int
    type: str
    data: Any


_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    name: msgspec.msgpack.Decoder(contract) for name, contract in STREAMED.items()
}


def _decoder_of_alike(name: str, contract: type[msgspec.Struct]) -> msgspec.msgpack.Decoder[Any]:
    payload: Any = msgspec.defstruct(name, [("type", Literal[name]), ("data", contract)])
    return msgspec.msgpack.Decoder(list[payload])


# A batch's messages are all of one type as a rule; decoding them together costs a third of one by one.
_alike_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    name: _decoder_of_alike(name, contract) for name, contract in STREAMED.items() if name != "Batch"
}
_any_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()


def read_message(message: StreamMessage) -> Update:
    """`message` with its data decoded. Raises `MessageError` where they are not what its type says."""
    data = decode(_decoders.get(message.type, _any_decoder), message.data)
    return Update(message.topic, message.seq, message.type, data)


def decode_batch(block: DeliveredBatch) -> list[Update | StreamMessage]:
    """The messages of a block, for `as_update`: decoded together, or, where that fails, as they came, so that what is
    wrong with one costs no other. They may be of several types, of one that is not known, or damaged."""
    topic, content = block.topic, block.content
    if isinstance(content, PriceColumns):
        return [Update(topic, seq, "PriceUpdate", price) for seq, price in enumerate(content.prices(), block.seq)]
    try:
        alike = decode(_alike_decoders[content.type], content.packed)[-content.count :]
    except (KeyError, MessageError):
        return [StreamMessage(topic, seq, name, data) for seq, (name, data) in enumerate(content.parts(), block.seq)]
    return [Update(topic, seq, content.type, one.data) for seq, one in enumerate(alike, block.seq)]


def as_update(row: Update | StreamMessage) -> Update:
    """Raises `MessageError` as `read_message` does."""
    return row if isinstance(row, Update) else read_message(row)
