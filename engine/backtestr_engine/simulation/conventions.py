"""The conventions and other options of a backtest, from `BacktestConfig.options` to a checked struct.

There are three layers, and the later wins: the defaults of `config/engine.toml`, the preset, the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_type_hints

import msgspec

from backtestr_engine.algorithms.signals import LARGEST_LOSS
from backtestr_protocol.errors import InvalidConfiguration, ValidationError, did_you_mean, quoted
from backtestr_protocol.messages import StreamOptions

from .option_names import check_choice, check_name

_Struct = TypeVar("_Struct")

_LARGEST = 1e300

_MAX_TEXT = 200
"""The most characters of an error that quotes a received value."""

TIME_LIMIT_MAX_MS = 24 * 60 * 60 * 1000

PACE_MIN = 0.01
"""Bars a second. A slower pace cannot be watched either, and the backtest keeps its arrays in memory meanwhile."""

PACE_MAX = 1_000_000
"""Bars a second. A faster pace cannot be watched: leave the option out for full speed."""


class Conventions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules of how orders are made, filled and measured.

    Section `[conventions]` of `config/engine.toml` has the default, unit and reason of each; on the wire the names are
    camelCase.
    """

    fill_at: Literal["next_open", "close"]
    close_booked: Literal["same_bar", "next_bar"]
    order_type: Literal["market", "limit", "stop", "stop_limit"]
    valid_bars: int
    size: Literal["all_in", "fraction", "units", "value", "risk"]
    size_value: float
    size_base: Literal["equity", "cash"]
    whole_units: bool
    commission_fixed: float
    commission_per_unit: float
    commission_minimum: float
    leverage: float
    maintenance_margin: float
    liquidation: Literal["always", "on_credit"]
    size_costs: Literal["exact", "per_unit"]
    slippage_on: Literal["market_and_stops", "market", "entries"]
    stop_loss: float
    take_profit: float
    trailing_stop: float
    stop_base: Literal["fill_price", "entry_close", "signal_close"]
    stop_active: Literal["same_bar", "same_bar_at_open", "next_bar"]
    touch: Literal["rounded", "exact"]
    after_stop: Literal["obey", "skip"]
    direction: Literal["both", "long", "short"]
    on_opposite: Literal["reverse", "close", "ignore"]
    reversal: Literal["one_order", "two_orders"]
    short_of_cash: Literal["reject", "cut"]
    short_collateral: bool
    cash_shares: Literal["equal", "first_come"]
    symbol_order: Literal["sells_first", "given"]
    cross_ties: Literal["keep", "fire", "strict"]
    close_at_end: bool
    end_price: Literal["close", "open", "previous_close"]
    statistics: Literal["per_bar", "daily_geometric"]
    drawdown_from: Literal["capital", "first_close"]
    calendar: Literal["auto", "24/7", "24/5", "252d"]
    risk_free: float
    look_ahead_check: bool
    time_limit_ms: int


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """All options of one backtest. `pace`, in bars a second, changes only when things happen."""

    preset: str | None
    conventions: Conventions
    streams: StreamOptions
    pace: float | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return every option in camelCase, as a request would give it to get exactly these."""
        flat = {_camel(name): value for name, value in msgspec.to_builtins(self.conventions).items()}
        if self.conventions.size == "all_in":
            del flat["sizeValue"]
        streams = {_camel(name): getattr(self.streams, name) for name in StreamOptions.__struct_fields__}
        chosen = {"preset": self.preset, "pace": self.pace}
        return {**flat, "streams": streams, **{name: value for name, value in chosen.items() if value is not None}}


PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Portfolio.from_signals of vectorbt 1.0 with its defaults: see the golden case in tests/engine.
    "vectorbt": {
        "fill_at": "close",
        "close_booked": "same_bar",
        "size": "all_in",
        "size_base": "cash",
        "cash_shares": "first_come",
        "whole_units": False,
        "symbol_order": "given",
        "on_opposite": "reverse",
        "short_of_cash": "cut",
        "short_collateral": False,
        "cross_ties": "fire",
        "slippage_on": "market",
        "stop_base": "entry_close",
        "stop_active": "next_bar",
        "touch": "exact",
        "liquidation": "on_credit",
        "after_stop": "skip",
        "close_at_end": False,
        "reversal": "one_order",
        "size_costs": "exact",
        "statistics": "per_bar",
        "drawdown_from": "first_close",
        "calendar": "24/7",
        "risk_free": 0.0,
    },
    # Backtest.run of backtesting.py 0.6 with finalize_trades; `slippage` is its spread.
    "backtesting.py": {
        "fill_at": "next_open",
        "close_booked": "next_bar",
        "size": "all_in",
        "whole_units": True,
        "size_costs": "per_unit",
        "slippage_on": "entries",
        "stop_base": "signal_close",
        "stop_active": "same_bar_at_open",
        "touch": "exact",
        "liquidation": "on_credit",
        "on_opposite": "reverse",
        "reversal": "two_orders",
        "short_of_cash": "reject",
        "short_collateral": True,
        "cross_ties": "strict",
        "close_at_end": True,
        "end_price": "open",
        "statistics": "daily_geometric",
        "drawdown_from": "capital",
        "risk_free": 0.0,
    },
}

_PRESETS_AT_CLOSE: Mapping[str, Mapping[str, Any]] = {
    # trade_on_close of backtesting.py: finalize_trades runs the last bar again, where "the close before" is its price.
    "backtesting.py": {"end_price": "previous_close"},
}
"""The further rules of a preset under `fill_at` close, where that is not its own."""

_MONEY = (0.0, _LARGEST, "an amount of money, 0 or more")

_FRACTION = (0.0, _LARGEST, "a fraction of price above 0, or 0 for none")
"""For take profits: one of 1.5 is 150 %, which a long position can have."""

_LOSS = (0.0, LARGEST_LOSS, "a fraction of price from 0, for none, up to, but not including, 1 (0.02 = 2 %)")

_BOUNDS: Mapping[str, tuple[float, float, str]] = {
    "commission_fixed": _MONEY,
    "commission_per_unit": _MONEY,
    "commission_minimum": _MONEY,
    "leverage": (1.0, 1000.0, "a multiple of cash from 1 to 1000"),
    "maintenance_margin": (0.0, 1.0, "a fraction of a position's value from 0 to 1"),
    "stop_loss": _LOSS,
    "valid_bars": (0, 2**31, "a number of bars, or 0 for no end"),
    "take_profit": _FRACTION,
    "trailing_stop": _LOSS,
    "risk_free": (-1.0, 1.0, "a yearly rate, as a fraction, above -1 and up to 1"),
    "time_limit_ms": (1, TIME_LIMIT_MAX_MS, f"milliseconds, 1..{TIME_LIMIT_MAX_MS}"),
}


_KINDS = get_type_hints(Conventions)


def resolve_options(given: Mapping[str, Any], defaults: Conventions) -> Options:
    """Return `defaults` with the options of `given` (`BacktestConfig.options`, camelCase) in their place.

    Raises `ValidationError` for an unknown name (naming the near miss), an ill-typed or out-of-range value, with
    `details.path`; `InvalidConfiguration` for options that contradict each other.
    """
    fields = {_camel(name): name for name in Conventions.__struct_fields__}
    for name in given:
        check_name(name, [*fields, "pace", "preset", "streams"])
    preset = _check_preset(given.get("preset"))
    explicit = {fields[name]: value for name, value in given.items() if name in fields}
    for name, value in explicit.items():
        check_choice(_camel(name), value, _KINDS[name])
    values = {**msgspec.to_builtins(defaults), **_rules_of(preset, explicit), **explicit}
    conventions = _convert(values, Conventions, "$.options")
    _check_bounds(conventions)
    _check_size(conventions, value_given="sizeValue" in given)
    _check_margin(conventions)
    _check_presets_rules(conventions)
    streams = _check_streams(given.get("streams", {}))
    return Options(preset=preset, conventions=conventions, streams=streams, pace=_check_pace(given.get("pace")))


def _rules_of(preset: str | None, explicit: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what `preset` sets beside the explicit options."""
    if preset is None:
        return {}
    rules = PRESETS[preset]
    at_close = {**rules, **explicit}.get("fill_at") == "close" and explicit.get("close_booked") != "same_bar"
    return {**rules, **(_PRESETS_AT_CLOSE.get(preset, {}) if at_close else {})}


