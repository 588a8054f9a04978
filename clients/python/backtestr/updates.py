"""What a reader of a stream gets: messages with their data decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from backtestr_protocol.codec import decode
from backtestr_protocol.errors import MessageError
from backtestr_protocol.message_types import STREAMED

from .batches import PriceColumns
from .effects import Block, StreamMessage


class Update(msgspec.Struct, frozen=True):
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


def read_block(block: Block) -> Iterator[Update]:
    """Its messages one by one. Raises `MessageError` as `read_message` does."""
    topic, content = block.topic, block.content
    if isinstance(content, PriceColumns):
        for seq, price in enumerate(content.prices(), block.seq):
            yield Update(topic, seq, "PriceUpdate", price)
        return
    try:
        alike = decode(_alike_decoders[content.type], content.packed)[-content.count :]
    except (KeyError, MessageError):  # of several types, of one that this client does not know, or damaged
        for seq, payload in enumerate(content.payloads(), block.seq):
            yield read_message(StreamMessage(topic, seq, payload.type, payload.data))
    else:
        for seq, one in enumerate(alike, block.seq):
            yield Update(topic, seq, content.type, one.data)
