"""The footer of a Parquet file: where each row group begins. The engine reads only footers that it has just written.

A footer is a Thrift struct in the compact protocol (parquet-format 2.10, `FileMetaData`).
"""

from __future__ import annotations

from typing import Any

_ROW_GROUPS, _COLUMNS, _COLUMN_METADATA, _DATA_PAGE, _DICTIONARY_PAGE = 4, 1, 3, 9, 11
_TRUE, _FALSE, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = 1, 2, 3, (4, 5, 6), 7, 8, (9, 10), 12


def row_group_begins(footer: bytes) -> list[int]:
    """Return the place in the file of the first byte of each row group. Raises `ValueError` for another footer."""
    try:
        metadata, _ = _struct(footer, 0)
        return [min(map(_begin, group[_COLUMNS])) for group in metadata[_ROW_GROUPS]]
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError("the footer is not that of a Parquet file") from error


def _begin(column: dict[int, Any]) -> int:
    metadata = column[_COLUMN_METADATA]
    return min(int(metadata[place]) for place in (_DATA_PAGE, _DICTIONARY_PAGE) if metadata.get(place))


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct by number, and the place after it."""
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        step, kind = head >> 4, head & 15
        if step:
            number += step
        else:
            number, at = _signed(data, at)
        if kind in (_TRUE, _FALSE):
            fields[number] = kind == _TRUE
        else:
            fields[number], at = _value(data, at, kind)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        return _signed(data, at)
    if kind == _BINARY:
        length, at = _unsigned(data, at)
        return data[at : at + length], at + length
    if kind == _STRUCT:
        return _struct(data, at)
    if kind in _LISTS:
        return _list(data, at)
    if kind in (_TRUE, _FALSE, _BYTE, _DOUBLE):  # a boolean in a list has a byte of its own
        length = 8 if kind == _DOUBLE else 1
        return data[at : at + length], at + length
    raise ValueError(f"the footer of a Parquet file has no value of kind {kind}")


def _list(data: bytes, at: int) -> tuple[list[Any], int]:
    count, kind = data[at] >> 4, data[at] & 15
    at += 1
    if count == 15:
        count, at = _unsigned(data, at)
    values = []
    for _ in range(count):
        value, at = _value(data, at, kind)
        values.append(value)
    return values, at


def _signed(data: bytes, at: int) -> tuple[int, int]:
    folded, at = _unsigned(data, at)
    return (folded >> 1) ^ -(folded & 1), at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
