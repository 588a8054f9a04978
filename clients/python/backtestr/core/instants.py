"""Points in time, in all the types that programs have them in, become the two forms of the wire."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol


class NumpyScalar(Protocol):
    """A scalar of numpy, which this module does not import."""

    @property
    def dtype(self) -> Any: ...

    def item(self) -> Any: ...


Instant = str | int | date | datetime | NumpyScalar
"""A point in time.

ISO 8601 text, a date (midnight), a `datetime`, whole milliseconds since the Unix epoch, `numpy.datetime64`, or a
timestamp of pandas or polars. Without an offset it is UTC.
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WHICH = (
    "give ISO 8601 text such as 2022-01-03 or 2022-01-03T14:30, a date, a datetime, numpy.datetime64, or whole "
    "milliseconds since 1970"
)


def as_datetime(instant: Instant) -> datetime:
    """Return `instant` in UTC, in whole microseconds.

    Raises `ValueError` for a value that is no time, and `TypeError` for a type that is none of `Instant`.
    """
    moment = _unpacked(instant)
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            raise ValueError(f"{instant!r} is not a time in ISO 8601; {_WHICH}") from None
    elif isinstance(moment, int) and not isinstance(moment, bool):
        try:
            return _EPOCH + timedelta(milliseconds=moment)
        except OverflowError:
            raise ValueError(f"{instant!r} milliseconds since 1970 are beyond the year 9999") from None
    elif isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)  # noqa: DTZ001 - made UTC below
    if not isinstance(moment, datetime):
        raise TypeError(f"{instant!r} ({type(instant).__name__}) is not a time; {_WHICH}")
    if moment != moment:  # pandas.NaT
        raise ValueError(f"{instant!r} is not a time; {_WHICH}")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _unpacked(instant: Any) -> Any:
    """Return a scalar of numpy or pandas as Python's own type, and anything else as it is."""
    if hasattr(instant, "to_pydatetime"):  # pandas: its nanoseconds are beyond the wire's milliseconds
        return instant if instant != instant else instant.to_pydatetime(warn=False)
    if getattr(instant, "ndim", None) != 0:
        return instant
    if instant.dtype.kind == "M":
        return instant.astype("datetime64[us]").item()  # None for NaT
    return instant.item()


def as_ms(instant: Instant) -> int:
    """Return milliseconds since the Unix epoch, rounded down."""
    return (as_datetime(instant) - _EPOCH) // timedelta(milliseconds=1)


def as_iso(instant: Instant) -> str:
    """Return ISO 8601 text in UTC."""
    return as_datetime(instant).isoformat().replace("+00:00", "Z")
