"""Points in time as callers give them, and as the wire wants them: UTC, in milliseconds or as ISO 8601 text."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

Instant = str | date | datetime
"""ISO 8601 text, a date (midnight) or a time. What carries no offset is UTC."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def as_datetime(instant: Instant) -> datetime:
    """`instant` in UTC. Raises `ValueError` for text that is not ISO 8601."""
    match instant:
        case str():
            try:
                moment = datetime.fromisoformat(instant)
            except ValueError:
                raise ValueError(
                    f"{instant!r} is not a time in ISO 8601, such as 2022-01-03 or 2022-01-03T14:30"
                ) from None
        case datetime():
            moment = instant
        case date():
            moment = datetime(instant.year, instant.month, instant.day)  # noqa: DTZ001 - made UTC below
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def as_ms(instant: Instant) -> int:
    """Milliseconds since the Unix epoch, rounded down."""
    return (as_datetime(instant) - _EPOCH) // timedelta(milliseconds=1)


def as_iso(instant: Instant | int) -> str:
    """ISO 8601 text in UTC; an integer is milliseconds since the Unix epoch."""
    moment = _EPOCH + timedelta(milliseconds=instant) if isinstance(instant, int) else as_datetime(instant)
    return moment.isoformat().replace("+00:00", "Z")
