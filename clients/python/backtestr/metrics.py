"""The figures of a finished backtest, by name.

The broker computes them; formulas and sources stand with the engine. Returns, rates and drawdowns are fractions
(0.25 = 25 %), drawdowns positive, durations in milliseconds, money in the account's currency.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from backtestr_protocol.errors import ValidationError


class Metrics(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """None is a metric that has no value for this backtest, with its reason in `undefined`, or one that this broker
    does not compute."""

    start_equity: float | None = None
    final_equity: float | None = None
    peak_equity: float | None = None

    total_return: float | None = None
    annual_return: float | None = None
    cagr: float | None = None
    buy_and_hold_return: float | None = None
    alpha: float | None = None
    beta: float | None = None

    volatility: float | None = None
    sharpe_ratio: float | None = None
    sortino_ratio: float | None = None
    calmar_ratio: float | None = None
    omega_ratio: float | None = None
    skew: float | None = None
    kurtosis: float | None = None
    value_at_risk_95: float | None = None
    conditional_value_at_risk_95: float | None = None
    tail_ratio: float | None = None

    max_drawdown: float | None = None
    average_drawdown: float | None = None
    max_drawdown_duration_ms: int | None = None
    average_drawdown_duration_ms: float | None = None
    recovery_factor: float | None = None
    ulcer_index: float | None = None

    exposure: float | None = None
    turnover: float | None = None
    total_fees: float | None = None
    total_slippage: float | None = None

    total_trades: int | None = None
    open_trades: int | None = None
    win_rate: float | None = None
    best_trade: float | None = None
    worst_trade: float | None = None
    average_trade: float | None = None
    profit_factor: float | None = None
    payoff_ratio: float | None = None
    expectancy: float | None = None
    sqn: float | None = None
    kelly: float | None = None
    average_trade_duration_ms: float | None = None
    max_trade_duration_ms: float | None = None
    average_mae: float | None = None
    average_mfe: float | None = None
    undefined: dict[str, str] = {}
    """Why a metric is None, by its name here."""
    more: dict[str, Any] = {}
    """What a newer broker computes beside these, by its name on the wire."""

    def defined(self) -> dict[str, float | int]:
        """The metrics that have a value, by name, in the order above."""
        values = {name: getattr(self, name) for name in NAMES}
        return {name: value for name, value in values.items() if value is not None}

    def to_wire(self) -> dict[str, Any]:
        """The metrics as the broker sent them: camelCase names, null for what has no value."""
        reasons = {_TO_WIRE.get(name, name): reason for name, reason in self.undefined.items()}
        wire = {_TO_WIRE[name]: getattr(self, name) for name in NAMES if getattr(self, name) is not None}
        return {**wire, **dict.fromkeys(reasons), **self.more, "undefined": reasons}


NAMES = tuple(name for name in Metrics.__struct_fields__ if name not in ("undefined", "more"))
_TO_WIRE = dict(zip(Metrics.__struct_fields__, Metrics.__struct_encode_fields__, strict=True))
_ON_WIRE = {wire: name for name, wire in _TO_WIRE.items()}


def metrics_from_wire(wire: Mapping[str, Any]) -> Metrics:
    """The metrics as the broker sent them. Raises `ValidationError` where a figure is not one."""
    known = {name: value for name, value in wire.items() if name in _ON_WIRE and name != "undefined"}
    reasons = wire.get("undefined", {})
    undefined = {_ON_WIRE.get(name, name): reason for name, reason in reasons.items()}
    more = {name: value for name, value in wire.items() if name not in _ON_WIRE}
    try:
        return msgspec.convert({**known, "undefined": undefined, "more": more}, Metrics)
    except msgspec.ValidationError as error:
        raise ValidationError(f"metrics: {error}") from error
