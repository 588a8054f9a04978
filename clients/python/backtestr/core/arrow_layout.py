"""This module finds the values of each column in an Arrow IPC file, so that they can be used where they are.

    "ARROW1" 0 0 │ schema │ record batches │ footer, length of it, "ARROW1"

The footer names the record batches, and the message before each of them its columns' buffers. Both are flatbuffers, of
which this reads the few fields that it needs (Arrow's `File.fbs` and `Message.fbs`): a table begins with the distance
to its vtable, which has the place of each field, 0 for an absent one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

MAGIC = b"ARROW1"
# Texts have a buffer of offsets besides validity and values.
_BUFFERS = {"utf8": 3}
# The fields of the tables Footer, Message and RecordBatch, by their numbers; what a Message holds; bytes of structs.
_RECORD_BATCHES = 3
_HEADER_TYPE, _HEADER, _IS_RECORD_BATCH = 1, 2, 3
_LENGTH, _NODES, _COLUMN_BUFFERS, _COMPRESSION = 0, 1, 2, 3
_BLOCK, _PAIR = 24, 16
# Before the flatbuffer of a message: a mark, and its length.
_PREFIX = 8


class ColumnPlace(msgspec.Struct, frozen=True):
    """The place of a column's values of one record batch: bytes from the start of the file, and how many are null."""

    offset: int
    size: int
    nulls: int


class RecordBatch(msgspec.Struct, frozen=True):
    """The rows of a record batch, and the place of each of its columns."""

    rows: int
    columns: list[ColumnPlace]


def record_batches(content: memoryview, types: Sequence[str]) -> list[RecordBatch]:
    """Return the record batches of an uncompressed file whose columns have these types, as `column_type` names them.

    Raises `ValueError` for a file that is damaged, compressed, or has other columns.
    """
    try:
        return _record_batches(content, types)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"it is damaged: {error}") from error


def _record_batches(content: memoryview, types: Sequence[str]) -> list[RecordBatch]:
    end = len(content) - len(MAGIC)
    if end < len(MAGIC) or content[: len(MAGIC)] != MAGIC or content[end:] != MAGIC:
        raise ValueError("it does not begin and end as an Arrow file")
    (length,) = struct.unpack_from("<i", content, end - 4)
    start = _inside(end - 4 - length, content)
    blocks, count = _vector(content, _table(content, start), _RECORD_BATCHES, _BLOCK)
    return [_record_batch(content, blocks + _BLOCK * number, types) for number in range(count)]


def _record_batch(content: memoryview, block: int, types: Sequence[str]) -> RecordBatch:
    offset, metadata_bytes = struct.unpack_from("<qi", content, block)
    message = _table(content, _inside(offset, content) + _PREFIX)
    body = _inside(offset + metadata_bytes, content)
    if content[_field(content, message, _HEADER_TYPE)] != _IS_RECORD_BATCH:
        raise ValueError("a message in it is no record batch")
    batch = _table(content, _field(content, message, _HEADER))
    if _find(content, batch, _COMPRESSION):
        raise ValueError("it is compressed")
    (rows,) = struct.unpack_from("<q", content, _field(content, batch, _LENGTH))
    nodes, node_count = _vector(content, batch, _NODES, _PAIR)
    buffers, buffer_count = _vector(content, batch, _COLUMN_BUFFERS, _PAIR)
    used = [_BUFFERS.get(kind, 2) for kind in types]
    if (node_count, buffer_count) != (len(used), sum(used)):
        raise ValueError(f"it has {node_count} columns with {buffer_count} buffers; expected {len(used)}, {sum(used)}")
    columns, at = [], 0
    for number, count in enumerate(used):
        length, nulls = struct.unpack_from("<qq", content, nodes + _PAIR * number)
        at += count
        place, size = struct.unpack_from("<qq", content, buffers + _PAIR * (at - 1))
        if length != rows or min(place, size) < 0 or body + place + size > len(content):
            raise ValueError("a column reaches beyond its end")
        columns.append(ColumnPlace(body + place, size, nulls))
    return RecordBatch(rows, columns)


def _table(content: memoryview, at: int) -> int:
    """Return the start of the table to which the offset at that place leads."""
    (distance,) = struct.unpack_from("<I", content, at)
    return _inside(at + int(distance), content)


def _find(content: memoryview, table: int, number: int) -> int:
    """Return the place of a field of a table, 0 where it is absent."""
    (distance,) = struct.unpack_from("<i", content, table)
    vtable = _inside(table - distance, content)
    (size,) = struct.unpack_from("<H", content, vtable)
    entry = 4 + 2 * number
    if entry + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", content, vtable + entry)
    return _inside(table + offset, content) if offset else 0


def _field(content: memoryview, table: int, number: int) -> int:
    if not (at := _find(content, table, number)):
        raise ValueError("a field is missing in it")
    return at


def _vector(content: memoryview, table: int, number: int, item_bytes: int) -> tuple[int, int]:
    """Return the place of the first item of a vector of structs, and the number of items."""
    at = _table(content, _field(content, table, number))
    (count,) = struct.unpack_from("<I", content, at)
    if at + 4 + count * item_bytes > len(content):
        raise ValueError("a list reaches beyond its end")
    return at + 4, count


def _inside(at: int, content: memoryview) -> int:
    if not 0 <= at < len(content):
        raise ValueError("a reference leads out of it")
    return at
