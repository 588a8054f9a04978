"""Prices as tables: what lies unread in a subscription, put together as far as it belongs together."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import polars as pl

from backtestr_protocol.codec import decode
from backtestr_protocol.errors import BacktestrError
from backtestr_protocol.streamed import PriceUpdate

from .batches import joined, price_frame
from .effects import Block, Delivery, Doubt, Gap, Restarted, StreamMessage

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
    blocks: list[Block] = []
    prices = list(rows)
    while True:
        has_some = bool(blocks or prices)
        try:
            delivery = take(0.0 if has_some else None)
            is_end = delivery is None
        except (BacktestrError, RuntimeError):  # nothing else lies there, or what ends it: that comes again
            if not has_some:
                raise
            delivery, is_end = None, False
        if blocks and not (isinstance(delivery, Block) and _continues(blocks, delivery)):
            yield joined([one.columns for one in blocks]).frame(blocks[0].seq)
            blocks.clear()
        if prices and not (isinstance(delivery, StreamMessage) and len(prices) < MAX_MESSAGES):
            yield _frame_of(prices)
            prices.clear()
        match delivery:
            case Block():
                blocks.append(delivery)
            case StreamMessage():
                prices.append((delivery.seq, decode(_price_decoder, delivery.data)))
            case Gap() | Restarted():
                yield delivery
            case None if is_end:
                return
            case None | Doubt():
                pass


def _continues(blocks: list[Block], block: Block) -> bool:
    last = blocks[-1]
    return (
        (block.topic, block.seq) == (last.topic, last.last_seq + 1)
        and block.columns.texts == last.columns.texts
        and block.last_seq - blocks[0].seq < MAX_ROWS
    )


def _frame_of(prices: list[Numbered]) -> pl.DataFrame:
    fields = {name: [getattr(one, name) for _, one in prices] for name in PriceUpdate.__struct_fields__}
    return price_frame(pl.Series([seq for seq, _ in prices]), fields)
