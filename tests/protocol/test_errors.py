"""Every error code has an exception and recovery actions, and crosses the wire and back."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol import errors
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import (
    BY_CODE,
    RECOVERY_ACTIONS,
    BacktestrError,
    ErrorCode,
    ErrorData,
    MessageError,
    NotFound,
    Severity,
    did_you_mean,
    from_data,
    quoted,
    unknown,
)
from support.protocol.strategies import VALUES, laws

CODES: tuple[str, ...] = get_args(ErrorCode)
ALGORITHMS = ["buy_and_hold", "sma_cross", "SMA_Slow"]


def subclasses(error: type[BacktestrError]) -> set[type[BacktestrError]]:
    return {error}.union(*(subclasses(one) for one in error.__subclasses__()))


# Errors with the code of another error and recovery actions of their own.
KINDS = sorted(
    (one for one in subclasses(BacktestrError) if one.advice is not None and one.__module__ == errors.__name__),
    key=lambda kind: kind.__name__,
)


def test_every_code_has_an_exception_and_recovery_actions() -> None:
    assert set(BY_CODE) == set(RECOVERY_ACTIONS) == set(CODES)
    here = {one for one in subclasses(BacktestrError) if one.__module__ == errors.__name__}  # clients add their own
    assert set(BY_CODE.values()) == here - {BacktestrError, MessageError} - set(KINDS)


ADVICE = dict(RECOVERY_ACTIONS) | {kind.__name__: kind.advice or () for kind in KINDS}


@pytest.mark.parametrize("actions", ADVICE.values(), ids=ADVICE)
def test_recovery_actions_can_be_followed(actions: tuple[errors.RecoveryAction, ...]) -> None:
    assert actions
    assert len({one.action for one in actions}) == len(actions)
    for one in actions:
        assert one.action.isidentifier()
        assert one.description[0].isupper()
        assert not (one.automatic and one.user_required)


@pytest.mark.parametrize("code", CODES)
@laws
@given(message=st.text(max_size=50), details=st.none() | st.dictionaries(st.text(max_size=8), VALUES, min_size=1))
def test_errors_cross_the_wire(code: str, message: str, details: dict[str, Any] | None) -> None:
    sent = BY_CODE[code](message, **(details or {}))
    data = sent.to_data(component="broker", timestamp=1_790_000_000_000)
    assert (data.code, data.severity, data.recovery_actions) == (code, sent.severity, list(RECOVERY_ACTIONS[code]))
    received = msgspec.msgpack.decode(encode(data), type=ErrorData)
    assert received == data
    error = from_data(received)
    assert type(error) is type(sent)
    assert (str(error), error.message, error.details) == (message, message, details)
    assert error.to_data(component="broker", timestamp=1_790_000_000_000) == data


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_error_is_sent_with_its_code_and_its_own_recovery_actions(kind: type[BacktestrError]) -> None:
    received = from_data(kind("no").to_data(component="engine", timestamp=0))
    assert type(received) is BY_CODE[kind.code]
    assert issubclass(kind, BY_CODE[kind.code])
    assert received.recovery_actions == kind("no").recovery_actions
    assert received.recovery_actions != list(RECOVERY_ACTIONS[kind.code])


def test_the_recovery_actions_of_a_peer_stay_with_the_error() -> None:
    advice = errors.RecoveryAction(action="dance", description="Dance", automatic=True, user_required=False)
    data = msgspec.structs.replace(NotFound("no").to_data(component="broker", timestamp=0), recovery_actions=[advice])
    assert from_data(data).recovery_actions == [advice]
    assert from_data(msgspec.structs.replace(data, recovery_actions=[])).recovery_actions == []


@pytest.mark.parametrize(
    ("code", "action", "automatic", "user_required"),
    [
        ("BUSY", "wait", True, False),
        ("RATE_LIMIT_EXCEEDED", "wait", True, False),
        ("SYSTEM_ERROR", "retry", True, False),
        ("SESSION_UNKNOWN", "hello", True, False),
        ("REPLAY_DETECTED", "resend", True, False),
        ("AUTHENTICATION_ERROR", "reload_connection_file", True, False),
        ("STATE_CONFLICT", "refresh", False, False),  # only the program knows why it made the change
        ("VALIDATION_ERROR", "correct_request", False, True),
    ],
)
def test_the_first_recovery_action_of_a_code(code: str, action: str, automatic: bool, user_required: bool) -> None:
    first = RECOVERY_ACTIONS[code][0]
    assert (first.action, first.automatic, first.user_required) == (action, automatic, user_required)


def test_data_are_those_of_the_protocol_page() -> None:
    data = NotFound("no such thing", kind="thing").to_data(component="engine", timestamp=5)
    assert msgspec.to_builtins(data) == {
        "code": "NOT_FOUND",
        "message": "no such thing",
        "details": {"kind": "thing"},
        "recoveryActions": [
            {
                "action": "correct_name",
                "description": "Use one of the names that the message or details give",
                "automatic": False,
                "userRequired": True,
            }
        ],
        "severity": "Error",
        "component": "engine",
        "timestamp": 5,
    }
    assert msgspec.to_builtins(errors.Busy("full").to_data(component="broker", timestamp=5))["details"] is None


def test_details_may_have_the_names_of_the_constructor_s_parameters() -> None:
    error = from_data(errors.DataError("bad", message="inner", self="x").to_data(component="engine", timestamp=0))
    assert error.details == {"message": "inner", "self": "x"}


@pytest.mark.parametrize("error", BY_CODE.values(), ids=BY_CODE.keys())
def test_severities_are_those_of_the_protocol_page(error: type[BacktestrError]) -> None:
    assert error.severity in get_args(Severity)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("sma_cros", "; did you mean 'sma_cross'?"),
        ("SMA_CROSS", "; did you mean 'sma_cross'?"),
        ("sma_slow", "; did you mean 'SMA_Slow'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_similar_names(name: str, answer: str) -> None:
    assert did_you_mean(name, ALGORITHMS) == answer


def test_no_name_is_similar_if_none_is_known() -> None:
    assert did_you_mean("x", []) == ""


def test_unknown_lists_the_known_names() -> None:
    error = unknown("algorithm", "sma_cros", ALGORITHMS, hint="see the list")
    assert str(error) == (
        "unknown algorithm 'sma_cros'; did you mean 'sma_cross'? (SMA_Slow, buy_and_hold, sma_cross); see the list"
    )
    assert error.details == {"kind": "algorithm", "name": "sma_cros", "known": sorted(ALGORITHMS)}
    assert str(unknown("symbol", "X", [])) == "unknown symbol 'X' (there is none yet)"


def test_unknown_lists_no_more_than_twenty() -> None:
    error = unknown("symbol", "none of them", [f"S{number:02}" for number in range(21)])
    assert "S19, …)" in str(error)
    assert "S20" not in str(error)
    assert error.details is not None
    assert len(error.details["known"]) == 20


def test_a_huge_name_takes_neither_time_nor_space() -> None:
    huge = "sma_cross" * 1_000_000
    error = unknown("symbol", huge, ALGORITHMS)
    assert len(encode(error.to_data(component="broker", timestamp=0))) < 1_000
    # Beyond the bound names are not compared: this one differs from a known one by a letter.
    assert did_you_mean("x" * 200, ["x" * 199 + "y"]) == ""


def test_a_received_value_is_quoted_up_to_a_bound() -> None:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    assert quoted("a") == "'a'"
    assert quoted(1e308) == "1e+308"
    assert quoted("x" * 10_000) == f"'{'x' * 199}…"
    assert quoted(deep) == "a list that is nested too deeply"