def _check_preset(preset: Any) -> str | None:
    if preset is None or (isinstance(preset, str) and preset in PRESETS):
        return preset
    near = did_you_mean(preset, PRESETS) if isinstance(preset, str) else ""
    raise ValidationError(
        f"unknown preset {quoted(preset)}{near} ({', '.join(sorted(PRESETS))})",
        path="$.options.preset",
        expected=sorted(PRESETS),
        got=quoted(preset),
    )


def _check_pace(pace: Any) -> float | None:
    if pace is None:
        return None
    if isinstance(pace, int | float) and not isinstance(pace, bool) and PACE_MIN <= pace <= PACE_MAX:
        return float(pace)
    raise _out_of_range("pace", f"bars a second, from {PACE_MIN:g} to {PACE_MAX}; leave it out for full speed", pace)


def _check_bounds(conventions: Conventions) -> None:
    for name, (low, high, expected) in _BOUNDS.items():
        value = getattr(conventions, name)
        if not low <= value <= high or value == -1.0:
            raise _out_of_range(name, expected, value)


def _check_size(conventions: Conventions, *, value_given: bool) -> None:
    if conventions.size == "all_in":
        if value_given:
            raise InvalidConfiguration(
                "sizeValue says how much of a size other than all_in; with size all_in it has no meaning",
                paths=["$.options.size", "$.options.sizeValue"],
            )
        return
    if not value_given:
        raise InvalidConfiguration(
            f"size {conventions.size} needs sizeValue", paths=["$.options.size", "$.options.sizeValue"]
        )
    if conventions.size in ("fraction", "risk") and not 0 < conventions.size_value <= 1:
        raise _out_of_range("size_value", "a fraction of equity above 0 and up to 1", conventions.size_value)
    if not 0 < conventions.size_value < float("inf"):
        what = "a number of units above 0" if conventions.size == "units" else "an amount of money above 0"
        raise _out_of_range("size_value", what, conventions.size_value)


