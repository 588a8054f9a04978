"""Followed backtests are asked for when their end may be lost, and new ones only after the broker has accepted them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backtestr.core.effects import Ask, StatusCheck
from backtestr.core.followed_backtests import FollowedBacktests


def asked(effects: list[Ask]) -> list[str]:
    assert all(isinstance(effect.purpose, StatusCheck) for effect in effects)
    return [effect.purpose.backtest_id for effect in effects if isinstance(effect.purpose, StatusCheck)]


def test_an_older_backtest_is_asked_for_at_once_and_a_new_one_is_not() -> None:
    backtests = FollowedBacktests()
    assert asked(backtests.follow("old", is_new=False)) == ["old"]
    assert asked(backtests.follow("new", is_new=True)) == []
    assert ("old" in backtests, "new" in backtests, len(backtests)) == (True, True, 2)


def test_a_new_backtest_is_asked_for_after_its_start_if_its_end_may_be_lost() -> None:
    backtests = FollowedBacktests()
    backtests.follow("new", is_new=True)
    assert asked(backtests.ask_for_all()) == []
    assert asked(backtests.started("new")) == ["new"]
    assert asked(backtests.started("new")) == [], "once is enough"
    assert asked(backtests.ask_for_all()) == ["new"]


def test_a_new_backtest_is_not_asked_for_after_its_start_if_nothing_was_lost() -> None:
    backtests = FollowedBacktests()
    backtests.follow("new", is_new=True)
    assert asked(backtests.started("new")) == []


@given(st.lists(st.tuples(st.sampled_from(["old", "new", "start", "unfollow", "lost"]), st.sampled_from("abc"))))
def test_only_followed_and_accepted_backtests_are_asked_for(steps: list[tuple[str, str]]) -> None:
    backtests = FollowedBacktests()
    followed: dict[str, bool] = {}  # True: accepted by the broker
    for step, backtest_id in steps:
        match step:
            case "old" if backtest_id not in followed:
                followed[backtest_id] = True
                assert asked(backtests.follow(backtest_id, is_new=False)) == [backtest_id]
            case "new" if backtest_id not in followed:
                followed[backtest_id] = False
                assert asked(backtests.follow(backtest_id, is_new=True)) == []
            case "start" if backtest_id in followed:
                followed[backtest_id] = True
                assert set(asked(backtests.started(backtest_id))) <= {backtest_id}
            case "unfollow":
                followed.pop(backtest_id, None)
                backtests.unfollow(backtest_id)
            case "lost":
                assert asked(backtests.ask_for_all()) == sorted(
                    one for one, is_accepted in followed.items() if is_accepted
                )
        backtests.check_invariants()
        assert {one for one in "abc" if one in backtests} == followed.keys()
