"""This module has the ranges of numbers, texts, lists and maps on the wire, as annotated types.

A decoder refuses what is out of range, an infinity or a NaN too, and names the field's path. The description of a type
ends that error, and stands in the JSON Schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from .errors import ValidationError

# The largest integer that float64 has exactly, with all integers below it: JavaScript's numbers are float64.
MAX_INTEGER = 2**53 - 1
# 1900-01-01 and 2200-01-01, in milliseconds since the Unix epoch. Datetimes of every language and column of a table can
# express what is between, also in nanoseconds.
EARLIEST_MS = -2_208_988_800_000
LATEST_MS = 7_258_118_400_000
# Numbers up to it can be added up without an infinity.
MAX_NUMBER = 1e300

# Symbols, names and ids have 64 characters at most, and keys of the shared state 256.
MAX_NAME_CHARACTERS = 256
# Three bytes of percent escape for each character still make a file name that every file system takes (255 bytes).
SYMBOL_MAX_CHARACTERS = 64
SYMBOL_RULE = f"a symbol is 1 to {SYMBOL_MAX_CHARACTERS} printable characters without spaces around them"
# A subscription has at most 500 bytes, so no longer topic could be followed.
MAX_TOPIC_CHARACTERS = 500
# Texts that a worker sends: the description of an algorithm is a line of a source of at most 262,144 characters.
MAX_TEXT_CHARACTERS = 1 << 20

# Entries and depth of a map whose values are of any kind, such as `parameters`. What is decoded at some depth of the
# stack must be encoded at another, and 32 levels are more than any option has.
MAX_ENTRIES = 256
MAX_LEVELS = 32
# Values in such a map, at all depths.
MAX_VALUES = 10_000

_TIME = "a time is in milliseconds since 1970-01-01 UTC, from the year 1900 up to 2200"
_INTEGER = "a whole number of up to 2^53 - 1"

if TYPE_CHECKING:
    Milliseconds = float  # which for mypy is int, too
else:
    # JavaScript's encoders write integers beyond 32 bits as float64 (msgpackr does so with Date.now()).
    Milliseconds = (
        Annotated[int, Meta(ge=EARLIEST_MS, le=LATEST_MS, description=_TIME)]
        | Annotated[float, Meta(ge=EARLIEST_MS, le=LATEST_MS, multiple_of=1.0, description=_TIME)]
    )

Integer = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER, description=_INTEGER)]
NotNegative = Annotated[int, Meta(ge=0, le=MAX_INTEGER, description=f"{_INTEGER}, 0 or more")]
Positive = Annotated[int, Meta(ge=1, le=MAX_INTEGER, description=f"{_INTEGER}, 1 or more")]

Number = Annotated[float, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER, description="a finite number, from -1e300 to 1e300")]
Amount = Annotated[float, Meta(ge=0.0, le=MAX_NUMBER, description="a finite number, 0 or more and up to 1e300")]
Fraction = Annotated[
    float, Meta(ge=0.0, lt=1.0, description="a fraction from 0 up to, but not including, 1 (0.001 = 0.1 %)")
]

Name = Annotated[str, Meta(max_length=MAX_NAME_CHARACTERS)]
Symbol = Annotated[str, Meta(min_length=1, max_length=SYMBOL_MAX_CHARACTERS, description=SYMBOL_RULE)]
Topic = Annotated[str, Meta(max_length=MAX_TOPIC_CHARACTERS)]
Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS)]

# A map whose values are checked by the part that consumes them; `check_levels` bounds what is in it.
FreeMap = Annotated[dict[Name, Any], Meta(max_length=MAX_ENTRIES)]


def check_levels(values: Mapping[str, Any], path: str) -> None:
    """Raise `ValidationError` where a map at `path` of a request is nested too deeply, or has too many values."""
    count = 0
    level: list[Any] = list(values.values())
    for _ in range(MAX_LEVELS):
        count += len(level)
        if count > MAX_VALUES:
            raise ValidationError(f"{path}: more than {MAX_VALUES:,} values; send fewer", path=path)
        level = [inner for outer in level for inner in _within(outer)]
        if not level:
            return
    raise ValidationError(f"{path}: nested in more than {MAX_LEVELS} levels; send a flatter map", path=path)


def _within(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, list | tuple) else []
