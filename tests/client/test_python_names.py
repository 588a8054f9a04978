"""Errors speak of arguments as the caller wrote them."""

from __future__ import annotations

from typing import Any

import pytest

from backtestr.python_names import in_python, snake
from backtestr_protocol.errors import InvalidConfiguration, ValidationError


@pytest.mark.parametrize(
    ("message", "details", "said"),
    [
        (
            "unknown option 'initCash'; did you mean 'initialCapital', which stands beside the options?",
            {"path": "$.options.initCash", "expected": ["fillAt"], "meant": "initialCapital"},
            "unknown option 'init_cash'; did you mean 'capital', which stands beside the options?",
        ),
        (
            "unknown option 'fillOn'; did you mean 'fillAt'? (afterStop, fillAt)",
            {"path": "$.options.fillOn", "expected": ["afterStop", "fillAt"]},
            "unknown option 'fill_on'; did you mean 'fill_at'? (after_stop, fill_at)",
        ),
        (
            "startDate 2024-01-05 is not before endDate 2024-01-02",
            {"paths": ["$.startDate", "$.endDate"]},
            "start 2024-01-05 is not before end 2024-01-02",
        ),
        (
            "size units needs sizeValue",
            {"paths": ["$.options.size", "$.options.sizeValue"]},
            "size units needs size_value",
        ),
        ("unknown stream option 'progressInterval'", {"path": "$.options.streams.progressInterval"}, None),
        ("unknown symbol 'myCoin'", {"path": "$.symbol"}, "unknown symbol 'myCoin'"),
        ("unknown parameter 'fillAt' of mine", {"path": "$.parameters.fillAt"}, "unknown parameter 'fillAt' of mine"),
        ("there is no fillAt", {}, "there is no fillAt"),
        ("capital of myCoin", {"path": "$.initialCapital"}, "capital of myCoin"),
    ],
)
def test_names_of_the_wire_become_arguments(message: str, details: dict[str, Any], said: str | None) -> None:
    error = ValidationError(message, **details)
    again = in_python(error)

    assert again is error
    assert str(again) == again.message == (said or "unknown stream option 'progress_interval'")
    assert again.details == (details or None)


def test_the_type_stays() -> None:
    assert isinstance(in_python(InvalidConfiguration("stopBase", paths=["$.options.stopBase"])), InvalidConfiguration)


@pytest.mark.parametrize(("camel", "name"), [("fillAt", "fill_at"), ("progressIntervalMs", "progress_interval_ms")])
def test_snake_case(camel: str, name: str) -> None:
    assert snake(camel) == name
