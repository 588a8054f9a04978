"""Each right includes those before it, and every request has the least right that it needs."""

from __future__ import annotations

import pytest

from backtestr_protocol.errors import RECOVERY_ACTIONS, AuthenticationError, NotPermitted
from backtestr_protocol.message_types import REQUESTS
from backtestr_protocol.rights import RIGHTS, Right, check_right, includes

# The first words of the requests that only ask, and of those that run something or steer it, which come first here:
# GetSweepRun starts a backtest. All others change what is stored, or end the broker.
ASKING = ("Hello", "Goodbye", "Ping", "Get", "List", "Describe", "Fetch", "Snapshot")
STEERING = (
    *("Start", "Evaluate", "Pause", "Resume", "StopBacktest", "StopPriceReplay", "StopSweep", "GetSweepRun"),
    "Acknowledge",
)


def test_the_rights_are_in_one_order() -> None:
    assert list(RIGHTS) == ["read", "run", "all"]
    for rank, held in enumerate(RIGHTS):
        assert [includes(held, needed) for needed in RIGHTS] == [needed <= rank for needed in range(len(RIGHTS))]


@pytest.mark.parametrize("name", list(REQUESTS))
def test_a_request_needs_the_right_for_what_it_does(name: str) -> None:
    expected = "run" if name.startswith(STEERING) else "read" if name.startswith(ASKING) else "all"
    assert REQUESTS[name].right == expected


@pytest.mark.parametrize(("needed", "held"), [("run", "read"), ("all", "read"), ("all", "run")])
def test_a_refusal_says_what_the_key_may_do_and_how_to_change_it(needed: Right, held: Right) -> None:
    check_right("Ping", held, held, "laptop")
    with pytest.raises(NotPermitted, match=f"backtestr keys allow laptop --rights {needed}$") as caught:
        check_right("UpdateState", needed, held, "laptop")
    assert RIGHTS[held] in caught.value.message
    assert caught.value.details == {"key": "laptop", "right": held, "needed": needed}


def test_no_client_reads_the_connection_file_again_for_a_refusal() -> None:
    """The code is that of a wrong key, for which a client does so by itself; here it would not help."""
    refusal = NotPermitted("no")
    assert isinstance(refusal, AuthenticationError)
    assert [action.user_required for action in refusal.recovery_actions] == [True]
    assert [action.automatic for action in RECOVERY_ACTIONS["AUTHENTICATION_ERROR"]] == [True]