def _check_margin(conventions: Conventions) -> None:
    margin, initial = conventions.maintenance_margin, 1.0 / conventions.leverage
    if margin >= initial:
        raise InvalidConfiguration(
            f"maintenanceMargin {margin} must be below the margin that a position starts with, 1 / leverage = "
            f"{initial:g}",
            paths=["$.options.maintenanceMargin", "$.options.leverage"],
        )


def _check_presets_rules(conventions: Conventions) -> None:
    if conventions.size_costs == "per_unit" and not conventions.whole_units:
        raise InvalidConfiguration(
            "sizeCosts per_unit counts in whole units: set wholeUnits",
            paths=["$.options.sizeCosts", "$.options.wholeUnits"],
        )
    if conventions.slippage_on == "entries" and conventions.reversal == "one_order":
        raise InvalidConfiguration(
            "slippageOn entries gives a close another price than an opening; a reversal in one order has one price: "
            "set reversal to two_orders",
            paths=["$.options.slippageOn", "$.options.reversal"],
        )
    if conventions.end_price == "previous_close" and not _books_next_bar(conventions):
        raise InvalidConfiguration(
            "endPrice previous_close is for fills at the close that the next bar books: set fillAt close and "
            "closeBooked next_bar",
            paths=["$.options.endPrice", "$.options.fillAt", "$.options.closeBooked"],
        )


def _books_next_bar(conventions: Conventions) -> bool:
    return conventions.fill_at == "close" and conventions.close_booked == "next_bar"


def _out_of_range(name: str, expected: str, value: object) -> ValidationError:
    return ValidationError(
        f"option {_camel(name)!r} must be {expected}, not {quoted(value)}",
        path=f"$.options.{_camel(name)}",
        expected=expected,
        got=quoted(value),
    )


def _check_streams(given: Any) -> StreamOptions:
    known = [_camel(name) for name in StreamOptions.__struct_fields__]
    for name in given if isinstance(given, Mapping) else ():
        if name not in known:
            shown = quoted(name)
            raise ValidationError(
                f"unknown stream option {shown}{did_you_mean(str(name), known)} ({', '.join(known)})",
                path=f"$.options.streams.{shown.strip(chr(39))}",
                expected=known,
                got=shown,
            )
    return _convert(given, StreamOptions, "$.options.streams")


def _convert(values: Any, kind: type[_Struct], path: str) -> _Struct:
    """Convert as `msgspec.convert`, and raise its error as a `ValidationError` with the path in the request."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$")
        inner = where.rstrip("`").lstrip(".")
        at = f"{path}.{_camel(inner)}" if inner else path
        text = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"  # it quotes the value
        raise ValidationError(f"{at.removeprefix('$.')}: {text}", path=at, expected=text) from None


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
