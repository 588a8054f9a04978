"""Names of options that do not exist, and values that an option does not have."""

from __future__ import annotations

from typing import Any

import pytest

from backtestr_engine.simulation.conventions import Conventions, resolve_options
from backtestr_protocol.errors import ValidationError


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("params", "'parameters', which stands beside the options?"),
        ("cash", "'initialCapital', which stands beside the options?"),
        ("init_cash", "'initialCapital', which stands beside the options?"),
        ("initialCapital", "'initialCapital', which stands beside the options?"),
        ("fees", "'commission', which stands beside the options?"),
        ("start_date", "'startDate', which stands beside the options?"),
        ("slStop", "'stopLoss'?"),
        ("sl_stop", "'stopLoss'?"),
        ("tp-stop", "'takeProfit'?"),
        ("tradeOnClose", "'fillAt'?"),
        ("fill_at", "'fillAt'?"),
        ("fillAtt", "'fillAt'?"),
    ],
)
def test_the_name_that_was_meant_is_said(name: str, meant: str, conventions: Conventions) -> None:
    with pytest.raises(ValidationError) as caught:
        resolve_options({name: 1}, conventions)
    assert f"unknown option {name!r}; did you mean {meant}" in caught.value.message
    assert (caught.value.details or {})["path"] == f"$.options.{name}"


def test_a_name_like_no_other_gets_the_list(conventions: Conventions) -> None:
    with pytest.raises(ValidationError, match=r"unknown option 'zzz' \(afterStop, calendar, "):
        resolve_options({"zzz": 1}, conventions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fillAt": "clse"}, "option 'fillAt' must be one of next_open, close, not 'clse'; did you mean 'close'?"),
        ({"size": 3}, "option 'size' must be one of all_in, fraction, units, value, risk, not 3"),
        ({"direction": ["long"]}, "option 'direction' must be one of both, long, short, not ['long']"),
    ],
)
def test_the_values_of_an_option_are_listed(options: dict[str, Any], message: str, conventions: Conventions) -> None:
    with pytest.raises(ValidationError) as caught:
        resolve_options(options, conventions)
    assert message in caught.value.message


@pytest.mark.parametrize("name", ["stopLoss", "trailingStop"])
@pytest.mark.parametrize("value", [1, 1.0, 2, 100])
def test_a_loss_of_the_whole_price_is_refused_with_the_hint(name: str, value: float, conventions: Conventions) -> None:
    with pytest.raises(ValidationError, match=r"not including, 1 \(0\.02 = 2 %\)"):
        resolve_options({name: value}, conventions)
    assert resolve_options({name: 0.999}, conventions).to_wire()[name] == 0.999
    assert resolve_options({"takeProfit": value}, conventions).to_wire()["takeProfit"] == value
