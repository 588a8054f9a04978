"""Prices as tables: the unread prices of a subscription are joined, as far as they follow each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl

from backtestr.core.batches import PackedMessages, PriceColumns, join_columns, price_table
from backtestr.core.effects import DeliveredBatch, Delivery, Gap, MaybeLost, Restarted, StreamMessage
from backtestr.core.updates import Update, as_update, decode_batch, read_message
from backtestr.io.mailboxes import Mailbox
from backtestr_protocol.errors import BacktestrError, MessageError, ValidationError
from backtestr_protocol.stream_messages import PriceUpdate

# Most rows of one table: a longer table costs hardly less for each row.
MAX_ROWS = 65_536
# Most messages of one table that did not come as columns: as many as a full batch has.
MAX_MESSAGES = 1000

Numbered = tuple[int, PriceUpdate]


def frames(mailbox: Mailbox, rows: Iterable[Update]) -> Iterator[pl.DataFrame | Gap | Restarted]:
    """Yield the prices of a mailbox as tables, and gaps and restarts between them.

    `rows` are the unread rest of a batch, and come first. Prices that are in no table yet stay in the mailbox, so that
    a caller can stop here and read on in another way. Raises `MessageError` for a message that is no price, after the
    table of those before it.
    """
    columns: list[tuple[DeliveredBatch, PriceColumns]] = []
    prices: list[Numbered] = []
    yield from _gathered(rows, prices)
    while True:
        try:
            delivery = mailbox.peek(0.0 if columns or prices else None)
        except (BacktestrError, RuntimeError):  # the mailbox is empty, or has ended: that is raised again
            if not (columns or prices):
                raise
            delivery = None
        if columns and not (isinstance(delivery, DeliveredBatch) and _continues(columns, delivery)):
            table = join_columns([content for _, content in columns]).frame(columns[0][0].seq)
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
            case DeliveredBatch(content=PriceColumns() as content):
                columns.append((delivery, content))
            case DeliveredBatch():
                yield from _gathered(map(as_update, decode_batch(delivery)), prices)
            case StreamMessage():
                yield from _gathered(map(read_message, (delivery,)), prices)
            case Gap() | Restarted():
                yield delivery
            case MaybeLost():
                pass


def _gathered(rows: Iterable[Update], prices: list[Numbered]) -> Iterator[pl.DataFrame]:
    """Add `rows` to the `prices`; if one is no price, yield the table of those before it, then raise."""
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


def _continues(columns: list[tuple[DeliveredBatch, PriceColumns]], block: DeliveredBatch) -> bool:
    (first, _), (last, content) = columns[0], columns[-1]
    return (
        isinstance(block.content, PriceColumns)
        and (block.topic, block.seq) == (last.topic, last.last_seq + 1)
        and block.content.texts == content.texts
        and block.last_seq - first.seq < MAX_ROWS
    )


def _rows(delivery: Delivery | None) -> int:
    """Count the messages of a delivery that did not come as columns."""
    match delivery:
        case DeliveredBatch(content=PackedMessages() as content):
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
    return price_table(pl.Series([seq for seq, _ in prices]), fields)
