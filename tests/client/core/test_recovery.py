"""The policy of recovery is a value, and one that makes no sense is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backtestr.core.recovery import Recovery


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"backoff": "wild"}, "'fixed', 'linear', 'exponential'; 'wild' came"),
        ({"base_delay": 0}, "base_delay: expected a number above 0; 0 came"),
        ({"base_delay": 9.0}, "base_delay: 9 is above max_delay, 5"),
        ({"max_delay": float("nan")}, "max_delay"),
        ({"jitter": -1}, "jitter: expected a number 0 or more; -1 came"),
        ({"resend_after": 0.0}, "resend_after: expected a number above 0, or None"),
        ({"max_attempts": 0}, "max_attempts: expected a number 1 or more"),
        ({"breaker_failures": 0}, "breaker_failures"),
        ({"breaker_reset": True}, "breaker_reset: expected a number above 0; True came"),
        ({"offline_queue": -1}, "offline_queue"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Recovery(**wrong)


def test_a_policy_is_a_value() -> None:
    assert Recovery() == Recovery()
    assert msgspec.structs.replace(Recovery(), jitter=0.0).jitter == 0.0
