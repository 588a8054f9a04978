"""Whatever its workers say and however they end, a backtest fails for their loss by its bounds, and not before."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core.events import WorkerExited
from backtestr_broker.core.scheduling.jobs import MAX_KILLED, MAX_LOSSES
from backtestr_protocol import worker_channel
from support.broker.link import Link
from support.broker.steps import B1, start

losses = st.tuples(st.just("lose"), st.sampled_from([0, 1]))
checkpoints = st.tuples(st.just("checkpoint"), st.integers(0, 30))
pauses = st.tuples(st.just("lose paused"), st.sampled_from([0, 1]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(losses, losses, losses, losses, checkpoints, pauses), max_size=40))
def test_only_workers_lost_at_work_since_the_last_advance_count(steps: list[tuple[str, int]]) -> None:
    link = Link()
    ann, worker = link.client("ann"), link.worker("compute-1")
    start(ann, "b1")
    furthest, own, killed = -1, 0, 0
    for step, number in steps:
        if step == "checkpoint":
            worker.say(worker_channel.Checkpointed(task_id="b1", bars=number))
            if number > furthest:
                furthest, own, killed = number, 0, 0
            continue
        if is_paused := step == "lose paused":
            ann.later("PauseBacktest", B1)
            worker.paused()
        else:
            own, killed = own + 1 - number, killed + number
        link.feed(WorkerExited(worker.worker_id, "it ended", link.wall_ms, killed=bool(number)))
        worker = link.start_worker("compute-1", "compute")
        worker.ready()
        status = ann.ask("GetBacktestStatus", B1)["status"]
        if own > MAX_LOSSES or killed > MAX_KILLED:
            assert status == "failed"
            return
        assert status == "running"
        assert worker.assigned[-1].losses == (own + killed or None)
        assert worker.assigned[-1].resumes
        if is_paused:
            assert worker.assigned[-1].paused
            worker.paused()
            ann.later("ResumeBacktest", B1)
            worker.resumed()
