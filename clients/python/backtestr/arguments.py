"""Arguments of callers as the wire has them: what is tested and how, symbols, options, and the prices of a feed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backtestr.core.instants import Instant, as_iso, as_ms
from backtestr.core.request_encoding import plain, with_times_as_text
from backtestr_protocol.messages import BacktestConfig, TickPrice
from backtestr_protocol.price_messages import FeedPrice, PublishPrices
from backtestr_protocol.stream_messages import PriceUpdate

_FEED_FIELDS = FeedPrice.__struct_fields__


def camel(name: str) -> str:
    """Return `fill_at` as `fillAt`; a name that is in camelCase already stays as it is."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def wire_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options` with every name in camelCase, those of `streams` included. The broker checks the names."""
    return {
        camel(name): wire_options(value) if isinstance(value, Mapping) else with_times_as_text(value)
        for name, value in options.items()
    }


def config_of(
    algorithm: str,
    symbol: str | Sequence[str],
    timeframe: str,
    *,
    start: Instant | None = None,
    end: Instant | None = None,
    price: TickPrice | None = None,
    capital: float = 100_000.0,
    commission: float = 0.0,
    slippage: float = 0.0,
    parameters: Mapping[str, Any] | None = None,
    warmup: int | None = None,
    **options: Any,
) -> BacktestConfig:
    """Return the configuration of a backtest, or of each one of a sweep, without an id.

    The arguments are those of `Client.backtest`. Raises `ValueError` for no symbol and for what is no time.
    """
    symbols = as_symbols(symbol)
    return BacktestConfig(
        algorithm_id=algorithm,
        symbol=symbols[0],
        symbols=symbols if len(symbols) > 1 else [],
        start_date=None if start is None else as_iso(start),
        end_date=None if end is None else as_iso(end),
        initial_capital=capital,
        timeframe=timeframe,
        price=price,
        commission=commission,
        slippage=slippage,
        parameters=with_times_as_text(parameters or {}),
        options=backtest_options(options),
        warmup=warmup,
    )


def backtest_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a backtest as `wire_options` does.

    Prices are published as columns, unless `options` say otherwise: they are floods, and a client reads columns one by
    one several times as fast as maps.
    """
    found = wire_options(options)
    streams = found.get("streams")
    if isinstance(streams, dict) and streams.get("prices") is True:
        streams.setdefault("columns", True)
    return found


def as_symbols(symbol: str | Iterable[str]) -> list[str]:
    """Return one symbol or several as a list. Raises `ValueError` for none."""
    one = symbol if isinstance(symbol, str) or getattr(symbol, "ndim", None) != 0 else plain(symbol)
    symbols = [one] if isinstance(one, str) else list(one)
    if not symbols:
        raise ValueError("a backtest needs at least one symbol")
    return symbols


def feed_request(prices: Iterable[PriceUpdate | Mapping[str, Any]]) -> PublishPrices:
    """Return the request that publishes prices; their times may be any `Instant`.

    Raises `TypeError` for a field that a feed does not give.
    """
    return PublishPrices(prices=[_feed_price(price) for price in prices])


def _feed_price(price: PriceUpdate | Mapping[str, Any]) -> FeedPrice:
    fields = price if isinstance(price, Mapping) else {name: getattr(price, name) for name in _FEED_FIELDS}
    if type(fields.get("timestamp", 0)) is not int:
        fields = {**fields, "timestamp": as_ms(fields["timestamp"])}
    return FeedPrice(**fields)
