"""Instants: microseconds since the Unix epoch, UTC, to ISO 8601 text and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from backtestr_protocol.errors import ValidationError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def instant(timestamp_us: int) -> str:
    """Format microseconds since the epoch in UTC: `2022-01-03` at midnight, else `2022-01-03T09:05:00Z`."""
    at = _EPOCH + timedelta(microseconds=int(timestamp_us))
    if (at.hour, at.minute, at.second, at.microsecond) == (0, 0, 0, 0):
        return at.date().isoformat()
    return at.isoformat().replace("+00:00", "Z")


def parse_instant(text: str, *, path: str) -> int:
    """Parse ISO 8601 to microseconds since the epoch; a date alone is midnight, a time without an offset is UTC."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValidationError(
            f"{path} must be an ISO 8601 date or time such as 2022-01-03 or 2022-01-03T09:30:00Z, not {text!r}",
            path=path,
            expected="ISO 8601 date or time",
            got=text,
        ) from None
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
