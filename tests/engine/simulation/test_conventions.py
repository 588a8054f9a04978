"""Options have three layers, and every unknown or contradicting option is refused."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from backtestr_engine.simulation.conventions import (
    PACE_MAX,
    PACE_MIN,
    PRESETS,
    Conventions,
    Options,
    resolve_options,
)
from backtestr_protocol.errors import BacktestrError, InvalidConfiguration, ValidationError
from support.protocol import hostile_values


def test_without_options_the_defaults_hold(conventions: Conventions) -> None:
    options = resolve_options({}, conventions)

    assert options.conventions == conventions
    assert options.preset is None
    assert (options.streams.orders, options.streams.prices) == (True, False)


def test_the_defaults_are_those_of_the_design(conventions: Conventions) -> None:
    assert conventions.fill_at == "next_open"
    assert conventions.size == "all_in"
    assert conventions.direction == "both"
    assert conventions.on_opposite == "reverse"
    assert conventions.close_at_end is False


def test_an_explicit_option_wins_over_the_preset(conventions: Conventions) -> None:
    options = resolve_options({"preset": "vectorbt", "crossTies": "keep"}, conventions)

    assert options.conventions.fill_at == "close"
    assert options.conventions.cross_ties == "keep"


def test_every_preset_sets_existing_options_only(conventions: Conventions) -> None:
    for name, preset in PRESETS.items():
        assert set(preset) <= set(Conventions.__struct_fields__)
        assert resolve_options({"preset": name}, conventions).preset == name


def test_options_that_are_spelled_out_resolve_to_the_same(conventions: Conventions) -> None:
    for given in (
        {},
        {"preset": "vectorbt"},
        {"pace": 50},
        {"size": "units", "sizeValue": 3, "streams": {"prices": True}},
    ):
        options = resolve_options(given, conventions)
        assert resolve_options(options.to_wire(), conventions) == options


@pytest.mark.parametrize(
    ("given", "error", "message", "path"),
    [
        ({"fillat": 1}, ValidationError, "unknown option 'fillat'; did you mean 'fillAt'?", "$.options.fillat"),
        ({"fillAt": "noon"}, ValidationError, "one of next_open, close, not 'noon'", "$.options.fillAt"),
        ({"closeAtEnd": 1}, ValidationError, "Expected `bool`, got `int`", "$.options.closeAtEnd"),
        ({"riskFree": float("nan")}, ValidationError, "'riskFree' must be a yearly rate", "$.options.riskFree"),
        ({"riskFree": -1}, ValidationError, "'riskFree' must be a yearly rate", "$.options.riskFree"),
        ({"timeLimitMs": 0}, ValidationError, "'timeLimitMs' must be milliseconds", "$.options.timeLimitMs"),
        ({"preset": "vectorbot"}, ValidationError, "unknown preset 'vectorbot'; did you mean", "$.options.preset"),
        ({"preset": 1}, ValidationError, "unknown preset 1", "$.options.preset"),
        (
            {"size": "fraction", "sizeValue": 1.5},
            ValidationError,
            "'sizeValue' must be a fraction of equity above 0 and up to 1",
            "$.options.sizeValue",
        ),
        (
            {"size": "units", "sizeValue": 0},
            ValidationError,
            "'sizeValue' must be a number of units",
            "$.options.sizeValue",
        ),
        (
            {"size": "value", "sizeValue": -5},
            ValidationError,
            "'sizeValue' must be an amount of money",
            "$.options.sizeValue",
        ),
        (
            {"commissionFixed": -1},
            ValidationError,
            "'commissionFixed' must be an amount of money, 0 or more",
            "$.options.commissionFixed",
        ),
        ({"stopLoss": -0.1}, ValidationError, "'stopLoss' must be a fraction of price", "$.options.stopLoss"),
        (
            {"streams": {"order": True}},
            ValidationError,
            "unknown stream option 'order'; did you mean 'orders'?",
            "$.options.streams.order",
        ),
        ({"streams": {"orders": 1}}, ValidationError, "Expected `bool`, got `int`", "$.options.streams.orders"),
        ({"streams": 1}, ValidationError, "Expected `object`, got `int`", "$.options.streams"),
        (
            {"streams": {"progressIntervalMs": 0}},
            ValidationError,
            "progressIntervalMs: Expected `int` >= 1",
            "$.options.streams.progressIntervalMs",
        ),
        ({"leverage": 0.5}, ValidationError, "'leverage' must be a multiple of cash", "$.options.leverage"),
        ({"pace": 0}, ValidationError, "'pace' must be bars a second, from 0.01 to 1000000", "$.options.pace"),
        ({"pace": 5e-324}, ValidationError, "from 0.01 to 1000000", "$.options.pace"),
        ({"pace": float("inf")}, ValidationError, "leave it out for full speed, not inf", "$.options.pace"),
        ({"pace": float("nan")}, ValidationError, "'pace' must be bars a second", "$.options.pace"),
        ({"pace": True}, ValidationError, "'pace' must be bars a second", "$.options.pace"),
        ({"pace": "fast"}, ValidationError, "'pace' must be bars a second", "$.options.pace"),
        ({"validBars": -1}, ValidationError, "'validBars' must be a number of bars", "$.options.validBars"),
    ],
)
def test_refusals(
    given: dict[str, Any], error: type[BacktestrError], message: str, path: str, conventions: Conventions
) -> None:
    with pytest.raises(error) as caught:
        resolve_options(given, conventions)
    assert message in caught.value.message
    assert caught.value.details is not None
    assert caught.value.details["path"] == path


@pytest.mark.parametrize("given", [{"sizeValue": 1}, {"size": "units"}, {"size": "fraction"}])
def test_a_size_and_its_value_belong_together(given: dict[str, Any], conventions: Conventions) -> None:
    with pytest.raises(InvalidConfiguration, match="sizeValue"):
        resolve_options(given, conventions)


def test_backtesting_py_fills_at_the_close_as_its_trade_on_close_does(conventions: Conventions) -> None:
    asked = {"preset": "backtesting.py", "fillAt": "close"}
    rules = resolve_options(asked, conventions).conventions
    at_once = resolve_options({**asked, "closeBooked": "same_bar"}, conventions).conventions

    assert (rules.fill_at, rules.close_booked, rules.end_price) == ("close", "next_bar", "previous_close")
    assert (at_once.close_booked, at_once.end_price) == ("same_bar", "open")
    assert resolve_options({"preset": "backtesting.py"}, conventions).conventions.end_price == "open"


def test_the_close_before_ends_only_what_the_next_bar_books(conventions: Conventions) -> None:
    with pytest.raises(InvalidConfiguration, match="set fillAt close and closeBooked next_bar"):
        resolve_options({"endPrice": "previous_close"}, conventions)


def test_margins_that_leave_no_position_are_refused(conventions: Conventions) -> None:
    for given in ({"maintenanceMargin": 1.0}, {"leverage": 4, "maintenanceMargin": 0.25}):
        with pytest.raises(InvalidConfiguration, match="must be below the margin that a position starts with"):
            resolve_options(given, conventions)


@pytest.mark.parametrize("given", [{"slippageOn": "entries"}, {"sizeCosts": "per_unit"}])
def test_half_of_a_preset_is_refused(given: dict[str, Any], conventions: Conventions) -> None:
    with pytest.raises(InvalidConfiguration, match=r"reversal|wholeUnits"):
        resolve_options(given, conventions)


def values_of(value: Any) -> list[Any]:
    """Return a hostile value as a decoder gives it, none where no decoder does."""
    try:
        return [msgspec.msgpack.decode(msgspec.msgpack.encode(value))]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []


HOSTILE = [one for value in hostile_values.HOSTILE for one in values_of(value)]


@pytest.mark.parametrize("name", hostile_values.option_names())
def test_an_option_of_any_value_is_taken_or_refused_with_its_path(name: str, conventions: Conventions) -> None:
    outer, _, inner = name.partition(".")
    for value in HOSTILE:
        refused: BacktestrError | None = None
        try:
            options = resolve_options({outer: {inner: value} if inner else value}, conventions)
        except BacktestrError as error:
            refused = error
        if refused is None:
            assert all(math.isfinite(one) for one in vars_of(options) if isinstance(one, float))
            assert options.pace is None or PACE_MIN <= options.pace <= PACE_MAX
        else:
            details = refused.details or {}
            assert all(path.startswith("$.options") for path in details.get("paths") or [details["path"]])
            assert len(refused.message) < 2_000


def vars_of(options: Options) -> list[Any]:
    return [*msgspec.structs.astuple(options.conventions), *msgspec.structs.astuple(options.streams), options.pace]
