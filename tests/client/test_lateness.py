"""A backtest that is late says whether it runs or waits, and behind which others."""

from __future__ import annotations

from typing import Any, cast

import pytest

from backtestr.lateness import late
from backtestr.requester import Requester
from backtestr_protocol.errors import NetworkError, TimedOut
from backtestr_protocol.messages import MAX_LENDING, BacktestList, BacktestState, BacktestStatus


def status(
    name: str,
    state: BacktestState,
    submitted: int,
    percent: float = 0.0,
    pace: float | None = None,
    lends: bool = False,
) -> BacktestStatus:
    return BacktestStatus(
        backtest_id=name,
        status=state,
        algorithm_id=f"{name}_algorithm@1",
        symbol="SYNTH",
        progress_percent=percent,
        submit_time=submitted,
        pace=pace,
        lends=lends,
    )


def said(own: BacktestStatus, *others: BacktestStatus) -> TimedOut:
    def ask(request: str, data: Any, answer: Any, timeout: float) -> Any:
        return own if request == "GetBacktestStatus" else BacktestList(backtests=[own, *others])

    return late(cast(Requester, ask), own.backtest_id, TimedOut("nothing came within 3 s", timeoutSeconds=3))


def test_one_that_runs_says_how_far_it_is() -> None:
    error = said(status("mine", "running", 5, 41.6))

    assert str(error) == "nothing came within 3 s: backtest mine is running, at 42 %"
    assert error.details == {"timeoutSeconds": 3, "status": "running", "progressPercent": 41.6}


@pytest.mark.parametrize(
    ("others", "text"),
    [
        ((), "nothing came within 3 s: backtest mine is queued"),
        (
            (status("paced", "running", 1, 12.0), status("later", "queued", 9), status("done", "completed", 1)),
            "nothing came within 3 s: backtest mine is queued behind paced (paced_algorithm on SYNTH, at 12 %), which "
            "the workers run",
        ),
        (
            (status("paced", "running", 1), status("first", "queued", 2)),
            "nothing came within 3 s: backtest mine is queued behind paced (paced_algorithm on SYNTH, at 0 %), which "
            "the workers run and 1 that was queued before it",
        ),
        (
            (status("first", "queued", 2), status("second", "queued", 3)),
            "nothing came within 3 s: backtest mine is queued behind 2 that were queued before it",
        ),
    ],
)
def test_one_that_waits_names_those_before_it(others: tuple[BacktestStatus, ...], text: str) -> None:
    error = said(status("mine", "queued", 5), *others)

    assert str(error) == text
    assert (error.details or {})["status"] == "queued"


def paced(number: int) -> BacktestStatus:
    return status(f"paced-{number}", "running", 1, pace=5.0, lends=True)


def test_one_that_lends_its_worker_is_not_before_it() -> None:
    error = said(status("mine", "queued", 5), paced(1), status("other", "running", 2))

    assert "behind other (other_algorithm on SYNTH, at 0 %), which the workers run" in str(error)
    assert (error.details or {})["behind"] == ["other"]
    keeps = status("keeps", "running", 1, pace=5.0)
    assert (said(status("mine", "queued", 5), keeps).details or {})["behind"] == ["keeps"], "it does not lend"


@pytest.mark.parametrize(("others", "behind"), [(MAX_LENDING - 1, None), (MAX_LENDING, MAX_LENDING)])
def test_a_paced_one_is_behind_those_that_lend_where_a_worker_takes_no_more(others: int, behind: int | None) -> None:
    lending = [paced(number) for number in range(others)]
    found = said(status("mine", "queued", 5, pace=1.0), *lending).details or {}

    assert (len(found["behind"]) if behind else found.get("behind")) == behind
    assert "behind" not in (said(status("mine", "queued", 5), *lending).details or {}), "without a pace it passes them"


def test_where_the_broker_does_not_answer_the_error_stays() -> None:
    def ask(*_: Any) -> Any:
        raise NetworkError("it is gone")

    error = TimedOut("nothing came within 3 s")
    assert late(cast(Requester, ask), "mine", error) is error
