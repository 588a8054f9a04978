"""Prices as tables: what lies unread in a subscription, put together as far as it belongs together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import polars as pl

from backtestr_protocol.codec import decode
from backtestr_protocol.errors import BacktestrError, ValidationError
from backtestr_protocol.streamed import PriceUpdate

from .batches import PackedMessages, PriceColumns, joined, price_frame
from .effects import Block, Delivery, Doubt, Gap, Restarted, StreamMessage
from .updates import read_block

# Rows of one table at the most, when that many lie unread: beyond, a table costs hardly less for each of them.
MAX_ROWS = 65_536
# Messages that are put together into one table, where they did not come as columns: as many as a full batch has.
MAX_MESSAGES = 1000

Numbered = tuple[int, PriceUpdate]

_price_decoder = msgspec.msgpack.Decoder(PriceUpdate)


def frames(
    take: Callable[[float | None], Delivery | None], rows: Iterator[Numbered]
) -> Iterator[pl.DataFrame | Gap | Restarted]:
    """`take` is a mailbox's; `rows` are read already and come first. Raises `MessageError` for what is no price."""
    columns: list[tuple[Block, PriceColumns]] = []
    prices = list(rows)
    while True:
        has_some = bool(columns or prices)
        try:
            delivery = take(0.0 if has_some else None)
            is_end = delivery is None
        except (BacktestrError, RuntimeError):  # nothing else lies there, or what ends it: that comes again
            if not has_some:
                raise
            delivery, is_end = None, False
        if columns and not (isinstance(delivery, Block) and _continues(columns, delivery)):
            yield joined([content for _, content in columns]).frame(columns[0][0].seq)
            columns.clear()
        if prices and not 0 < _rows(delivery) <= MAX_MESSAGES - len(prices):
            yield _frame_of(prices)
            prices.clear()
        match delivery:
            case Block(content=PriceColumns() as content):
                columns.append((delivery, content))
            case Block():
                prices += [(row.seq, _price(row.data)) for row in read_block(delivery)]
            case StreamMessage():
                prices.append((delivery.seq, decode(_price_decoder, delivery.data)))
            case Gap() | Restarted():
                yield delivery
            case None if is_end:
                return
            case None | Doubt():
                pass


def _continues(columns: list[tuple[Block, PriceColumns]], block: Block) -> bool:
    (first, _), (last, content) = columns[0], columns[-1]
    return (
        isinstance(block.content, PriceColumns)
        and (block.topic, block.seq) == (last.topic, last.last_seq + 1)
        and block.content.texts == content.texts
        and block.last_seq - first.seq < MAX_ROWS
    )


def _rows(delivery: Delivery | None) -> int:
    """The messages in it that did not come as columns."""
    match delivery:
        case Block(content=PackedMessages() as content):
            return content.count
        case StreamMessage():
            return 1
        case _:
            return 0


def _price(data: Any) -> PriceUpdate:
    if not isinstance(data, PriceUpdate):
        raise ValidationError(f"a {type(data).__name__} came on a topic of prices", path="$.payload.type")
    return data


def _frame_of(prices: list[Numbered]) -> pl.DataFrame:
    fields = {name: [getattr(one, name) for _, one in prices] for name in PriceUpdate.__struct_fields__}
    return price_frame(pl.Series([seq for seq, _ in prices]), fields)
