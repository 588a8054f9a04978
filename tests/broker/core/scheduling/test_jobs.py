"""Each event in each state gives a job its next state or is refused; jobs are found, listed and forgotten."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from backtestr_broker.core.scheduling import jobs as jobs_module
from backtestr_broker.core.scheduling.jobs import TRANSITIONS, Job, JobEvent, Jobs, pace_of
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import NotFound, StateConflict
from backtestr_protocol.messages import FINAL_STATES, BacktestState

STATES: tuple[BacktestState, ...] = get_args(BacktestState)
EVENTS: tuple[JobEvent, ...] = get_args(JobEvent)
# Events that lead to each state.
WAYS: dict[BacktestState, tuple[JobEvent, ...]] = {
    "queued": (),
    "running": ("started",),
    "paused": ("started", "paused"),
    "completed": ("started", "completed"),
    "failed": ("started", "failed"),
    "stopped": ("stopped",),
}


def make_job(backtest_id: str = "b1", request_id: str = "r1") -> Job:
    return Job(
        backtest_id=backtest_id,
        algorithm_id="sma_cross",
        symbols=["SYNTH"],
        config=b"\x80",
        request_key=("ann", request_id),
        submit_time=1000,
    )


def after_events(jobs: Jobs, job: Job, events: tuple[JobEvent, ...], wall_ms: int = 2000) -> Job:
    for event in events:
        if event == "started":
            job.worker_id = "compute-1"
        jobs.change(job, event, wall_ms)
    return job


@pytest.mark.parametrize(("state", "event"), list(product(STATES, EVENTS)))
def test_every_event_in_every_state_changes_it_or_is_refused(state: BacktestState, event: JobEvent) -> None:
    jobs = Jobs()
    job = make_job()
    jobs.add(job)
    after_events(jobs, job, WAYS[state])
    assert job.status == state
    following = TRANSITIONS.get((state, event))
    if following is None:
        with pytest.raises(StateConflict, match=f"that is {state}") as caught:
            jobs.change(job, event, 3000)
        assert caught.value.details == {"status": state}
        assert job.status == state
    else:
        after_events(jobs, job, (event,), 3000)
        assert job.status == following
    jobs.check_invariants()


def test_the_table_is_the_declared_one() -> None:
    """List the refusals: an ended job stays as it is, and a job without a worker cannot be paused or completed."""
    refused = {pair for pair in product(STATES, EVENTS) if pair not in TRANSITIONS}
    assert refused == {
        *product(("completed", "failed", "stopped"), EVENTS),
        *product(("queued",), ("paused", "resumed", "completed", "lost")),
        *product(("running",), ("started", "resumed")),
        *product(("paused",), ("started", "paused", "completed")),
    }


def test_every_state_can_be_reached_and_final_states_are_not_left() -> None:
    assert {following for following in TRANSITIONS.values()} == set(STATES)
    assert {state for state, _ in TRANSITIONS} == set(STATES) - FINAL_STATES


def test_a_job_has_the_times_of_its_submission_start_and_end() -> None:
    jobs = Jobs()
    job = make_job()
    jobs.add(job)
    assert (job.submit_time, job.start_time, job.end_time) == (1000, None, None)
    after_events(jobs, job, ("started",), 2000)
    after_events(jobs, job, ("paused", "resumed"), 2500)
    after_events(jobs, job, ("completed",), 3000)
    status = job.status_message()
    assert (status.submit_time, status.start_time, status.end_time) == (1000, 2000, 3000)


def test_a_job_that_lost_its_worker_waits_as_if_it_had_not_started() -> None:
    jobs = Jobs()
    job = make_job()
    jobs.add(job)
    after_events(jobs, job, ("started", "lost"))
    assert (job.status, job.worker_id, job.start_time) == ("queued", None, None)


def test_an_id_is_taken_once() -> None:
    jobs = Jobs()
    jobs.add(make_job("b1", "r1"))
    with pytest.raises(StateConflict, match="'b1' exists") as caught:
        jobs.add(make_job("b1", "r2"))
    assert caught.value.details == {"status": "queued"}
    assert jobs.started_by(("ann", "r2")) is None
    jobs.check_invariants()


def test_a_job_is_found_by_the_request_that_started_it() -> None:
    jobs = Jobs()
    jobs.add(make_job("b1", "r1"))
    job = jobs.started_by(("ann", "r1"))
    assert job is not None
    assert job.backtest_id == "b1"
    assert jobs.started_by(("bob", "r1")) is None


def test_an_unknown_id_is_not_found_and_the_nearest_is_named() -> None:
    jobs = Jobs()
    jobs.add(make_job("golden"))
    with pytest.raises(NotFound, match="did you mean 'golden'"):
        jobs.get("goldne")


def test_the_earliest_ended_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "MAX_ENDED", 2)
    jobs = Jobs()
    for number in range(4):
        jobs.add(make_job(f"b{number}", f"r{number}"))
    assert jobs.forget_oldest() is None
    for name in ("b2", "b0", "b3"):
        after_events(jobs, jobs.get(name), ("stopped",))
    forgotten = jobs.forget_oldest()
    assert forgotten is not None
    assert forgotten.backtest_id == "b2"
    assert jobs.forget_oldest() is None
    assert [job.backtest_id for job in jobs] == ["b0", "b1", "b3"]
    assert jobs.started_by(("ann", "r2")) is None
    jobs.check_invariants()


def test_a_wrong_id_is_compared_with_the_newest_only() -> None:
    jobs = Jobs()
    jobs.add(make_job("golden", "first"))
    for number in range(jobs_module.COMPARED):
        jobs.add(make_job(f"{number}", f"r{number}"))
    with pytest.raises(NotFound) as caught:
        jobs.get("goldne")
    assert "did you mean" not in caught.value.message


@pytest.mark.parametrize(
    ("config", "pace"),
    [
        ({"options": {"pace": 5}}, 5.0),
        ({"options": {"pace": 0.01, "fillAt": "open"}, "symbol": "SYNTH"}, 0.01),
        ({"options": {"pace": None}}, None),
        ({"options": {}}, None),
        ({}, None),
        ({"options": {"pace": "fast"}}, None),
        ({"options": 7}, None),
        (7, None),
    ],
)
def test_the_pace_is_read_in_the_config(config: object, pace: float | None) -> None:
    assert pace_of(encode(config)) == pace


@pytest.mark.parametrize("config", [b"", b"\xc1", b"\x81"])
def test_a_damaged_config_has_no_pace(config: bytes) -> None:
    assert pace_of(config) is None


@pytest.mark.parametrize("event", ["paused", "lost", "completed", "failed", "stopped"])
def test_a_job_that_no_longer_runs_lends_nothing(event: JobEvent) -> None:
    jobs = Jobs()
    jobs.add(job := make_job())
    jobs.change(job, "started", 1)
    job.lends = True
    jobs.change(job, event, 2)
    assert not job.lends
