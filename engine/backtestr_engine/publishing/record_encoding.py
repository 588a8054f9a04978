"""Encoding of records as MessagePack maps by a kernel, from columns, without a Python object for each record.

A busy backtest makes 100,000 order and position updates in a few milliseconds; building and encoding a struct for each
would take longer than the backtest. Records that differ in numbers only share a template: the template is copied, the
numbers are written into it, and the id, whose length varies, comes last. Any MessagePack decoder reads the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from backtestr_engine.compiled import compiled
from backtestr_engine.data.arrays import Booleans, Bytes, Integers

_FLOAT64, _UINT64 = b"\xcb", b"\xcf"
_NUMBER_BYTES = 8
# A byte of header and the 19 digits of 2^63.
_MAX_ID_BYTES = 20
# Counting shapes is ten times as fast as sorting them; many symbols have too many shapes to count.
_COUNTED_SHAPES = 1 << 16
# Unsigned, as ids are in the kernel: division by it is a multiplication.
_TEN = np.uint64(10)


class Number(msgspec.Struct, frozen=True):
    """A column of float64, or of integers that are not negative; where `present` is False the key is left out."""

    values: np.ndarray
    present: Booleans | None = None


class Text(msgspec.Struct, frozen=True):
    """A column of texts, one of `choices` per record, by index; where `present` is False the key is left out."""

    choices: Sequence[str]
    index: np.ndarray
    present: Booleans | None = None


Field = Number | Text | str | bool


class EncodedMaps(msgspec.Struct, frozen=True):
    """Maps one after another in `data`; map i ends at `ends[i]`."""

    data: bytes
    ends: Integers

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def size(self) -> int:
        return len(self.data)

    def cut(self, first: int, stop: int) -> EncodedMaps:
        """Return a copy of the maps [first, stop), which does not keep the others in memory."""
        begin = int(self.ends[first - 1]) if first else 0
        return EncodedMaps(self.between(first, stop), self.ends[first:stop] - begin)

    def between(self, first: int, stop: int) -> bytes:
        """Return the bytes of maps [first, stop)."""
        begin = int(self.ends[first - 1]) if first else 0
        return self.data[begin : int(self.ends[stop - 1])] if stop > first else b""


class Ids(msgspec.Struct, frozen=True):
    """A key whose values are whole numbers, not negative, written as text."""

    name: str
    values: Integers


def encode_payloads(type_name: str, fields: Mapping[str, Field], count: int, ids: Ids | None = None) -> EncodedMaps:
    """Return `count` payloads `{"type": type_name, "data": {field: value, …, id name: id}}`.

    `fields`: up to 14 of them; a plain string or bool is the same in every record. All columns have `count` values.
    """
    assert len(fields) <= 14, "a map of up to 15 keys has one byte of header"
    if not count:
        return EncodedMaps(b"", np.zeros(0, dtype=np.int64))
    found, shape = _numbered(_shapes(fields, count))
    numbers = [field for field in fields.values() if isinstance(field, Number)]
    templates = [_template(type_name, fields, ids.name if ids else None, int(one)) for one in found]
    width = max(len(template) for template, _ in templates)
    bodies = np.zeros((len(found), width), dtype=np.uint8)
    lengths = np.zeros(len(bodies), dtype=np.int64)
    places = np.full((len(bodies), len(numbers)), -1, dtype=np.int64)
    for one, (template, at) in enumerate(templates):
        bodies[one, : len(template)] = np.frombuffer(template, dtype=np.uint8)
        lengths[one] = len(template)
        places[one] = at
    values = np.empty((count, len(numbers), _NUMBER_BYTES), dtype=np.uint8)
    for column, number in enumerate(numbers):
        values[:, column] = _big_endian(number.values)
    out = np.empty((width + _MAX_ID_BYTES) * count, dtype=np.uint8)
    ends = np.empty(count, dtype=np.int64)
    id_values = ids.values.astype(np.uint64) if ids else np.zeros(0, dtype=np.uint64)
    written = _fill(out, ends, shape, bodies, lengths, places, values, id_values)
    return EncodedMaps(out[:written].tobytes(), ends)


def _shapes(fields: Mapping[str, Field], count: int) -> Integers:
    """Return a number per record, the same for records that have the same keys and texts."""
    shape = np.zeros(count, dtype=np.int64)
    for field in fields.values():
        if isinstance(field, Text):
            choice = field.index.astype(np.int64) + 1
            if field.present is not None:
                choice[~field.present] = 0
            shape = shape * (len(field.choices) + 1) + choice
        elif isinstance(field, Number) and field.present is not None:
            shape = shape * 2 + field.present
    return shape


def _numbered(shape: Integers) -> tuple[Integers, Integers]:
    """Return the shapes that occur, and the index of the shape of each record."""
    if shape.max() >= _COUNTED_SHAPES:
        found, inverse = np.unique(shape, return_inverse=True)
        return found, inverse
    found = np.flatnonzero(np.bincount(shape))
    number = np.zeros(int(found[-1]) + 1, dtype=np.int64)
    number[found] = np.arange(len(found))
    return found, number[shape]


def _template(type_name: str, fields: Mapping[str, Field], id_name: str | None, shape: int) -> tuple[bytes, list[int]]:
    """Return the bytes of a record of a shape, up to its id, and the position of each number in them (-1: none)."""
    choices: dict[str, int] = {}
    for name, field in reversed(list(fields.items())):
        if isinstance(field, Text):
            shape, choices[name] = divmod(shape, len(field.choices) + 1)
        elif isinstance(field, Number) and field.present is not None:
            shape, choices[name] = divmod(shape, 2)
    body = bytearray()
    places: list[int] = []
    keys = 0 if id_name is None else 1
    for name, field in fields.items():
        if choices.get(name) == 0:
            if isinstance(field, Number):
                places.append(-1)
            continue
        keys += 1
        body += _text(name)
        match field:
            case Number(values=values):
                body += _FLOAT64 if values.dtype.kind == "f" else _UINT64
                places.append(len(body))
                body += bytes(_NUMBER_BYTES)
            case Text():
                body += _text(field.choices[choices[name] - 1])
            case str():
                body += _text(field)
            case bool():
                body += msgspec.msgpack.encode(field)
    if id_name is not None:
        body += _text(id_name)
    head = b"\x82" + _text("type") + _text(type_name) + _text("data") + bytes([0x80 | keys])
    return head + bytes(body), [place if place < 0 else place + len(head) for place in places]


def _text(text: str) -> bytes:
    return msgspec.msgpack.encode(text)


def _big_endian(values: np.ndarray) -> Bytes:
    """Return 8 bytes per value, in the byte order of MessagePack."""
    ordered = values.astype(">f8" if values.dtype.kind == "f" else ">u8")
    return ordered.view(np.uint8).reshape(len(values), _NUMBER_BYTES)


@compiled()
def _fill(
    out: Bytes,
    ends: Integers,
    shape: Integers,
    bodies: np.ndarray,
    lengths: Integers,
    places: np.ndarray,
    values: np.ndarray,
    ids: np.ndarray,
) -> int:
    """Write every record, and return the number of bytes. Without `ids` no id is written."""
    at = 0
    for record in range(len(ends)):
        kind = shape[record]
        length = lengths[kind]
        body, target = bodies[kind], out[at : at + length]
        for byte in range(length):  # five times faster than assigning the slice
            target[byte] = body[byte]
        for column in range(places.shape[1]):
            place = places[kind, column]
            if place >= 0:
                for byte in range(8):
                    out[at + place + byte] = values[record, column, byte]
        at += length
        if len(ids):
            value = ids[record]
            digits = 1
            bound = _TEN
            while value >= bound and digits < 19:
                digits += 1
                bound *= _TEN
            out[at] = 0xA0 | digits
            for back in range(digits):
                rest = value // _TEN
                out[at + digits - back] = 48 + (value - rest * _TEN)
                value = rest
            at += digits + 1
        ends[record] = at
    return at
