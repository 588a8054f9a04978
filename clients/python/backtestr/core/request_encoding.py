"""Requests are encoded in the caller's thread, and the values that programs bring are taken for what they are.

A scalar of numpy, pandas or the standard library is sent as the number, text or time that it is. A value that has no
such form is refused with the path of its field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from fractions import Fraction
from pathlib import PurePath
from typing import Any

import msgspec

from backtestr_protocol.errors import ValidationError
from backtestr_protocol.messages import Contract

from .instants import as_iso

# The characters of a value that an error shows.
_SHOWN = 80


def encode_request(data: Contract) -> msgspec.Raw:
    """Return the data of a request as MessagePack.

    Raises `ValidationError` with the path of the first field whose value cannot be sent.
    """
    try:
        return msgspec.Raw(_encoder.encode(data))
    except (TypeError, ValueError, OverflowError, RecursionError):
        for path, value in _leaves(data, "$", _MAX_DEPTH):
            if (reason := _reason(value)) is not None:
                raise ValidationError(f"{path}: {reason}", path=path) from None
        raise


def plain(value: Any) -> Any:
    """Return a value of another library, or of a subclass, as Python's own number, text or time in ISO 8601.

    Raises `TypeError` for a value that has no such form.
    """
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # a scalar or an array of numpy without dimensions
        value = as_iso(value) if value.dtype.kind == "M" else value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    for kind, taken in _TAKEN:
        if isinstance(value, kind):
            return taken(value)
    size = getattr(value, "shape", None) or (len(value),) if hasattr(value, "__len__") else ()
    if size:
        raise TypeError(f"{_shown(value)} has {size[0]} values, and one is meant")
    raise TypeError(f"{_shown(value)} is no number, text or time; convert it before it is sent")


def with_times_as_text(value: Any) -> Any:
    """Return `value`, a map or list of any depth included, with each time as text in ISO 8601."""
    if isinstance(value, Mapping):
        return {key: with_times_as_text(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [with_times_as_text(one) for one in value]
    return as_iso(value) if isinstance(value, date) else value


_TAKEN: tuple[tuple[type, Any], ...] = (
    (str, str.__str__),
    (int, int),
    (float, float),
    (Fraction, float),
    (date, as_iso),
    (PurePath, str),
)
# `decimal.Decimal` is sent as a number: it is one where a commission or a price is meant.
_encoder = msgspec.msgpack.Encoder(enc_hook=plain, decimal_format="number")
# Lists and maps within each other; the codec goes no further either.
_MAX_DEPTH = 100


def _leaves(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Iterate over the values that are neither struct, map nor list, each with its path; keys of maps are values."""
    if depth == 0:
        raise ValidationError(f"{path}: lists and maps within each other go deeper than {_MAX_DEPTH}", path=path)
    if isinstance(value, msgspec.Struct):
        for field in msgspec.structs.fields(value):
            yield from _leaves(getattr(value, field.name), f"{path}.{field.encode_name}", depth - 1)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield path, key
            yield from _leaves(one, f"{path}.{key}", depth - 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for position, one in enumerate(value):
            yield from _leaves(one, f"{path}[{position}]", depth - 1)
    else:
        yield path, value


def _reason(value: Any) -> str | None:
    """Return why a value cannot be sent, or None if it can."""
    try:
        _encoder.encode(value)
    except UnicodeEncodeError:
        return f"{_shown(value)} is not valid text: it has half of a surrogate pair"
    except OverflowError:
        return f"{_shown(value)} is beyond the 64 bits of an integer"
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def _shown(value: Any) -> str:
    text = ascii(value)
    return f"{text if len(text) <= _SHOWN else text[:_SHOWN] + '…'} ({type(value).__name__})"
