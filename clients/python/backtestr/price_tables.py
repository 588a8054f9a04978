"""Prices as tables: what lies unread in a subscription, put together as far as it belongs together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl

from backtestr.core.batches import PackedMessages, PriceColumns, joined, price_frame
from backtestr.core.effects import Block, Delivery, Gap, MaybeLost, Restarted, StreamMessage
from backtestr.core.updates import Update, read_message, read_row, rows_of
from backtestr.io.mailbox import Mailbox
from backtestr_protocol.errors import BacktestrError, MessageError, ValidationError
from backtestr_protocol.stream_messages import PriceUpdate

# Rows of one table at the most, when that many lie unread: beyond, a table costs hardly less for each of them.
MAX_ROWS = 65_536
# Messages that are put together into one table, where they did not come as columns: as many as a full batch has.
MAX_MESSAGES = 1000

Numbered = tuple[int, PriceUpdate]


def frames(mailbox: Mailbox, rows: Iterable[Update]) -> Iterator[pl.DataFrame | Gap | Restarted]:
    """`rows` are what is left of a block that was begun, and come first. What is not in a table yet stays in the
    mailbox, for whoever goes on after leaving here. Raises `MessageError` for what is no price, after the table before
    it."""
    columns: list[tuple[Block, PriceColumns]] = []
    prices: list[Numbered] = []
    yield from _gathered(rows, prices)
    while True:
        try:
            delivery = mailbox.peek(0.0 if columns or prices else None)
        except (BacktestrError, RuntimeError):  # nothing else lies there, or what ends it: that comes again
            if not (columns or prices):
                raise
            delivery = None
        if columns and not (isinstance(delivery, Block) and _continues(columns, delivery)):
            table = joined([content for _, content in columns]).frame(columns[0][0].seq)
            columns.clear()
            yield table
            continue
        if prices and not 0 < _rows(delivery) <= MAX_MESSAGES - len(prices):
            yield _taken(prices)
            continue
        if delivery is None:
            return
        mailbox.take(0.0)
        match delivery:
            case Block(content=PriceColumns() as content):
                columns.append((delivery, content))
            case Block():
                yield from _gathered(map(read_row, rows_of(delivery)), prices)
            case StreamMessage():
                yield from _gathered(map(read_message, (delivery,)), prices)
            case Gap() | Restarted():
                yield delivery
            case MaybeLost():
                pass


def _gathered(rows: Iterable[Update], prices: list[Numbered]) -> Iterator[pl.DataFrame]:
    """Put `rows` to the `prices`; where one is no price, those before it come out first."""
    try:
        prices.extend((row.seq, _price(row.data)) for row in rows)
    except MessageError:
        if prices:
            yield _taken(prices)
        raise


def _taken(prices: list[Numbered]) -> pl.DataFrame:
    table = _frame_of(prices)
    prices.clear()
    return table


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
