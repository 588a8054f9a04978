"""This module bounds the texts of algorithms: their errors, tracebacks and descriptions may have any length."""

from __future__ import annotations

import re
import traceback
from typing import Any

# The most bytes of one text in UTF-8: a traceback of hundreds of lines is shorter, and a broker keeps thousands.
MAX_TEXT_BYTES = 65_536
# The most bytes of all texts in the details of one error, beside its message.
MAX_DETAILS_BYTES = 2 * MAX_TEXT_BYTES
# The most entries of a list or map in the details of an error, and how deep these may lie in each other.
_MAX_ENTRIES = 1_000
_MAX_DEPTH = 16
# The bytes that an entry costs beside its text.
_ENTRY_BYTES = 16
_CUT = re.compile(r"… cut: [\d,]+ characters\Z")
_MAX_NOTE = 64
_LARGEST, _SMALLEST = 2**64 - 1, -(2**63)


def bounded(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """Return `text` in at most `limit` bytes of UTF-8, which states its length at the end if it was cut.

    Lone surrogates, which UTF-8 cannot express, are written as in Python's source.
    """
    head = text[:limit].encode("utf-8", "backslashreplace")
    if len(text) <= limit and len(head) <= limit:
        return head.decode()
    was_cut = _CUT.search(text[-_MAX_NOTE:])  # with the length of the whole text
    note = was_cut[0] if was_cut else f"… cut: {len(text):,} characters"
    return head[: max(0, limit - len(note.encode()))].decode("utf-8", "ignore") + note


def described(error: BaseException) -> str:
    """Return the type and text of an error that code of a user raised, bounded, also where its text cannot be made."""
    return bounded(f"{_name(error)}: {_text(error)}".removesuffix(": "))


def traceback_of(error: BaseException, callers: tuple[str, ...] = ()) -> str:
    """Return the traceback of such an error, bounded, without the values of variables.

    `callers` are the beginnings of file names. Frames in those files are left out until the first in another file, of
    this error and of those before it. An error that was handled in those files, before the code that they call began,
    is left out as a whole.
    """
    try:
        shown = traceback.TracebackException.from_exception(error, compact=True)
        if callers:
            _begin_after(shown, callers)
        return bounded("".join(shown.format()))
    except BaseException:  # code of a user runs here as well: an error makes its own text
        return f"its traceback could not be made: {_name(error)}"


def frames_after(stack: list[traceback.FrameSummary], callers: tuple[str, ...]) -> list[traceback.FrameSummary]:
    """Return a stack from its first frame on that is in none of the files whose names begin with one of `callers`."""
    first = next((at for at, frame in enumerate(stack) if not frame.filename.startswith(callers)), len(stack))
    return stack[first:]


def _begin_after(shown: traceback.TracebackException, callers: tuple[str, ...]) -> None:
    """Leave the frames of callers out of an error and those before it, of which there may be thousands."""
    to_do = [shown]
    while to_do:
        one = to_do.pop()
        one.stack[:] = frames_after(one.stack, callers)
        before = one.__context__
        if before is not None and before.stack and before.stack[0].filename.startswith(callers):
            one.__context__ = None
        to_do += filter(None, (one.__cause__, one.__context__, *(one.exceptions or ())))


def bounded_details(details: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the details of an error as values that MessagePack expresses, with texts of at most `MAX_DETAILS_BYTES`.

    What is beyond the bounds is left out; an object of any other type is replaced by its `repr`.
    """
    return None if details is None else _Bounds(MAX_DETAILS_BYTES).mapping(details, 0)


class _Bounds:
    """Copies values while their size is within the bounds."""

    def __init__(self, left: int) -> None:
        self._left = left

    def mapping(self, values: dict[Any, Any], depth: int) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for key, value in list(values.items())[:_MAX_ENTRIES]:
            if self._left <= 0:
                break
            name = self._text(key if type(key) is str else _repr(key))
            copied[name] = self._value(value, depth + 1)
        return copied

    def _value(self, value: Any, depth: int) -> Any:
        self._left -= _ENTRY_BYTES
        kind = type(value)
        if value is None or kind is bool or kind is float:
            return value
        if kind is int:
            return value if _SMALLEST <= value <= _LARGEST else self._text(_repr(value))
        if kind is str:
            return self._text(value)
        if depth < _MAX_DEPTH and kind in (list, tuple, set, frozenset):
            entries = list(value)[:_MAX_ENTRIES]
            return [self._value(entry, depth + 1) for entry in entries if self._left > 0]
        if depth < _MAX_DEPTH and kind is dict:
            return self.mapping(value, depth)
        return self._text(_repr(value))

    def _text(self, text: str) -> str:
        kept = bounded(text, max(0, min(MAX_TEXT_BYTES, self._left)))
        self._left -= len(kept.encode())
        return kept


def _name(error: BaseException) -> str:
    try:
        return str(type(error).__name__)
    except BaseException:  # a metaclass of a user may raise here
        return "an error"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "its text could not be made"


def _repr(value: Any) -> str:
    try:
        return str(repr(value))
    except BaseException:
        return f"a value of type {type(value).__name__}"
