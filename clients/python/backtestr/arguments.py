"""Arguments of callers as the wire has them: points in time, the engine's options, and the prices of a feed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from backtestr_protocol.price_messages import FeedPrice, PublishPrices
from backtestr_protocol.stream_messages import PriceUpdate

Instant = str | date | datetime
"""A point in time: ISO 8601 text, a date (midnight) or a `datetime`. Without an offset it is UTC."""

_FEED_FIELDS = FeedPrice.__struct_fields__
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def as_datetime(instant: Instant) -> datetime:
    """Return `instant` in UTC. Raises `ValueError` for text that is not ISO 8601."""
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
    """Return milliseconds since the Unix epoch, rounded down."""
    return (as_datetime(instant) - _EPOCH) // timedelta(milliseconds=1)


def as_iso(instant: Instant) -> str:
    """Return ISO 8601 text in UTC."""
    return as_datetime(instant).isoformat().replace("+00:00", "Z")


def camel(name: str) -> str:
    """Return `fill_at` as `fillAt`; a name that is in camelCase already stays as it is."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def wire_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options` with every name in camelCase, those of `streams` included. The broker checks the names."""
    return {
        camel(name): wire_options(value) if isinstance(value, Mapping) else value for name, value in options.items()
    }


def feed_request(prices: Iterable[PriceUpdate | Mapping[str, Any]]) -> PublishPrices:
    """Return the request that publishes prices. Raises `TypeError` for a field that a feed does not give."""
    return PublishPrices(prices=[_feed_price(price) for price in prices])


def _feed_price(price: PriceUpdate | Mapping[str, Any]) -> FeedPrice:
    if isinstance(price, Mapping):
        return FeedPrice(**price)
    return FeedPrice(**{name: getattr(price, name) for name in _FEED_FIELDS})
